/** Dialing through SOCKS5 proxies and an I2P router, real servers on loopback. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as net from "node:net"
import { SocksClient } from "socks"
import type { ConnectionError, ConnectionReason, DialProblem } from "../src/Connection.ts"
import * as Network from "../src/Network.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import * as Nonce from "../src/Nonce.ts"
import * as Peer from "../src/Peer.ts"
import * as PeerServer from "../src/PeerServer.ts"
import * as Transport from "../src/Transport.ts"
import { pullBytes, quiet } from "./support/connectionCompliance.ts"
import { i2pKeys, serveSam, serveSocks5, serveTcp } from "./support/proxies.ts"

const onion = "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid.onion"

const dialFailure = (error: ConnectionError): Extract<ConnectionReason, { readonly _tag: "DialFailed" }> => {
  assert(error.reason._tag === "DialFailed")
  return error.reason
}

const through = (proxy: NodeConnection.Socks5Proxy, options?: Partial<NodeConnection.ConnectSocks5Options>) =>
  NodeConnection.connectSocks5({ host: onion, port: 8333, proxy, ...options })

/** Waits until the proxy has no client left. */
const untilAlone = ({ sockets }: { readonly sockets: ReadonlySet<net.Socket> }) =>
  Effect.gen(function* () {
    for (let i = 0; i < 2_000 && sockets.size > 0; i++) yield* Effect.sleep(5)
    assert.strictEqual(sockets.size, 0)
  })

const overSocks5 = Effect.fnUntraced(function* (options: NodeConnection.SocketOptions) {
  const listener = yield* NodeConnection.listen({ ...options, port: 0 })
  const proxy = yield* serveSocks5({ to: listener.address })
  const dialed = yield* through(proxy, options)
  const accepted = yield* listener.accept
  return { dialed, accepted, proxy }
})

