/** The ways of Node, to real servers on loopback: TCP, a SOCKS5 proxy and an I2P router. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Option, Result, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Address from "../../src/Address.ts"
import type { ConnectionError } from "../../src/Connection.ts"
import * as NodeConnection from "../../src/NodeConnection.ts"
import type { ConnectionKind } from "../../src/server/ConnectionKind.ts"
import * as Dialer from "../../src/server/Dialer.ts"
import * as NodeDialer from "../../src/server/NodeDialer.ts"
import * as Store from "../../src/server/Store.ts"
import { i2pKeys, serveSam, serveSocks5 } from "../support/proxies.ts"

const onion = "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid.onion"
const i2pName = i2pKeys(99).name

const address = (host: string, port = 8333): Address.Address => ({
  ...Result.getOrThrow(Address.parseHost(host)),
  port
})

const dialerOf = <E, R>(layer: Layer.Layer<Dialer.Dialer, E, R>) =>
  Effect.map(Layer.build(layer), (context) => Context.get(context, Dialer.Dialer))

const failureOf = (error: ConnectionError | Dialer.Unreachable) => {
  assert(error._tag === "ConnectionError" && error.reason._tag === "DialFailed", error.message)
  return error.reason
}

const failed = (dialer: Dialer.Dialer, target: Dialer.Target, kind: ConnectionKind = "manual") =>
  Effect.map(Effect.flip(Effect.scoped(dialer.dial(target, kind))), failureOf)

const unreachable = (dialer: Dialer.Dialer, target: Dialer.Target) =>
  Effect.map(Effect.flip(Effect.scoped(dialer.dial(target, "manual"))), (error) => {
    assert(error._tag === "Unreachable", error.message)
    return error.network
  })

/** A listener on 127.0.0.1 that accepts and closes. */
const listener = Effect.tap(NodeConnection.listen({ port: 0, host: "127.0.0.1" }), ({ accept }) =>
  Effect.forkScoped(Effect.forever(Effect.scoped(accept)))
)

/** Addresses by name, in place of DNS, and the names that were looked up. */
const names = (table: Readonly<Record<string, ReadonlyArray<string>>>) => {
  const asked: Array<string> = []
  const lookup = async (host: string): Promise<ReadonlyArray<string>> => {
    asked.push(host)
    const found = table[host]
    if (found === undefined) throw Object.assign(new Error("not found"), { code: "ENOTFOUND" })
    return found
  }
  return { asked, lookup }
}

describe("directly", () => {
  it.live("dials an address, and a name by any of its addresses", () =>
    Effect.gen(function* () {
      const { port } = (yield* listener).address
      // A free port of another address of loopback refuses.
      const { asked, lookup } = names({ "node.example": ["127.0.0.2", "127.0.0.1", "127.0.0.3"] })
      const dialer = yield* dialerOf(NodeDialer.layerDirect({ names: lookup }))
      assert.deepStrictEqual([...dialer.ways], ["ipv4", "ipv6"])
      const byAddress = yield* dialer.dial(address("127.0.0.1", port), "outbound-full-relay")
      assert.deepStrictEqual(byAddress.remoteAddress, { host: "127.0.0.1", port })
      for (let i = 0; i < 5; i++) {
        const byName = yield* dialer.dial({ host: "node.example", port }, "manual")
        assert.deepStrictEqual(byName.remoteAddress, { host: "127.0.0.1", port })
      }
      assert.strictEqual(asked.length, 5)
    })
  )

  it.live("has no way to Tor, I2P and CJDNS, and looks up no name of theirs", () =>
    Effect.gen(function* () {
      const { asked, lookup } = names({})
      const dialer = yield* dialerOf(NodeDialer.layerDirect({ names: lookup }))
      assert.strictEqual(yield* unreachable(dialer, { host: onion, port: 8333 }), "onion")
      assert.strictEqual(yield* unreachable(dialer, { host: "bad.onion", port: 8333 }), "onion")
      assert.strictEqual(yield* unreachable(dialer, { host: i2pName, port: 0 }), "i2p")
      assert.strictEqual(yield* unreachable(dialer, { host: "fc00::1", port: 8333 }), "cjdns")
      assert.deepStrictEqual(asked, [])
      const withCjdns = yield* dialerOf(NodeDialer.layerDirect({ networks: ["cjdns"], names: lookup }))
      assert.deepStrictEqual([...withCjdns.ways], ["cjdns"])
    })
  )

  it.live("uses only addresses of its networks for a name", () =>
    Effect.gen(function* () {
      const { port } = (yield* listener).address
      const { lookup } = names({
        "both.example": ["::1", "fc00::1", "127.0.0.1", "nonsense"],
        "six.example": ["::1", "fc00::1"]
      })
      const dialer = yield* dialerOf(NodeDialer.layerDirect({ networks: ["ipv4"], names: lookup }))
      const connection = yield* dialer.dial({ host: "both.example", port }, "manual")
      assert.strictEqual(connection.remoteAddress.host, "127.0.0.1")
      const reason = yield* failed(dialer, { host: "six.example", port })
      assert.strictEqual(reason.problem, "HostNotFound")
      assert.strictEqual(reason.detail, "the name has no address of ipv4")
    })
  )

  it.live("says that a name is unknown, or that names are not looked up", () =>
    Effect.gen(function* () {
      const { lookup } = names({})
      const reason = yield* failed(yield* dialerOf(NodeDialer.layerDirect({ names: lookup })), {
        host: "no.example",
        port: 1
      })
      assert.strictEqual(reason.problem, "HostNotFound")
      assert.strictEqual(reason.host, "no.example")
      const silent = yield* dialerOf(NodeDialer.layerDirect({ names: false }))
      assert.isFalse(silent.dialsNames)
      assert.strictEqual(yield* unreachable(silent, { host: "no.example", port: 1 }), "name")
    })
  )

  it.effect("gives up a lookup after 5 s", () =>
    Effect.gen(function* () {
      const dialer = yield* dialerOf(NodeDialer.layerDirect({ names: () => new Promise(() => {}) }))
      const fiber = yield* Effect.forkChild(failed(dialer, { host: "slow.example", port: 1 }), {
        startImmediately: true
      })
      yield* TestClock.adjust(4_999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(fiber)).problem, "Timeout")
    })
  )

  it.live("never broadcasts in private", () =>
    Effect.gen(function* () {
      const { port } = (yield* listener).address
      const { asked, lookup } = names({ "node.example": ["127.0.0.1"] })
      const dialer = yield* dialerOf(NodeDialer.layerDirect({ names: lookup }))
      for (const host of ["127.0.0.1", "node.example"]) {
        assert.strictEqual((yield* failed(dialer, { host, port }, "private-broadcast")).problem, "NeedsProxy")
      }
      assert.deepStrictEqual(asked, [])
    })
  )
})

