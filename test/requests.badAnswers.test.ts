/** Messages that cannot be the answer that they seem to be: each answers nothing, and names the end of its sender. */
import { assert, describe, it } from "@effect/vitest"
import type { RequestTracker } from "../src/peer/requests/tracker.ts"
import * as Wire from "../src/Wire.ts"
import {
  ask,
  askItems,
  block,
  blockHash,
  blocktxn,
  filteredBlock,
  found,
  foundFiltered,
  genesisHash,
  getblocktxn,
  getdata,
  getheaders,
  hash,
  header,
  headers,
  item,
  make,
  mutatedBlock,
  received,
  tx,
  witnessFlag
} from "./support/requests.ts"

const bad = (command: string, hash: Uint8Array | undefined, problem: string) => ({
  _tag: "BadAnswer",
  command,
  hash,
  problem
})

/** The message ends its sender, and leaves every request open. */
const isBad = (tracker: RequestTracker, message: Wire.Message, expected: ReturnType<typeof bad>): void => {
  const { size } = tracker
  assert.deepEqual(received(tracker, message), expected as never)
  assert.strictEqual(tracker.size, size)
}

describe("a block", () => {
  const others = bad("block", blockHash(1), "the header commits to other transactions")

  it("with other transactions answers nothing, whatever it was requested for", () => {
    for (const type of [2, 2 | witnessFlag, 4]) {
      const tracker = make()
      const { outcomes } = askItems(tracker, [item(type, blockHash(1))])
      isBad(tracker, mutatedBlock(1), others)
      assert.isUndefined(received(tracker, block(1, true)))
      assert.deepStrictEqual(outcomes, [found(block(1, true))])
    }
    const tracker = make()
    const { outcomes } = ask(tracker, getblocktxn(1, 0))
    isBad(tracker, mutatedBlock(1), others)
    assert.isUndefined(received(tracker, block(1, true)))
    assert.deepStrictEqual(outcomes, [found(block(1, true))])
  })

  it("is judged only if it was requested", () => {
    const tracker = make()
    assert.isUndefined(received(tracker, mutatedBlock(1)))
    askItems(tracker, [item(2, blockHash(2))])
    assert.isUndefined(received(tracker, mutatedBlock(1)))
    // By the caller itself, too.
    tracker.sent(getdata(item(2, blockHash(1))), 0)
    isBad(tracker, mutatedBlock(1), others)
  })

  it("without its witnesses answers the request without them alone", () => {
    const problem = "the coinbase has a commitment without its witness"
    for (const type of [2 | witnessFlag, 4]) {
      const tracker = make()
      askItems(tracker, [item(type, blockHash(1))])
      isBad(tracker, block(1), bad("block", blockHash(1), problem))
    }
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(2, blockHash(1)), item(2 | witnessFlag, blockHash(1))])
    assert.isUndefined(received(tracker, block(1)))
    assert.deepStrictEqual(outcomes, [found(block(1)), undefined])
    isBad(tracker, block(1), bad("block", blockHash(1), problem))
  })

  it("with other witnesses answers nothing", () => {
    const { block: right } = block(1, true)
    const [coinbase] = Array.from(right.transactions)
    const inputs = Array.from(coinbase.inputs, (input) => ({ ...input, witness: [hash(1)] }))
    const wrong: Wire.BlockMessage = { _tag: "block", block: { ...right, transactions: [{ ...coinbase, inputs }] } }
    for (const type of [2, 2 | witnessFlag]) {
      const tracker = make()
      askItems(tracker, [item(type, blockHash(1))])
      isBad(tracker, wrong, bad("block", blockHash(1), "the coinbase commits to other witnesses"))
    }
  })
})

describe("a filtered block", () => {
  it("without a proof answers nothing", () => {
    const proof = filteredBlock(1, tx(1))
    const hashOfIt = Wire.blockHash(proof.header)
    for (const [message, problem] of [
      [{ ...proof, flags: new Uint8Array(0) }, /./],
      [{ ...proof, transactionCount: 2 }, /./],
      [{ ...proof, hashes: [hash(1)] }, /root/]
    ] as const) {
      const tracker = make()
      const { outcomes } = askItems(tracker, [item(3, hashOfIt)])
      const answer = received(tracker, message)
      assert.deepEqual({ ...answer, problem: "" }, bad("merkleblock", hashOfIt, "") as never)
      assert.match(answer!.problem, problem)
      assert.isUndefined(received(tracker, proof))
      assert.isUndefined(received(tracker, tx(1)))
      assert.deepStrictEqual(outcomes, [foundFiltered(proof, 1)])
    }
  })

  it("is judged only if it was requested", () => {
    const tracker = make()
    askItems(tracker, [item(3, blockHash(2))])
    assert.isUndefined(received(tracker, { ...filteredBlock(1), flags: new Uint8Array(0) }))
  })
})

describe("transactions of a block", () => {
  it("that are more or fewer than were requested answer nothing", () => {
    const { transaction } = tx(1)
    const tracker = make()
    const { outcomes } = ask(tracker, getblocktxn(1, 1, 2))
    for (const count of [0, 1, 3]) {
      const message = blocktxn(1, ...Array.from({ length: count }, () => transaction))
      isBad(tracker, message, bad("blocktxn", blockHash(1), `has ${count} transactions instead of 2`))
    }
    assert.isUndefined(received(tracker, blocktxn(2, transaction)))
    assert.isUndefined(received(tracker, blocktxn(1, transaction, transaction)))
    assert.lengthOf(outcomes, 1)
  })

  it("that the caller requests twice by messages come twice", () => {
    const { transaction } = tx(1)
    const tracker = make()
    for (let time = 0; time < 2; time++) tracker.sent(getblocktxn(1, 1), 0)
    const { outcomes } = ask(tracker, getblocktxn(1, 2, 3))
    for (let time = 0; time < 2; time++) assert.isUndefined(received(tracker, blocktxn(1, transaction)))
    assert.isEmpty(outcomes)
    assert.isUndefined(received(tracker, blocktxn(1, transaction, transaction)))
    assert.lengthOf(outcomes, 1)
  })
})

describe("headers", () => {
  it("that do not follow each other answer nothing", () => {
    const first = header(1, hash(10))
    const second = header(2, Wire.blockHash(first))
    const third = header(3, Wire.blockHash(second))
    const tracker = make()
    const { outcomes } = ask(tracker, getheaders([hash(10)]))
    isBad(tracker, headers(first, third), bad("headers", undefined, "header 2 does not follow the one before"))
    isBad(tracker, headers(first, second, second), bad("headers", undefined, "header 3 does not follow the one before"))
    isBad(
      tracker,
      headers(header(1, genesisHash), second),
      bad("headers", undefined, "header 2 does not follow the one before")
    )
    // They seem to be no answer.
    assert.isUndefined(received(tracker, headers(second, first)))
    assert.isUndefined(received(tracker, headers(first, second, third)))
    assert.deepStrictEqual(outcomes, [found(headers(first, second, third))])
  })
})
