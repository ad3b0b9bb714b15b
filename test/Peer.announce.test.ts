/** What a peer announces, when, and what it leaves out. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { network, scripted, verack, version, withRemote } from "./support/peers.ts"

const hash = (number: number): Uint8Array => {
  const bytes = new Uint8Array(32)
  new DataView(bytes.buffer).setUint32(0, number)
  return bytes
}
const tx = (number: number, feeRate?: number) => ({ type: Wire.InventoryType.tx, hash: hash(number), feeRate })
const block = (number: number) => ({ type: Wire.InventoryType.block, hash: hash(number) })
const header = (nonce: number, previousBlock: Uint8Array = hash(0)): Wire.BlockHeader => ({
  version: 4,
  previousBlock,
  merkleRoot: hash(1),
  timestamp: 1_700_000_000,
  bits: 0x207fffff,
  nonce
})
const chain = (count: number): ReadonlyArray<Wire.BlockHeader> => {
  const headers: Array<Wire.BlockHeader> = []
  for (let index = 0; index < count; index++) {
    const last = headers.at(-1)
    headers.push(header(index, last === undefined ? hash(0) : Wire.blockHash(last)))
  }
  return headers
}

const numbers = (message: Wire.Message): ReadonlyArray<number> => {
  assert(message._tag === "inv")
  return Array.from(message.items, ({ hash }) => new DataView(hash.buffer, hash.byteOffset).getUint32(0))
}

/** Everything the peer has sent until it answers this ping, without the pong. */
const untilPong = Effect.fnUntraced(function* (remote: ReturnType<typeof scripted>) {
  yield* remote.send({ _tag: "ping", nonce: 77n })
  const messages: Array<Wire.Message> = []
  while (true) {
    const message = yield* remote.receive
    if (message._tag === "pong" && message.nonce === 77n) return messages
    messages.push(message)
  }
})

