/** Private broadcast over a dialer in memory: scripted recipients, version 2, failures, aborts and limits. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { Address, Connection, Handshake, Nonce, Wire } from "effect-bitcoin-peer"
import { type ConnectionKind } from "../../src/server/ConnectionKind.ts"
import * as Dialer from "../../src/server/Dialer.ts"
import * as PrivateBroadcast from "../../src/server/PrivateBroadcast.ts"
import { network, scripted, verack, version } from "../support/peers.ts"

const onion = (number: number): Address.Address => ({
  networkId: Address.NetworkId.torV3,
  address: new Uint8Array(32).fill(number),
  port: 8333
})
const ipv4 = (number: number): Address.Address => ({
  networkId: Address.NetworkId.ipv4,
  address: Uint8Array.of(1, 2, 3, number),
  port: 8333
})

const transaction = (id: number): Wire.Transaction => ({
  version: 2,
  inputs: [
    {
      previousOutput: { txid: new Uint8Array(32).fill(id), index: 0 },
      script: new Uint8Array(0),
      sequence: id,
      witness: [Uint8Array.of(1, 2, 3)]
    }
  ],
  outputs: [{ value: 1_000, script: Uint8Array.of(0x51) }],
  lockTime: 0
})

type Remote = ReturnType<typeof scripted>
interface Dialled {
  readonly address: Address.Address
  readonly kind: ConnectionKind
  readonly at: number
}

const refusal = (address: Address.Address, problem: Connection.DialProblem) =>
  new Connection.ConnectionError({
    reason: { _tag: "DialFailed", problem, host: Address.formatHost(address), port: address.port, cause: undefined }
  })

/** The service with a dialer in memory. Each dial takes 10 ms, then runs `answer` with the other end, or fails with its error. */
const begin = Effect.fnUntraced(function* (options: {
  readonly ways?: ReadonlyArray<Dialer.NetworkName>
  readonly services?: bigint
  readonly answer?: (
    remote: Remote,
    dial: number,
    address: Address.Address
  ) => Effect.Effect<unknown, unknown, Scope.Scope> | undefined
  readonly problem?: Connection.DialProblem
  readonly more?: Partial<PrivateBroadcast.Options>
}) {
  const dialled: Array<Dialled> = []
  const attempted: Array<Address.Address> = []
  let open = 0
  const clock = yield* Clock.Clock
  const dialer: Dialer.Dialer = {
    ways: new Set(options.ways ?? ["onion"]),
    dialsNames: false,
    dial: Effect.fnUntraced(function* (target, kind) {
      const address = target as Address.Address
      const dial = dialled.push({ address, kind, at: clock.currentTimeMillisUnsafe() })
      yield* Effect.sleep(10)
      const [ours, theirs] = yield* Connection.makePair()
      const answer = options.answer?.(scripted(theirs), dial, address)
      if (options.problem !== undefined || answer === undefined) {
        return yield* refusal(address, options.problem ?? "Refused")
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => void open++),
        () => Effect.sync(() => void open--)
      )
      yield* Effect.forkScoped(Effect.ignore(answer), { startImmediately: true })
      return ours
    })
  }
  let next = 0
  const scope = yield* Scope.fork(yield* Effect.scope)
  const service = yield* PrivateBroadcast.make({
    network,
    pick: (name) => ({
      address: name === "onion" ? onion(++next) : ipv4(++next),
      services: options.services ?? Wire.Service.network
    }),
    onAttempt: (address) => void attempted.push(address),
    ...options.more
  }).pipe(
    Effect.provideService(Dialer.Dialer, dialer),
    Effect.provideService(
      SecureRandom.SecureRandom,
      SecureRandom.make((size) => new Uint8Array(size).fill(++next))
    ),
    Scope.provide(scope)
  )
  return { service, dialled, attempted, open: () => open, stop: Scope.close(scope, Exit.void) }
})