describe("through a SOCKS5 proxy", () => {
  it.live("gives names and addresses to the proxy, with another login for each connection", () =>
    Effect.gen(function* () {
      const to = (yield* listener).address
      const proxy = yield* serveSocks5({ to, wantsLogin: true })
      const dialer = yield* dialerOf(NodeDialer.layerSocks({ proxy }))
      assert.deepStrictEqual([...dialer.ways], ["ipv4", "ipv6", "onion"])
      yield* dialer.dial({ host: "seed.example", port: 8333 }, "addr-fetch")
      yield* dialer.dial(address("1.2.3.4"), "outbound-full-relay")
      yield* dialer.dial(address("2001:db9::1"), "outbound-full-relay")
      yield* dialer.dial(address(onion), "outbound-full-relay")
      assert.deepStrictEqual(
        proxy.asked.map(({ host, type }) => `${type} ${host}`),
        ["3 seed.example", "3 1.2.3.4", "3 2001:db9::1", `3 ${onion}`]
      )
      assert.strictEqual(new Set(proxy.asked.map(({ user, password }) => `${user}:${password}`)).size, 4)
      assert.strictEqual(yield* unreachable(dialer, address("fc00::1")), "cjdns")
      assert.strictEqual(yield* unreachable(dialer, { host: i2pName, port: 0 }), "i2p")
      assert.strictEqual(yield* unreachable(dialer, { host: "bad.onion", port: 1 }), "onion")
      assert.strictEqual(proxy.asked.length, 4)
    })
  )

  it.live("has a login of its own for each private broadcast, also without isolation", () =>
    Effect.gen(function* () {
      const to = (yield* listener).address
      const proxy = yield* serveSocks5({ to, wantsLogin: true })
      const dialer = yield* dialerOf(NodeDialer.layerSocks({ proxy: { ...proxy, isolate: false } }))
      yield* dialer.dial(address("1.2.3.4"), "manual")
      yield* dialer.dial(address("1.2.3.4"), "private-broadcast")
      yield* dialer.dial(address("1.2.3.4"), "private-broadcast")
      const [manual, first, second] = proxy.asked
      assert.isUndefined(manual?.user)
      assert.isDefined(first?.user)
      assert.isDefined(second?.user)
      assert.notStrictEqual(first?.user, second?.user)
    })
  )

  it.live("fails when the proxy is not there, and dials nothing else", () =>
    Effect.gen(function* () {
      const { address: target, port } = yield* Effect.map(listener, ({ address }) => ({ address, port: address.port }))
      const dialer = yield* dialerOf(
        NodeDialer.layerSocks({ proxy: { host: "127.0.0.2", port }, networks: ["ipv4", "ipv6"] })
      )
      assert.strictEqual((yield* failed(dialer, address(target.host, port))).problem, "ProxyUnreachable")
    })
  )

  it.live("to onion services only, gives the proxy nothing else", () =>
    Effect.gen(function* () {
      const to = (yield* listener).address
      const proxy = yield* serveSocks5({ to })
      const dialer = yield* dialerOf(NodeDialer.layerOnion({ proxy }))
      assert.deepStrictEqual([...dialer.ways], ["onion"])
      assert.isFalse(dialer.dialsNames)
      yield* dialer.dial(address(onion), "outbound-full-relay")
      yield* dialer.dial({ host: onion, port: 8333 }, "manual")
      const others = ["1.2.3.4", "::1", "fc00::1", i2pName, "seed.example", "bad.onion", "localhost"]
      const networks = yield* Effect.forEach(others, (host) => unreachable(dialer, { host, port: 8333 }))
      assert.deepStrictEqual(networks, ["ipv4", "ipv6", "cjdns", "i2p", "name", "onion", "name"])
      assert.strictEqual(proxy.asked.length, 2)
    })
  )
})