const getaddr: Wire.Message = { _tag: "getaddr" }
const fixed = { _tag: "Fixed", interval: 10_000 } as const

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = (
    options: Peer.Options = {},
    version: Partial<Wire.Version> = { protocolVersion: 70_015 },
    pair: Connection.PairOptions = {}
  ) => withRemote({ direction, trickle: fixed, ...options }, version, pair)

  it.effect("announces transactions at once when the interval is 0", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ trickle: { _tag: "Fixed", interval: 0 } })
      yield* peer.announce([tx(1), tx(2)])
      assert.deepStrictEqual(numbers(yield* remote.receive), [1, 2])
      yield* peer.announce([tx(3)])
      assert.deepStrictEqual(numbers(yield* remote.receive), [3])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("announces blocks by headers to a peer that sent sendheaders between version and verack", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(theirs)
      const making = yield* Effect.forkChild(Peer.make(ours, { network, direction }), { startImmediately: true })
      yield* remote.send(version(), { _tag: "sendheaders" }, verack)
      const peer = yield* Fiber.join(making)
      yield* untilPong(remote)
      yield* peer.announceBlocks(chain(1))
      assert.strictEqual((yield* remote.receive)._tag, "headers")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("calls the handler of sendcmpct once for version 2 before verack, and not for version 1", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(theirs)
      const seen: Array<Wire.SendCmpct> = []
      const handlers = { sendcmpct: (message: Wire.SendCmpct) => void seen.push(message) }
      const making = yield* Effect.forkChild(Peer.make(ours, { network, direction, handlers }), {
        startImmediately: true
      })
      const two = { _tag: "sendcmpct", announce: true, version: 2n } as const
      yield* remote.send(version(), { ...two, announce: false }, two, { ...two, version: 1n }, getaddr, verack)
      yield* Fiber.join(making)
      yield* untilPong(remote)
      assert.deepStrictEqual(seen, [two])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("announces transactions together at the next turn, not before", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      yield* peer.announce([tx(1), tx(2)])
      yield* TestClock.adjust("9 seconds")
      yield* peer.announce([tx(3)])
      assert.deepStrictEqual(yield* untilPong(remote), [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(numbers(yield* remote.receive), [1, 2, 3])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* untilPong(remote), [])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("announces more than 1,000 in several inv messages of one turn", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ knownInventory: 5_000 })
      yield* peer.announce(Array.from({ length: 2_300 }, (_, number) => tx(number)))
      yield* TestClock.adjust("10 seconds")
      const batches = (yield* untilPong(remote)).map(numbers)
      assert.deepStrictEqual(
        batches.map(({ length }) => length),
        [1_000, 1_000, 300]
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("waits random times by default, with the mean of its direction", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* withRemote({ direction, pingInterval: "1 day" }, { protocolVersion: 70_015 })
      let waited = 0
      const turns = 400
      for (let turn = 0; turn < turns; turn++) {
        yield* peer.announce([tx(turn)])
        while ((yield* untilPong(remote)).length === 0) {
          yield* TestClock.adjust("100 millis")
          waited += 100
        }
      }
      const mean = direction === "inbound" ? 5_000 : 2_000
      assert.approximately(waited / turns, mean, mean * 0.15)
    }).pipe(Random.withSeed("trickle"), Effect.provide(Nonce.layer))
  )

  it.effect("announces a block again whose announcement was interrupted while the send queue was full", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ maximumQueuedBytes: 1 }, {}, { window: 1_000 })
      const filler: Wire.Message = { _tag: "Unknown", command: "filler", payload: new Uint8Array(10_000) }
      for (let count = 0; count < 2; count++) {
        yield* Effect.forkChild(peer.send(filler), { startImmediately: true })
        yield* Effect.yieldNow
      }
      const announcing = yield* Effect.forkChild(peer.announce([block(1)]), { startImmediately: true })
      yield* Fiber.interrupt(announcing)
      const again = yield* Effect.forkChild(peer.announce([block(1)]), { startImmediately: true })
      const inv = yield* remote.receiveUntil("inv")
      assert.deepStrictEqual(numbers(inv), [1])
      assert.deepStrictEqual(yield* Fiber.join(again), ["queued"])
      assert.deepStrictEqual(yield* peer.announce([block(1)]), ["known"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("announces each block at once, alone", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      yield* peer.announce([tx(1), block(2), block(3)])
      assert.deepStrictEqual((yield* untilPong(remote)).map(numbers), [[2], [3]])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("skips hashes that the peer announced, requested or sent", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const transaction: Wire.Transaction = {
        version: 2,
        inputs: [{ previousOutput: { txid: hash(1), index: 0 }, script: new Uint8Array(0), sequence: 0, witness: [] }],
        outputs: [{ value: 1, script: new Uint8Array(0) }],
        lockTime: 0
      }
      const mined = header(7)
      yield* remote.send(
        { _tag: "inv", items: [tx(1)] },
        { _tag: "getdata", items: [tx(2), block(3)] },
        { _tag: "tx", transaction },
        { _tag: "block", block: { header: mined, transactions: [transaction] } },
        { _tag: "headers", headers: [header(8)] },
        { _tag: "cmpctblock", header: header(10), nonce: 0n, shortIds: [], prefilled: [] },
        { _tag: "getblocktxn", blockHash: hash(11), indexes: [0] }
      )
      yield* peer.announce([
        tx(1),
        tx(2),
        block(3),
        { type: 1, hash: Wire.txid(transaction) },
        { type: 2, hash: Wire.blockHash(mined) },
        { type: 2, hash: Wire.blockHash(header(8)) },
        { type: 2, hash: Wire.blockHash(header(10)) },
        block(11),
        tx(9)
      ])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* untilPong(remote)).map(numbers), [[9]])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("skips hashes that we sent, and hashes that became known while they waited", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      yield* peer.send({ _tag: "inv", items: [tx(1)] })
      yield* untilPong(remote)
      yield* peer.announce([tx(1), tx(2), tx(3)])
      yield* remote.send({ _tag: "inv", items: [tx(2)] })
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* untilPong(remote)).map(numbers), [[3]])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("respects the feefilter; one out of range is ignored", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      yield* remote.send(
        { _tag: "feefilter", feeRate: 1_000 },
        { _tag: "feefilter", feeRate: -1 },
        { _tag: "feefilter", feeRate: 21e14 + 1 }
      )
      yield* peer.announce([tx(1, 999), tx(2, 1_000), tx(3)])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* untilPong(remote)).map(numbers), [[2, 3]])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("says what became of each announcement", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      yield* remote.send({ _tag: "feefilter", feeRate: 1_000 }, { _tag: "inv", items: [tx(1)] })
      yield* untilPong(remote)
      const wtx = { type: Wire.InventoryType.wtx, hash: hash(5) }
      assert.deepStrictEqual(
        yield* peer.announce([
          tx(1),
          tx(2, 999),
          tx(3, 1_000),
          tx(4),
          wtx,
          block(6),
          block(6),
          { type: 77, hash: hash(7) }
        ]),
        ["known", "belowFeeFilter", "queued", "queued", "notWanted", "queued", "known", "notWanted"]
      )
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* untilPong(remote)).map(numbers), [[6], [3, 4]])
      assert.deepStrictEqual(yield* peer.announce([tx(3), tx(4)]), ["known", "known"])
      assert.deepStrictEqual(yield* peer.announce([]), [])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("announces a transaction by the hash that both sides agreed on", () =>
    Effect.gen(function* () {
      for (const wtxidRelay of [false, true]) {
        const negotiation: ReadonlyArray<Wire.Message> = wtxidRelay ? [{ _tag: "wtxidrelay" }] : []
        const { peer, remote } = yield* withRemote({ direction, trickle: fixed }, {}, {}, negotiation)
        const { tx, wtx } = Wire.InventoryType
        const agreed = (number: number) => ({
          type: wtxidRelay ? wtx : tx,
          hash: hash(wtxidRelay ? number + 100 : number)
        })
        yield* remote.send({ _tag: "inv", items: [agreed(1)] })
        yield* untilPong(remote)
        const both = (number: number) => ({ txid: hash(number), wtxid: hash(number + 100) })
        assert.deepStrictEqual(yield* peer.announce([both(1), both(2)]), ["known", "queued"])
        yield* TestClock.adjust("10 seconds")
        const [inv] = yield* untilPong(remote)
        assert(inv?._tag === "inv")
        assert.deepStrictEqual(Array.from(inv.items), [agreed(2)])
        const { reason } = yield* Effect.flip(peer.announce([both(3), { ...both(4), txid: new Uint8Array(31) }]))
        assert.strictEqual(reason._tag, "NotSendable")
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(yield* untilPong(remote), [])
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("says that a transaction is not wanted by a peer that asked for no relay", () =>
    Effect.gen(function* () {
      const { peer } = yield* start({}, { protocolVersion: 70_015, relay: false })
      assert.deepStrictEqual(yield* peer.announce([{ txid: hash(1), wtxid: hash(2) }]), ["notWanted"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("announces transactions to a peer that asked for no relay once it loads or clears a filter", () =>
    Effect.gen(function* () {
      const filter = { filter: new Uint8Array(8), hashFunctions: 3, tweak: 0, flags: 0 }
      for (const [message, expected] of [
        [{ _tag: "filterload", ...filter }, [2]],
        [{ _tag: "filterclear" }, [2]],
        [{ _tag: "filteradd", data: hash(3) }, []]
      ] as const) {
        const services = Wire.Service.bloom
        const { peer, remote } = yield* start({ services }, { protocolVersion: 70_015, relay: false })
        yield* peer.announce([tx(1)])
        yield* remote.send(message)
        assert.deepStrictEqual(yield* untilPong(remote), [])
        yield* peer.announce([tx(2)])
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual((yield* untilPong(remote)).flatMap(numbers), [...expected])
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("announces no transaction to a peer that asked for no relay", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({}, { protocolVersion: 70_015, relay: false })
      yield* peer.announce([tx(1), block(2)])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* untilPong(remote)).map(numbers), [[2]])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("announces blocks by their headers where the peer asked for that, at most 8, else by the tip's hash", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const headers = chain(30)
      yield* peer.announceBlocks(headers.slice(0, 2))
      const [first] = yield* untilPong(remote)
      assert(first?._tag === "inv")
      assert.deepStrictEqual(Array.from(first.items), [{ type: 2, hash: Wire.blockHash(headers[1]!) }])
      yield* remote.send({ _tag: "sendheaders" })
      yield* peer.announceBlocks(headers.slice(2, 10))
      const [second] = yield* untilPong(remote)
      assert(second?._tag === "headers")
      assert.deepStrictEqual(Array.from(second.headers), headers.slice(2, 10))
      yield* peer.announceBlocks(headers.slice(10, 19))
      const [third] = yield* untilPong(remote)
      assert(third?._tag === "inv")
      yield* peer.announceBlocks(headers.slice(10, 19))
      yield* peer.announceBlocks([])
      assert.deepStrictEqual(yield* untilPong(remote), [])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with NotSendable for a hash that is not 32 bytes, and with Ended after the end", () =>
    Effect.gen(function* () {
      const { peer } = yield* start()
      const short = yield* Effect.flip(peer.announce([{ type: 1, hash: new Uint8Array(31) }]))
      assert.strictEqual(short.reason._tag, "NotSendable")
      yield* peer.disconnect()
      yield* peer.awaitShutdown
      assert.strictEqual((yield* Effect.flip(peer.announce([tx(1)]))).reason._tag, "Ended")
      assert.strictEqual((yield* Effect.flip(peer.announceBlocks([header(1)]))).reason._tag, "Ended")
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("a peer with whom wtxid relay is agreed", () => {
  it.effect("gets announcements by wtxid only, and learns what it sends by wtxid", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* withRemote({ trickle: fixed }, {}, {}, [{ _tag: "wtxidrelay" }])
      assert.isTrue(peer.info.wtxidRelay)
      const transaction: Wire.Transaction = {
        version: 2,
        inputs: [
          {
            previousOutput: { txid: hash(1), index: 0 },
            script: new Uint8Array(0),
            sequence: 0,
            witness: [Uint8Array.of(1)]
          }
        ],
        outputs: [{ value: 1, script: new Uint8Array(0) }],
        lockTime: 0
      }
      yield* remote.send({ _tag: "tx", transaction })
      yield* peer.announce([
        tx(1),
        { type: Wire.InventoryType.wtx, hash: Wire.wtxid(transaction) },
        { type: Wire.InventoryType.wtx, hash: hash(5) }
      ])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* untilPong(remote)).map(numbers), [[5]])
    }).pipe(Effect.provide(Nonce.layer))
  )
})