describe("a dial through a SOCKS5 proxy", () => {
  it.live("reaches a node by a name that only the proxy resolves", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      yield* Effect.forkScoped(
        PeerServer.serve(listener, { peer: { network: Network.regtest } }).pipe(
          Effect.provide(Layer.fresh(Nonce.layer))
        )
      )
      const proxy = yield* serveSocks5({ to: listener.address })
      const connection = yield* through(proxy)
      const peer = yield* Peer.make(connection, { network: Network.regtest, requiredServices: [] })
      yield* peer.ping
      assert.deepStrictEqual(peer.info.remoteAddress, { host: onion, port: 8333 })
      assert.deepInclude(proxy.asked[0], { type: 3, host: onion, port: 8333 })
    }).pipe(Effect.provide(Nonce.layer))
  )

  const ways = ["v1", "v2", "auto"] as const
  for (const outbound of ways) {
    for (const inbound of ways) {
      const encrypted = outbound !== "v1" && inbound !== "v1"
      const agrees = outbound === inbound || outbound === "auto" || inbound === "auto"
      const becomes = agrees ? (encrypted ? "v2" : "v1") : "no peer"
      it.live(`with transport ${outbound} to a listener with transport ${inbound} gives ${becomes}`, () =>
        Effect.gen(function* () {
          const listener = yield* NodeConnection.listen({ port: 0 })
          yield* Effect.forkScoped(
            PeerServer.serve(listener, { peer: { network: Network.regtest, transport: inbound } }).pipe(
              Effect.provide(Layer.fresh(Nonce.layer))
            )
          )
          const proxy = yield* serveSocks5({ to: listener.address })
          const connect = through({ host: "127.0.0.1", port: proxy.port })
          const dialed = yield* Peer.dial(connect, {
            network: Network.regtest,
            requiredServices: [],
            transport: outbound
          }).pipe(
            Effect.flatMap((peer) => Effect.as(peer.ping, peer.info.transport)),
            Effect.catchTag("HandshakeError", () => Effect.succeed("no peer"))
          )
          assert.strictEqual(dialed, becomes)
          // The fallback from v2 to v1 dials through the same proxy a second time.
          assert.strictEqual(proxy.asked.length, outbound === "auto" && inbound === "v1" ? 2 : 1)
        }).pipe(Effect.provideService(Transport.V1Peers, Transport.makeV1Peers()), Effect.provide(Nonce.layer))
      )
    }
  }

  it.live("gives a connection that shows neither our address nor the proxy's", () =>
    Effect.gen(function* () {
      const { dialed } = yield* overSocks5({})
      assert.deepStrictEqual(dialed.localAddress, { host: "0.0.0.0", port: 0 })
      assert.deepStrictEqual(dialed.remoteAddress, { host: onion, port: 8333 })
    })
  )

  it.live("logs in with new random credentials for each connection, unless isolate is false", () =>
    Effect.gen(function* () {
      const proxy = yield* serveSocks5({ wantsLogin: true })
      yield* through(proxy)
      yield* through(proxy)
      yield* through({ ...proxy, isolate: false })
      const [first, second, third] = proxy.asked
      for (const asked of [first, second])
        assert.match(`${asked?.user} ${asked?.password}`, /^[0-9a-f]{32} [0-9a-f]{32}$/)
      assert.notStrictEqual(first?.user, second?.user)
      assert.deepStrictEqual(third?.methods, [0])
    })
  )

  it.live("logs in with the given user and password, and fails with ProxyAuthFailed if they are wrong", () =>
    Effect.gen(function* () {
      const login = { user: "élise", password: "p:@ss" }
      const proxy = yield* serveSocks5({ login })
      yield* through({ ...proxy, ...login })
      assert.deepInclude(proxy.asked[0], login)
      const error = yield* Effect.flip(through({ ...proxy, ...login, password: "other" }))
      assert.strictEqual(dialFailure(error).problem, "ProxyAuthFailed")
      assert.strictEqual(
        error.message,
        `connect ${onion}:8333 through 127.0.0.1:${proxy.port}: the proxy does not take this user and password`
      )
      assert.notInclude(JSON.stringify(error), login.user)
      const without = yield* Effect.flip(through({ ...proxy, isolate: false }))
      assert.strictEqual(dialFailure(without).problem, "ProxyAuthFailed")
    })
  )

  it.live("passes names and addresses to the proxy as ASCII names", () =>
    Effect.gen(function* () {
      const proxy = yield* serveSocks5()
      const hosts = ["peer.invalid", "192.0.2.1", "2001:db8::1", "bücher.invalid", "x".repeat(255)]
      for (const host of hosts) yield* through(proxy, { host })
      assert.deepStrictEqual(
        proxy.asked.map(({ host, type }) => [type, host]),
        ["peer.invalid", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.invalid", "x".repeat(255)].map((host) => [3, host])
      )
    })
  )

  it.live("delivers bytes sent right after the proxy's reply, also from a target that closes at once", () =>
    Effect.gen(function* () {
      const bounds = [
        [1, 0, 0, 0, 0, 0, 0],
        [4, ...Buffer.alloc(18, 7)],
        [3, 3, 97, 98, 99, 1, 2],
        [3, 0, 1, 2]
      ]
      for (const bound of bounds) {
        for (const byByte of [false, true]) {
          const early = Uint8Array.of(1, 2, 3)
          const proxy = yield* serveSocks5({ bound, early, byByte })
          const connection = yield* through(proxy)
          yield* Effect.sleep(5)
          assert.deepStrictEqual(yield* pullBytes(connection, 3), early)
        }
      }
      const ending = yield* serveTcp((socket) => {
        socket.once("data", () => {
          socket.write(Uint8Array.of(5, 0))
          socket.once("data", () => socket.end(Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 42)))
        })
      })
      const connection = yield* through(ending)
      yield* Effect.sleep(20)
      assert.deepStrictEqual(yield* pullBytes(connection, 1), Uint8Array.of(42))
      assert.strictEqual((yield* Effect.flip(connection.pull)).reason._tag, "Closed")
    })
  )

  const replies: ReadonlyArray<readonly [number, DialProblem, RegExp]> = [
    [0x01, "ProxyRefused", /the proxy failed to connect$/],
    [0x02, "ProxyRefused", /not allowed by the proxy's rules$/],
    [0x03, "Unreachable", /network unreachable from the proxy$/],
    [0x04, "Unreachable", /host unreachable from the proxy$/],
    [0x05, "Refused", /connection refused$/],
    [0x06, "Unreachable", /TTL expired/],
    [0x07, "ProxyRefused", /command not supported/],
    [0x08, "ProxyRefused", /does not take host names$/],
    [0x55, "ProxyRefused", /the proxy answered 0x55$/],
    [0xf0, "HostNotFound", /onion service descriptor not found$/],
    [0xf1, "Unreachable", /descriptor is invalid$/],
    [0xf2, "Unreachable", /introduction failed$/],
    [0xf3, "Unreachable", /rendezvous failed$/],
    [0xf4, "Unreachable", /wants client authorization$/],
    [0xf5, "Unreachable", /no such client authorization$/],
    [0xf6, "HostNotFound", /not an onion address$/],
    [0xf7, "Timeout", /introduction timed out$/]
  ]
  for (const [reply, problem, text] of replies) {
    it.live(`fails with ${problem} on reply 0x${reply.toString(16)}, in one line that names target and proxy`, () =>
      Effect.gen(function* () {
        const proxy = yield* serveSocks5({ reply })
        const error = yield* Effect.flip(through(proxy))
        assert.deepInclude(dialFailure(error), { problem, cause: reply, host: onion, port: 8333 })
        assert.match(error.message, text)
        assert.isTrue(error.message.startsWith(`connect ${onion}:8333 through 127.0.0.1:${proxy.port}: `))
        assert.notInclude(error.message, "\n")
        yield* untilAlone(proxy)
      })
    )
  }

  it.live("fails with ProxyUnreachable when the proxy cannot be reached", () =>
    Effect.gen(function* () {
      const { address } = yield* Effect.scoped(NodeConnection.listen({ port: 0 }))
      const error = yield* Effect.flip(through(address))
      assert.strictEqual(dialFailure(error).problem, "ProxyUnreachable")
      assert.strictEqual(
        error.message,
        `connect ${onion}:8333 through 127.0.0.1:${address.port}: cannot reach the proxy: connection refused`
      )
      for (const proxy of [
        { host: "", port: 1 },
        { host: "127.0.0.1", port: 99_999 },
        { host: "proxy.invalid", port: 1 }
      ]) {
        assert.strictEqual(dialFailure(yield* Effect.flip(through(proxy))).problem, "ProxyUnreachable")
      }
    })
  )

  it.live("sends the proxy no request with an invalid host, port or user", () =>
    Effect.gen(function* () {
      const proxy = yield* serveSocks5()
      for (const host of ["", "x".repeat(256), "a\nb", "a b"]) {
        assert.strictEqual(dialFailure(yield* Effect.flip(through(proxy, { host }))).problem, "BadHost", host)
      }
      for (const port of [0, 65_536, 1.5, Number.NaN]) {
        assert.strictEqual(dialFailure(yield* Effect.flip(through(proxy, { port }))).problem, "BadPort")
      }
      for (const user of ["", "x".repeat(256)]) {
        const error = yield* Effect.flip(through({ ...proxy, user, password: "x" }))
        assert.strictEqual(dialFailure(error).problem, "ProxyAuthFailed")
      }
      assert.deepStrictEqual(proxy.asked, [])
    })
  )

  const hostile: ReadonlyArray<readonly [string, (socket: net.Socket) => void]> = [
    ["speaks SOCKS4", (socket) => socket.write(Uint8Array.of(4, 0))],
    ["speaks HTTP", (socket) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n")],
    ["closes at once", (socket) => socket.end()],
    ["resets", (socket) => setImmediate(() => socket.resetAndDestroy())],
    ["closes in the middle of its answer", (socket) => socket.end(Uint8Array.of(5, 0, 5))],
    ["answers with an address of no type", (socket) => socket.write(Uint8Array.of(5, 0, 5, 0, 0, 9, 1, 1, 1))],
    [
      "sends bytes without end",
      (socket) => {
        const flood = () => {
          while (!socket.destroyed && socket.write(new Uint8Array(65_536).fill(5)));
        }
        socket.on("drain", flood)
        flood()
      }
    ]
  ]
  for (const [name, onSocket] of hostile) {
    it.live(`fails and leaves no socket when the proxy ${name}`, () =>
      Effect.gen(function* () {
        const server = yield* serveTcp((socket) => {
          socket.resume()
          onSocket(socket)
        })
        const error = yield* Effect.flip(through(server))
        assert.include(["ProxyBroken", "ProxyAuthFailed"], dialFailure(error).problem)
        yield* untilAlone(server)
      })
    )
  }

  const silent: ReadonlyArray<readonly [string, ReadonlyArray<number>]> = [
    ["nothing", []],
    ["half an answer", [5]],
    ["only the login method", [5, 0]],
    ["all but the last byte", [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0]]
  ]
  for (const [name, bytes] of silent) {
    it.effect(`fails with Timeout after 30 seconds by default when the proxy answers ${name}`, () =>
      Effect.gen(function* () {
        const server = yield* serveTcp((socket) => void socket.resume().write(Uint8Array.from(bytes)))
        const dial = yield* Effect.forkChild(Effect.flip(through(server)), { startImmediately: true })
        while (server.sockets.size === 0) yield* TestClock.withLive(Effect.sleep(1))
        yield* TestClock.withLive(quiet)
        yield* TestClock.adjust(29_999)
        assert.isUndefined(dial.pollUnsafe())
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(dial)
        assert.strictEqual(error.message, `connect ${onion}:8333 through 127.0.0.1:${server.port}: timed out`)
        yield* TestClock.withLive(untilAlone(server))
      })
    )

    it.live(`closes the socket when interrupted while the proxy answers ${name}`, () =>
      Effect.gen(function* () {
        const server = yield* serveTcp((socket) => void socket.resume().write(Uint8Array.from(bytes)))
        const dial = yield* Effect.forkChild(through(server), { startImmediately: true })
        while (server.sockets.size === 0) yield* Effect.sleep(1)
        yield* Fiber.interrupt(dial)
        yield* untilAlone(server)
      })
    )
  }

  it.live("leaves no socket when interrupted at any time", () =>
    Effect.gen(function* () {
      const proxy = yield* serveSocks5({ byByte: true })
      for (let i = 0; i < 60; i++) {
        const dial = yield* Effect.forkChild(Effect.scoped(through(proxy, { closeTimeout: 0 })), {
          startImmediately: true
        })
        for (let turn = 0; turn < i; turn++)
          yield* Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
        yield* Fiber.interrupt(dial)
      }
      yield* untilAlone(proxy)
    })
  )

  it.live("uses a test proxy that works with the client of the `socks` package", () =>
    Effect.gen(function* () {
      const login = { user: "me", password: "secret" }
      const proxy = yield* serveSocks5({ login })
      const { socket } = yield* Effect.promise(() =>
        SocksClient.createConnection({
          command: "connect",
          proxy: { host: proxy.host, port: proxy.port, type: 5, userId: login.user, password: login.password },
          destination: { host: "peer.invalid", port: 8333 }
        })
      )
      socket.destroy()
      assert.deepInclude(proxy.asked[0], { ...login, host: "peer.invalid", port: 8333 })
    })
  )
})