/** Sessions that the router made. */
const created = ({ requests }: { readonly requests: ReadonlyArray<string> }) =>
  requests.filter((line) => line.startsWith("SESSION CREATE"))

/** Waits for something that the other side of a socket sees. */
const until = (isTrue: () => boolean) =>
  Effect.gen(function* () {
    for (let i = 0; i < 400 && !isTrue(); i++) {
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
    }
    assert.isTrue(isTrue())
  })

type Sam = Effect.Success<typeof serveSam>

/** Waits until a destination accepts, as the router takes one such request at a time. */
const accepting = (sam: Sam, host: string) =>
  until(() => [...sam.sessions.values()].some(({ keys, waiting }) => keys.name === host && waiting.length > 0))

/** A destination in the router that accepts and closes. */
const destination = Effect.fnUntraced(function* (sam: Sam) {
  const session = yield* NodeConnection.makeI2pSession({ sam })
  yield* Effect.forkScoped(Effect.forever(Effect.scoped(session.accept)))
  yield* accepting(sam, session.address.host)
  return session.address.host
})

const i2p = (options: NodeDialer.I2pOptions, store = Store.makeMemory()) =>
  Effect.map(
    Layer.build(Layer.provide(NodeDialer.layerI2p(options), Layer.succeed(Store.Store, store))),
    (context) => ({ dialer: Context.get(context, Dialer.Dialer), i2p: Context.get(context, NodeDialer.I2p), store })
  )