/** A recipient that takes the transaction. Its messages are kept in `got`. */
const takes =
  (got: Array<Wire.Message["_tag"]>) =>
  (remote: Remote): Effect.Effect<never, unknown> =>
    Effect.gen(function* () {
      const receive = Effect.tap(remote.receive, ({ _tag }) => Effect.sync(() => void got.push(_tag)))
      yield* receive
      yield* remote.send(version(), { _tag: "wtxidrelay" }, { _tag: "sendaddrv2" }, verack)
      yield* receive
      const inv = (yield* receive) as Wire.Inv
      yield* remote.send({ _tag: "ping", nonce: 1n }, { _tag: "getdata", items: Array.from(inv.items) })
      yield* receive
      const ping = (yield* receive) as Wire.Ping
      yield* remote.send({ _tag: "pong", nonce: ping.nonce! })
      return yield* Effect.forever(receive)
    })

const counted = (got: ReadonlyArray<string>) => {
  const counts: Record<string, number> = {}
  for (const tag of got) counts[tag] = (counts[tag] ?? 0) + 1
  return counts
}
const hashOf = (transaction: Wire.Transaction) => Wire.txid(transaction)

describe("PrivateBroadcast", () => {
  it.effect("sends a transaction to three recipients, with five kinds of messages and no others", () =>
    Effect.gen(function* () {
      const got: Array<Wire.Message["_tag"]> = []
      const { attempted, dialled, open, service } = yield* begin({ answer: takes(got) })
      assert.strictEqual(yield* service.broadcast(transaction(1)), "Added")
      assert.strictEqual(yield* service.broadcast(transaction(1)), "AlreadyPresent")
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(counted(got), { version: 3, verack: 3, inv: 3, tx: 3, ping: 3 })
      assert.deepStrictEqual(
        dialled.map(({ kind }) => kind),
        ["private-broadcast", "private-broadcast", "private-broadcast"]
      )
      assert.deepStrictEqual(
        attempted,
        dialled.map(({ address }) => address)
      )
      assert.strictEqual(new Set(dialled.map(({ address }) => Address.format(address))).size, 3)
      assert.strictEqual(open(), 0)
      const [entry] = yield* service.entries
      assert.deepStrictEqual(entry!.txid, hashOf(transaction(1)))
      assert.strictEqual(entry!.sendsLeft, 997)
      assert.deepStrictEqual(
        entry!.sends.map(({ confirmedAt }) => confirmedAt),
        [10, 10, 10]
      )
    })
  )

  it.effect("sends it again every 2 to 3 minutes until somebody else announces it", () =>
    Effect.gen(function* () {
      const got: Array<Wire.Message["_tag"]> = []
      const { dialled, service } = yield* begin({ answer: takes(got) })
      yield* service.broadcast(transaction(1))
      const seen = yield* Effect.forkChild(service.awaitSeen(hashOf(transaction(1))), { startImmediately: true })
      yield* TestClock.adjust("30 minutes")
      // After the first three, one in each check from the second minute on.
      assert.isAtLeast(dialled.length, 3 + 9)
      assert.isAtMost(dialled.length, 3 + 15)
      assert.isUndefined(seen.pollUnsafe())

      assert.isFalse(service.seen(new Uint8Array(32)))
      assert.isTrue(service.seen(Wire.wtxid(transaction(1))))
      assert.isFalse(service.seen(Wire.wtxid(transaction(1))))
      assert.isTrue(yield* Fiber.join(seen))
      const dials = dialled.length
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(dialled.length, dials)
      assert.deepStrictEqual(yield* service.entries, [])
    })
  )

  it.effect("stops when it is aborted, also in the middle of a connection", () =>
    Effect.gen(function* () {
      const got: Array<Wire.Message["_tag"]> = []
      const { dialled, open, service } = yield* begin({
        // It waits for a minute between the announcement and the request.
        answer: (remote) =>
          Effect.gen(function* () {
            yield* remote.receive
            yield* remote.send(version(), verack)
            const inv = (yield* remote.receiveUntil("inv")) as Wire.Inv
            yield* Effect.sleep("1 minute")
            yield* remote.send({ _tag: "getdata", items: Array.from(inv.items) })
            return yield* Effect.forever(
              Effect.tap(remote.receive, ({ _tag }) => Effect.sync(() => void got.push(_tag)))
            )
          })
      })
      yield* service.broadcast(transaction(1))
      const seen = yield* Effect.forkChild(service.awaitSeen(hashOf(transaction(1))), { startImmediately: true })
      yield* TestClock.adjust(1_000)
      assert.strictEqual(open(), 3)
      const aborted = yield* service.abort(hashOf(transaction(1)))
      assert.deepStrictEqual(aborted.map(Wire.wtxid), [Wire.wtxid(transaction(1))])
      assert.deepStrictEqual(yield* service.abort(hashOf(transaction(1))), [])
      assert.isFalse(yield* Fiber.join(seen))
      assert.isFalse(yield* service.awaitSeen(hashOf(transaction(1))))
      yield* TestClock.adjust("30 minutes")
      assert.deepStrictEqual([got, open(), dialled.length], [[], 0, 3])
    })
  )

  it.effect("tries others after recipients that do not relay transactions, 100 ms after each", () =>
    Effect.gen(function* () {
      const got: Array<Wire.Message["_tag"]> = []
      const { dialled, service } = yield* begin({
        answer: (remote, dial) => {
          if (dial > 4) return takes(got)(remote)
          return Effect.gen(function* () {
            got.push((yield* remote.receive)._tag)
            yield* remote.send(version({ relay: false }))
            got.push((yield* remote.receive)._tag)
          })
        }
      })
      yield* service.broadcast(transaction(1))
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(counted(got), { version: 7, verack: 3, inv: 3, tx: 3, ping: 3 })
      assert.deepStrictEqual(
        dialled.map(({ at }) => at),
        [0, 0, 0, 110, 110, 110, 220]
      )
    })
  )

  it.effect("tries others after dials that failed, and counts the failures of addresses alone", () =>
    Effect.gen(function* () {
      const refused = yield* begin({})
      yield* refused.service.broadcast(transaction(1))
      yield* TestClock.adjust(1_000)
      assert.strictEqual(refused.dialled.length, 3 * 10)
      assert.strictEqual(refused.attempted.length, 3 * 10)

      const noProxy = yield* begin({ problem: "ProxyUnreachable" })
      yield* noProxy.service.broadcast(transaction(1))
      yield* TestClock.adjust(1_000)
      assert.strictEqual(noProxy.dialled.length, 3 * 10)
      assert.deepStrictEqual(noProxy.attempted, [])
    })
  )

  it.effect("ends a connection after 3 minutes, and makes another one", () =>
    Effect.gen(function* () {
      const { dialled, open, service } = yield* begin({ answer: () => Effect.never })
      yield* service.broadcast(transaction(1))
      yield* TestClock.adjust(10 + 179_999)
      assert.deepStrictEqual([open(), dialled.length], [3, 3])
      yield* TestClock.adjust(1 + 110)
      assert.deepStrictEqual([open(), dialled.length], [3, 6])
    })
  )

  it.effect("ends a connection whose bytes cannot be read", () =>
    Effect.gen(function* () {
      const { dialled, open, service } = yield* begin({
        answer: (remote, dial) => (dial > 3 ? Effect.never : remote.sendBytes(new Uint8Array(24).fill(7)))
      })
      yield* service.broadcast(transaction(1))
      yield* TestClock.adjust(120)
      assert.deepStrictEqual([open(), dialled.length], [3, 6])
    })
  )

  it.effect("keeps 64 connections at most", () =>
    Effect.gen(function* () {
      const { open, service } = yield* begin({ answer: () => Effect.never })
      for (let id = 1; id <= 40; id++) yield* service.broadcast(transaction(id))
      yield* TestClock.adjust(10_000)
      assert.strictEqual(open(), 64)
    })
  )

  it.effect("fails without Tor and I2P, and never dials then", () =>
    Effect.gen(function* () {
      const { dialled, service } = yield* begin({
        ways: ["ipv4", "ipv6", "cjdns"],
        answer: () => Effect.never,
        more: { ipThroughTor: true }
      })
      const error = yield* Effect.flip(service.broadcast(transaction(1)))
      assert.deepStrictEqual(error.reason, { _tag: "NoPrivateNetwork" })
      assert.strictEqual(error.message, "the transaction is not sent: there is a way neither to Tor nor to I2P")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(dialled, [])
    })
  )

  it.effect("dials IPv4 once a peer has answered at an onion address, and only where it leads through Tor", () =>
    Effect.gen(function* () {
      const networks = (dialled: ReadonlyArray<Dialled>) => new Set(dialled.map(({ address }) => address.networkId))
      const ways = ["ipv4", "onion"] as const
      const unproven = yield* begin({ ways, more: { ipThroughTor: true }, answer: () => Effect.never })
      for (let id = 1; id <= 4; id++) yield* unproven.service.broadcast(transaction(id))
      const direct = yield* begin({ ways, answer: takes([]) })
      const proven = yield* begin({ ways, more: { ipThroughTor: true }, answer: takes([]) })
      yield* direct.service.broadcast(transaction(1))
      yield* proven.service.broadcast(transaction(1))
      yield* TestClock.adjust("30 minutes")
      assert.deepStrictEqual(networks(unproven.dialled), new Set([Address.NetworkId.torV3]))
      assert.deepStrictEqual(networks(direct.dialled), new Set([Address.NetworkId.torV3]))
      assert.deepStrictEqual(networks(proven.dialled), new Set([Address.NetworkId.torV3, Address.NetworkId.ipv4]))
      assert.deepStrictEqual(
        proven.dialled.slice(0, 3).map(({ address }) => address.networkId),
        [4, 4, 4]
      )
    })
  )

  it.effect("does not take the answer of an I2P peer for a proof of Tor", () =>
    Effect.gen(function* () {
      const i2p = { networkId: Address.NetworkId.i2p, address: new Uint8Array(32), port: 0 }
      const { dialled, service } = yield* begin({
        ways: ["ipv4", "onion", "i2p"],
        answer: (remote, _, { networkId }) => (networkId === Address.NetworkId.i2p ? takes([])(remote) : Effect.never),
        more: {
          ipThroughTor: true,
          pick: (name) => ({ address: name === "i2p" ? i2p : name === "onion" ? onion(1) : ipv4(1), services: 0n })
        }
      })
      for (let id = 1; id <= 5; id++) yield* service.broadcast(transaction(id))
      yield* TestClock.adjust("30 minutes")
      assert.deepStrictEqual(
        new Set(dialled.map(({ address }) => address.networkId)),
        new Set([Address.NetworkId.torV3, Address.NetworkId.i2p])
      )
    })
  )

  it.effect("waits while the network is off, and while the address book is empty", () =>
    Effect.gen(function* () {
      let isActive = false
      let isEmpty = true
      const { dialled, service } = yield* begin({
        answer: () => Effect.never,
        more: {
          isActive: () => isActive,
          pick: () => (isEmpty ? undefined : { address: onion(1), services: 0n })
        }
      })
      yield* service.broadcast(transaction(1))
      yield* TestClock.adjust("1 minute")
      isActive = true
      yield* TestClock.adjust(5_000)
      assert.deepStrictEqual(dialled, [])
      isEmpty = false
      yield* TestClock.adjust(500)
      assert.strictEqual(dialled.length, 3)
    })
  )

  it.effect("refuses a transaction that cannot be encoded", () =>
    Effect.gen(function* () {
      const { service } = yield* begin({})
      const bad = { ...transaction(1), version: 2 ** 40 }
      const error = yield* Effect.flip(service.broadcast(bad))
      assert.strictEqual(error.reason._tag, "BadTransaction")
    })
  )

  it.effect("keeps a copy of the transaction", () =>
    Effect.gen(function* () {
      const { service } = yield* begin({ answer: () => Effect.never })
      const mine = transaction(1)
      yield* service.broadcast(mine)
      for (const { script } of mine.outputs) script[0] = 0x52
      const [entry] = yield* service.entries
      assert.deepStrictEqual(Wire.toPlain(entry!.transaction), Wire.toPlain(transaction(1)))
    })
  )

  it.effect("closes all connections at the end of its scope, and answers those who wait", () =>
    Effect.gen(function* () {
      const { dialled, open, service, stop } = yield* begin({ answer: () => Effect.never })
      yield* service.broadcast(transaction(1))
      const seen = yield* Effect.forkChild(service.awaitSeen(hashOf(transaction(1))), { startImmediately: true })
      yield* TestClock.adjust(1_000)
      assert.strictEqual(open(), 3)
      yield* stop
      assert.strictEqual(open(), 0)
      assert.isFalse(yield* Fiber.join(seen))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(dialled.length, 3)
    })
  )

  it.effect("is made by a layer", () =>
    Effect.gen(function* () {
      const service = yield* PrivateBroadcast.PrivateBroadcast
      assert.deepStrictEqual(yield* service.entries, [])
    }).pipe(
      Effect.provide(
        Layer.provide(
          PrivateBroadcast.layer({ pick: () => undefined }),
          Layer.succeed(Dialer.Dialer, {
            ways: new Set(["onion"] as const),
            dialsNames: false,
            dial: () => Effect.never
          })
        )
      )
    )
  )
})