describe("connect", () => {
  for (const host of [onion, onion.toUpperCase(), `sub.${onion}`, `${onion}.`, "stats.i2p", "onion"]) {
    it.live(`never asks DNS for ${host}`, () =>
      Effect.gen(function* () {
        const lookup: net.LookupFunction = () => assert.fail("DNS was asked")
        const error = yield* Effect.flip(NodeConnection.connect({ host, port: 8333, lookup }))
        assert.strictEqual(dialFailure(error).problem, "NeedsProxy")
        assert.match(error.message, /^connect .*:8333: an \.(onion|i2p) name is reached through /)
      })
    )
  }
})

describe("an I2P session", () => {
  it.live("connects a dialing peer with one that accepts in another session", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const session = yield* NodeConnection.makeI2pSession({ sam })
      yield* Effect.forkScoped(
        PeerServer.serve(session, { peer: { network: Network.regtest } }).pipe(Effect.provide(Layer.fresh(Nonce.layer)))
      )
      while (!sam.requests.some((line) => line.startsWith("STREAM ACCEPT"))) yield* Effect.sleep(5)
      const connection = yield* NodeConnection.connectI2p({ host: session.address.host, sam })
      const peer = yield* Peer.make(connection, { network: Network.regtest, requiredServices: [] })
      yield* peer.ping
      assert.deepStrictEqual(connection.remoteAddress, session.address)
      assert.match(connection.localAddress.host, /^[a-z2-7]{52}\.b32\.i2p$/)
      assert.notDeepEqual(connection.localAddress, session.address)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.live("gives both ends each other's names, and the same private key gives the same name", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const keys = i2pKeys(1)
      const first = yield* Effect.scoped(
        Effect.map(NodeConnection.makeI2pSession({ sam }), ({ address, privateKey }) => ({ address, privateKey }))
      )
      assert.deepStrictEqual(first, { address: { host: keys.name, port: 0 }, privateKey: keys.privateKey })
      while (sam.sessions.size > 0) yield* Effect.sleep(5)
      const again = yield* NodeConnection.makeI2pSession({ sam, privateKey: first.privateKey })
      assert.deepStrictEqual(again.address, first.address)
      const other = yield* NodeConnection.makeI2pSession({ sam })
      const accepting = yield* Effect.forkChild(again.accept, { startImmediately: true })
      while (!sam.requests.some((line) => line.startsWith("STREAM ACCEPT"))) yield* Effect.sleep(5)
      const dialed = yield* other.connect(again.address.host)
      const accepted = yield* Fiber.join(accepting)
      assert.deepStrictEqual(accepted.remoteAddress, other.address)
      dialed.write(Uint8Array.of(1, 2))
      assert.deepStrictEqual(yield* pullBytes(accepted, 2), Uint8Array.of(1, 2))
    })
  )

  it.live("fails with HostNotFound, Unreachable or BadHost when a name cannot be reached", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const unknown = yield* Effect.flip(NodeConnection.connectI2p({ host: i2pKeys(9).name, sam }))
      assert.strictEqual(dialFailure(unknown).problem, "HostNotFound")
      const absent = yield* NodeConnection.makeI2pSession({ sam })
      const error = yield* Effect.flip(NodeConnection.connectI2p({ host: absent.address.host, sam }))
      assert.strictEqual(dialFailure(error).problem, "Unreachable")
      assert.strictEqual(error.message, `connect ${absent.address.host}:0 through 127.0.0.1:${sam.port}: unreachable`)
      for (const host of ["peer.invalid", onion, "a b.i2p", "x\nSTREAM.i2p", ".i2p"]) {
        assert.strictEqual(dialFailure(yield* Effect.flip(NodeConnection.connectI2p({ host, sam }))).problem, "BadHost")
      }
      // Nothing listens on port 1.
      const nowhere = { host: "127.0.0.1", port: 1 }
      const host = absent.address.host
      const none = yield* Effect.flip(NodeConnection.connectI2p({ host, sam: nowhere }))
      assert.strictEqual(
        none.message,
        `connect ${host}:0 through 127.0.0.1:1: cannot reach the proxy: connection refused`
      )
      const bad = yield* Effect.flip(NodeConnection.makeI2pSession({ sam, privateKey: "x\nQUIT" }))
      assert.strictEqual(dialFailure(bad).problem, "BadHost")
    })
  )

  it.live("fails a waiting accept with Closed when its scope closes, and leaves no socket", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const scope = yield* Scope.make()
      const session = yield* Scope.provide(NodeConnection.makeI2pSession({ sam }), scope)
      const accepting = yield* Effect.forkChild(Effect.flip(session.accept), { startImmediately: true })
      while (!sam.requests.some((line) => line.startsWith("STREAM ACCEPT"))) yield* Effect.sleep(5)
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
      assert.strictEqual((yield* Fiber.join(accepting)).reason._tag, "Closed")
      assert.strictEqual((yield* Effect.flip(session.accept)).reason._tag, "Closed")
      yield* untilAlone(sam)
    })
  )

  const broken: ReadonlyArray<readonly [string, string]> = [
    ["does not speak SAM", "220 ready\n"],
    ["sends a line without an end", "x".repeat(65_537)],
    ["sends no private key", "HELLO REPLY RESULT=OK\nSESSION STATUS RESULT=OK DESTINATION=AAAA\n"]
  ]
  for (const [name, text] of broken) {
    it.live(`fails with ProxyBroken when the router ${name}`, () =>
      Effect.gen(function* () {
        const server = yield* serveTcp((socket) => void socket.resume().write(text))
        const error = yield* Effect.flip(NodeConnection.makeI2pSession({ sam: server }))
        assert.strictEqual(dialFailure(error).problem, "ProxyBroken")
        yield* untilAlone(server)
      })
    )
  }

  const session = `SESSION STATUS RESULT=OK DESTINATION=${i2pKeys(3).privateKey}`

  it.live("reads answers one byte at a time, up to 65,536 bytes", () =>
    Effect.gen(function* () {
      const text = `HELLO REPLY RESULT=OK\n${session}\n`
      const slow = yield* serveTcp((socket) => {
        let sent = 0
        const next = () => {
          if (socket.destroyed || sent === text.length) return
          socket.write(text.slice(sent, ++sent))
          setImmediate(next)
        }
        socket.resume().once("data", next)
      })
      assert.strictEqual((yield* NodeConnection.makeI2pSession({ sam: slow })).address.host, i2pKeys(3).name)
      for (const [length, isAccepted] of [
        [65_536, true],
        [65_537, false]
      ] as const) {
        const hello = `${"HELLO REPLY RESULT=OK ".padEnd(length, "x")}\n`
        const server = yield* serveTcp((socket) => void socket.resume().write(`${hello}${session}\n`))
        const exit = yield* Effect.exit(NodeConnection.makeI2pSession({ sam: server }))
        assert.strictEqual(exit._tag === "Success", isAccepted)
      }
    })
  )

  it.effect("waits without a limit for a dialer, and 3 minutes for the router's answers", () =>
    Effect.gen(function* () {
      const sam = yield* serveSam
      const session = yield* NodeConnection.makeI2pSession({ sam })
      const accepting = yield* Effect.forkChild(session.accept, { startImmediately: true })
      while (!sam.requests.some((line) => line.startsWith("STREAM ACCEPT"))) yield* TestClock.withLive(Effect.sleep(5))
      yield* TestClock.withLive(quiet)
      yield* TestClock.adjust("1 day")
      assert.isUndefined(accepting.pollUnsafe())
      yield* NodeConnection.connectI2p({ host: session.address.host, sam })
      yield* Fiber.join(accepting)
      const silent = yield* serveTcp((socket) => void socket.resume())
      const dial = yield* Effect.forkChild(Effect.flip(NodeConnection.makeI2pSession({ sam: silent })), {
        startImmediately: true
      })
      while (silent.sockets.size === 0) yield* TestClock.withLive(Effect.sleep(5))
      yield* TestClock.withLive(quiet)
      yield* TestClock.adjust("3 minutes")
      assert.strictEqual(dialFailure(yield* Fiber.join(dial)).problem, "Timeout")
    })
  )

  it.live("removes terminal sequences of the router from error messages", () =>
    Effect.gen(function* () {
      const server = yield* serveTcp((socket) => void socket.resume().write("HELLO REPLY RESULT=\x1b[2J\x9b\n"))
      const error = yield* Effect.flip(NodeConnection.makeI2pSession({ sam: server }))
      assert.strictEqual(dialFailure(error).problem, "ProxyRefused")
      assert.match(error.message, /the I2P router answered \?\[2J\?+$/)
    })
  )
})