describe("through an I2P router", () => {
  it.live("dials from a new destination each time, which ends with the connection", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const host = yield* destination(sam)
      const { dialer } = yield* i2p({ sam })
      assert.deepStrictEqual([...dialer.ways], ["i2p"])
      assert.strictEqual(created(sam).length, 1)
      const scope = yield* Scope.make()
      const one = yield* Scope.provide(dialer.dial({ host, port: 0 }, "manual"), scope)
      yield* accepting(sam, host)
      const other = yield* Scope.provide(dialer.dial(address(host, 0), "manual"), scope)
      assert.notStrictEqual(one.localAddress.host, other.localAddress.host)
      assert.strictEqual(sam.sessions.size, 3)
      yield* Scope.close(scope, Exit.void)
      yield* until(() => sam.sessions.size === 1)
      assert.strictEqual(yield* unreachable(dialer, address("1.2.3.4")), "ipv4")
      assert.strictEqual(yield* unreachable(dialer, { host: "stats.i2p", port: 0 }), "i2p")
    })
  )

  it.live("refuses a port, which I2P does not have", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const { dialer } = yield* i2p({ sam })
      assert.strictEqual((yield* failed(dialer, { host: i2pName, port: 8333 })).problem, "BadPort")
      assert.deepStrictEqual(sam.requests, [])
    })
  )

  it.live("uses the sessions of failed dials again, and keeps ten of them at most", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const { dialer } = yield* i2p({ sam })
      for (let i = 0; i < 5; i++) {
        assert.strictEqual((yield* failed(dialer, { host: i2pName, port: 0 })).problem, "HostNotFound")
      }
      assert.strictEqual(created(sam).length, 1)
      yield* Effect.forEach(Array(12).keys(), () => failed(dialer, { host: i2pName, port: 0 }), {
        concurrency: "unbounded"
      })
      assert.strictEqual(created(sam).length, 12)
      yield* until(() => sam.sessions.size === 10)
      const host = yield* destination(sam)
      const sessions = created(sam).length
      yield* dialer.dial({ host, port: 0 }, "manual")
      assert.strictEqual(created(sam).length, sessions)
    })
  )

  it.live("uses a session for a private broadcast alone", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const { dialer } = yield* i2p({ sam, i2pDials: "persistent" })
      const target = { host: i2pName, port: 0 }
      yield* failed(dialer, target)
      yield* failed(dialer, target, "private-broadcast")
      yield* failed(dialer, target, "private-broadcast")
      assert.strictEqual(created(sam).length, 3)
      yield* until(() => sam.sessions.size === 1)
    })
  )

  it.live("ends all sessions with the layer", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { dialer, i2p: own } = yield* i2p({ sam })
          yield* failed(dialer, { host: i2pName, port: 0 })
          yield* own.address
          assert.strictEqual(sam.sessions.size, 2)
        })
      )
      yield* until(() => sam.sessions.size === 0)
    })
  )

  it.live("dials and accepts at one destination, which is the same after a restart", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const remote = yield* destination(sam)
      const { dialer, i2p: own, store } = yield* i2p({ sam, i2pDials: "persistent" })
      const one = yield* dialer.dial({ host: remote, port: 0 }, "manual")
      yield* accepting(sam, remote)
      const other = yield* dialer.dial({ host: remote, port: 0 }, "manual")
      const { host } = one.localAddress
      assert.strictEqual(other.localAddress.host, host)
      assert.strictEqual(created(sam).length, 2)
      assert.strictEqual(Address.format(yield* own.address), host)

      const accepted = yield* Effect.forkChild(own.accept, { startImmediately: true })
      const guest = yield* i2p({ sam })
      yield* accepting(sam, host)
      yield* guest.dialer.dial({ host, port: 0 }, "manual")
      assert.strictEqual((yield* Fiber.join(accepted)).localAddress.host, host)

      // The bytes of the key, as Bitcoin Core keeps them.
      const kept = Option.getOrThrow(yield* store.load("i2p_private_key"))
      assert.strictEqual(kept.length, 391 + 96)
      const again = yield* i2p({ sam }, store)
      assert.strictEqual(Address.format(yield* again.i2p.address), host)
      assert.include(created(sam).at(-1), "inbound.quantity=3")
    })
  )

  it.live("puts aside a key that cannot be read, and makes a new one", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const store = Store.makeMemory()
      yield* store.save("i2p_private_key", Uint8Array.of(1, 2, 3))
      const { i2p: own } = yield* i2p({ sam }, store)
      yield* own.address
      assert.strictEqual(Option.getOrThrow(yield* store.load("i2p_private_key")).length, 391 + 96)
    })
  )

  it.effect("makes a session that broke again, at most once in 30 s", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const { dialer, i2p: own } = yield* i2p({ sam, i2pDials: "persistent" })
      const before = yield* own.address
      for (const socket of sam.sockets) socket.destroy()
      yield* until(() => sam.sessions.size === 0)
      const target = { host: yield* destination(sam), port: 0 }
      assert.strictEqual((yield* failed(dialer, target)).problem, "ProxyRefused")
      for (const milliseconds of [0, 29_999]) {
        yield* TestClock.adjust(milliseconds)
        const reason = yield* failed(dialer, target)
        assert.match(reason.detail ?? "", /^the I2P session ended, and is made again in \d+ s at the earliest$/)
      }
      assert.strictEqual(created(sam).length, 2)
      yield* TestClock.adjust(1)
      yield* dialer.dial(target, "manual")
      assert.strictEqual(created(sam).length, 3)
      assert.deepStrictEqual(yield* own.address, before)
    })
  )

  it.effect("accepts again after the router failed, with pauses that grow", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const { i2p: own } = yield* i2p({ sam })
      const { address: host } = yield* own.address
      const accepted = yield* Effect.forkScoped(own.accept, { startImmediately: true })
      yield* until(() => sam.requests.some((line) => line.startsWith("STREAM ACCEPT")))
      for (const socket of sam.sockets) socket.destroy()
      yield* until(() => sam.sessions.size === 0)
      // Tries after 1, 3, 6, 10, 15, 21 and 28 s are too soon for a new session. Our side may see the end of the socket a little later.
      let seconds = 0
      for (; created(sam).length < 2 && seconds < 60; seconds++) {
        yield* TestClock.adjust("1 second")
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
      }
      assert.isAtLeast(seconds, 36)
      assert.isBelow(seconds, 45)
      const name = Address.formatHost({ networkId: Address.NetworkId.i2p, address: host })
      yield* accepting(sam, name)
      const guest = yield* i2p({ sam })
      yield* guest.dialer.dial({ host: name, port: 0 }, "manual")
      assert.strictEqual((yield* Fiber.join(accepted)).localAddress.host, name)
    })
  )
})