describe("PrivateBroadcast with version 2 of the transport", () => {
  const services = Wire.Service.network | Wire.Service.p2pV2

  it.effect("encrypts where the address book says so", () =>
    Effect.gen(function* () {
      const versions: Array<Handshake.Negotiated> = []
      const { dialled, service } = yield* begin({
        services,
        answer: ({ connection }) =>
          Effect.gen(function* () {
            versions.push(
              yield* Handshake.run(connection, {
                network,
                direction: "inbound",
                transport: "v2",
                services: Wire.Service.network | Wire.Service.witness
              })
            )
          }).pipe(Effect.provide(Nonce.layer))
      })
      yield* service.broadcast(transaction(1))
      yield* TestClock.adjust(50)
      assert.strictEqual(dialled.length, 3)
      assert.deepStrictEqual(
        versions.map(({ transport, userAgent }) => [transport, userAgent]),
        Array.from({ length: 3 }, () => ["v2", "/pynode:0.0.1/"])
      )
    })
  )

  it.effect("dials the same address again without encryption where the recipient hangs up at our key", () =>
    Effect.gen(function* () {
      const got: Array<Wire.Message["_tag"]> = []
      const { attempted, dialled, open, service } = yield* begin({
        services,
        answer: (remote, dial) =>
          dial <= 3 ? Effect.andThen(remote.connection.pull, remote.connection.close) : takes(got)(remote)
      })
      yield* service.broadcast(transaction(1))
      yield* TestClock.adjust(1_000)
      const addresses = dialled.map(({ address }) => Address.format(address))
      assert.sameMembers(addresses.slice(3), addresses.slice(0, 3))
      assert.strictEqual(addresses.length, 6)
      assert.strictEqual(attempted.length, 6)
      assert.deepStrictEqual(counted(got), { version: 3, verack: 3, inv: 3, tx: 3, ping: 3 })
      assert.strictEqual(open(), 0)
    })
  )

  it.effect("gives up a recipient that answers with anything else", () =>
    Effect.gen(function* () {
      const { dialled, service } = yield* begin({
        services,
        answer: (remote, dial) => (dial > 3 ? Effect.never : remote.sendBytes(new Uint8Array(8_000).fill(0x41)))
      })
      yield* service.broadcast(transaction(1))
      yield* TestClock.adjust(2_000)
      const addresses = dialled.map(({ address }) => Address.format(address))
      assert.strictEqual(new Set(addresses).size, 6)
    })
  )
})
