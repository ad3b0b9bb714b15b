/** The state that a peer derives from messages about the remote, and the number of hashes computed per message. */
import { assert, describe, it } from "@effect/vitest"
import { vi } from "vitest"
import * as Inventory from "../src/Inventory.ts"
import * as RemoteState from "../src/peer/remoteState.ts"
import * as Wire from "../src/Wire.ts"
import {
  askItems,
  block,
  blockHash,
  cmpctblock,
  filteredBlock,
  getblocktxn,
  getdata,
  hash,
  header,
  headers,
  inv,
  item,
  make as makeTracker,
  tx,
  txid,
  wtxid
} from "./support/requests.ts"

const hashed = vi.hoisted(() => ({ count: 0 }))
vi.mock("../src/primitives/sha256.ts", async (original) => {
  const actual = await original<typeof import("../src/primitives/sha256.ts")>()
  return {
    ...actual,
    doubleSha256: (bytes: Uint8Array) => {
      hashed.count++
      return actual.doubleSha256(bytes)
    }
  }
})

/** The number of hashes that the call computes. */
const countHashes = (call: () => void): number => {
  hashed.count = 0
  call()
  return hashed.count
}

const make = (options: { readonly wtxidRelay?: boolean; readonly knownLimit?: number } = {}) => {
  const knownLimit = options.knownLimit ?? 1_000
  return RemoteState.make({
    known: Inventory.makeKnown(knownLimit, 1),
    knownLimit,
    wtxidRelay: options.wtxidRelay ?? false,
    relay: false,
    wantsHeaders: false
  })
}

describe("observing a received message", () => {
  it("records the hashes that the remote announced, requested and sent", () => {
    const state = make()
    const transaction = tx(1)
    for (const message of [
      inv(1),
      getdata(item(1, hash(2))),
      transaction,
      block(3),
      headers(header(5)),
      cmpctblock(6)
    ]) {
      RemoteState.observe(state, message)
    }
    for (const known of [hash(2), txid(1), blockHash(3), blockHash(5), blockHash(6)])
      assert.isTrue(state.known.has(known))
    assert.isFalse(state.known.has(hash(9)))
  })

  it("records a transaction by wtxid after wtxidrelay and else by txid, and returns that hash", () => {
    const byTxid = make()
    assert.deepStrictEqual(RemoteState.observe(byTxid, tx(1, true)), { txid: txid(1) })
    assert.isTrue(byTxid.known.has(txid(1)))
    const byWtxid = make({ wtxidRelay: true })
    assert.deepStrictEqual(RemoteState.observe(byWtxid, tx(1, true)), { wtxid: wtxid(1) })
    assert.isTrue(byWtxid.known.has(wtxid(1)))
    assert.isFalse(byWtxid.known.has(txid(1)))
  })

  it("records the last received and the last announced block", () => {
    const state = make()
    RemoteState.observe(state, block(1))
    assert.deepStrictEqual(state.lastBlockReceived, blockHash(1))
    assert.isUndefined(state.lastBlockAnnounced)
    const items = [item(2, hash(1)), item(2, hash(2)), item(1, hash(3))]
    RemoteState.observe(state, { _tag: "inv", items })
    assert.deepStrictEqual(state.lastBlockAnnounced, hash(2))
    RemoteState.observe(state, { _tag: "headers", headers: [header(4), header(5)] })
    assert.deepStrictEqual(state.lastBlockAnnounced, blockHash(5))
    RemoteState.observe(state, cmpctblock(6))
    assert.deepStrictEqual(state.lastBlockAnnounced, blockHash(6))
    // These two messages announce no block.
    RemoteState.observe(state, { _tag: "headers", headers: [] })
    RemoteState.observe(state, { _tag: "inv", items: [item(1, hash(7))] })
    assert.deepStrictEqual(state.lastBlockAnnounced, blockHash(6))
  })

  it("records the last announced block even with knownInventory 0", () => {
    const state = make({ knownLimit: 0 })
    RemoteState.observe(state, { _tag: "inv", items: [item(2, hash(1))] })
    assert.deepStrictEqual(state.lastBlockAnnounced, hash(1))
    assert.strictEqual(state.known.size, 0)
  })

  it("records sendheaders, feefilter and filterclear, and ignores invalid fee rates", () => {
    const state = make()
    RemoteState.observe(state, { _tag: "sendheaders" })
    assert.isTrue(state.wantsHeaders)
    RemoteState.observe(state, { _tag: "feefilter", feeRate: 1_000 })
    RemoteState.observe(state, { _tag: "feefilter", feeRate: 21e14 + 1 })
    RemoteState.observe(state, { _tag: "feefilter", feeRate: -1 })
    assert.strictEqual(state.feeFilter, 1_000)
    assert.isFalse(state.relay)
    RemoteState.observe(state, { _tag: "filterclear" })
    assert.isTrue(state.relay)
  })

  it("computes each hash once, even if a request is waiting for the message", () => {
    const messages: ReadonlyArray<readonly [Wire.Message, Wire.InventoryItem, number]> = [
      // The header, and the only transaction, to check the merkle root.
      [block(1), item(2, blockHash(1)), 2],
      [cmpctblock(2), item(4, blockHash(2)), 1],
      [filteredBlock(3), item(3, blockHash(3)), 1],
      [tx(4), item(1, txid(4)), 1]
    ]
    for (const [message, wanted, expected] of messages) {
      const state = make()
      const tracker = makeTracker()
      const { outcomes } = askItems(tracker, [wanted])
      const count = countHashes(() => tracker.received(message, RemoteState.observe(state, message), 0))
      assert.strictEqual(outcomes[0]?._tag, "Found")
      assert.strictEqual(count, expected, message._tag)
    }
  })
})

describe("observing a sent message", () => {
  it("records the hashes that the remote learns from it, and changes nothing else", () => {
    const state = make()
    for (const message of [block(1), tx(2), { _tag: "sendheaders" } as const, cmpctblock(3)]) {
      RemoteState.observeSent(state, message)
    }
    for (const known of [blockHash(1), txid(2), blockHash(3)]) assert.isTrue(state.known.has(known))
    // To ask for something says nothing about whether the remote has it.
    RemoteState.observeSent(state, getdata(item(2, hash(4)), item(1, hash(5))))
    RemoteState.observeSent(state, getblocktxn(6, 1))
    for (const unknown of [hash(4), hash(5), blockHash(6)]) assert.isFalse(state.known.has(unknown))
    assert.isUndefined(state.lastBlockReceived)
    assert.isUndefined(state.lastBlockAnnounced)
    assert.isFalse(state.wantsHeaders)
  })
})
