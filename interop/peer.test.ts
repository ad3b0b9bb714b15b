/** `Peer` with a real node: all forms of the handshake, and pings. The reference is the node's `getpeerinfo` of our peer. */
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Deferred, Duration, Effect, Fiber, Layer, Schema } from "effect"
import { Connection, Handshake, Network, Nonce, Peer, PeerServer, Policy, Wire } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { eventually, expecting } from "./InteropNode.ts"
import { nodes } from "./nodes.ts"
import * as OurPeer from "./ourPeer.ts"

const { services } = OurPeer

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const NetworkInfo = Schema.Struct({ localservices: Schema.String })

describe.each(nodes)("a peer and $name", ({ name, start }) => {
  const isCore = name === "bitcoind"
  const live = OurPeer.liveWith(start)

  describe.each(OurPeer.directions)("%s", (direction) => {
    live("complete the handshake, and each side has the other's version, services and height", (node) =>
      Effect.gen(function* () {
        yield* node.mine(3)
        const met = yield* OurPeer.meet(node, direction, {
          startHeight: Effect.succeed(7),
          features: [{ id: "example", data: Uint8Array.of(1, 2, 3) }]
        })
        const { localservices } = yield* node.rpc("getnetworkinfo").pipe(expecting(NetworkInfo))
        const { info } = met.peer
        const protocolVersion = Math.min(Handshake.defaultProtocolVersion, node.protocolVersion)
        assert.deepInclude(info, {
          direction,
          protocolVersion,
          remoteProtocolVersion: node.protocolVersion,
          services: BigInt(`0x${localservices}`),
          userAgent: node.userAgent,
          startHeight: 3,
          relay: true,
          addrV2: isCore,
          wtxidRelay: isCore,
          features: new Map(),
          network: Network.regtest,
          remoteNonce: (yield* met.receive("version")).nonce
        })
        assert.includeMembers(Wire.serviceNames(info.services), ["NETWORK", "WITNESS"])
        assert.isAtMost(Math.abs(Duration.toSeconds(info.timeOffset)), 5)

        const row = yield* OurPeer.rowOf(node, met)
        assert.deepInclude(row, {
          inbound: direction === "outbound",
          subver: Handshake.defaultUserAgent,
          version: Handshake.defaultProtocolVersion
        })
        // An inbound peer of ours accepts v2.
        const offered = direction === "inbound" ? services | Wire.Service.p2pV2 : services
        assert.strictEqual(BigInt(`0x${row.services}`), offered)
        yield* node.awaitLog(/version[ =]70017[, ] ?(height|blocks)=7\b/)

        const { sent } = yield* met.peer.stats
        assert.strictEqual(sent["feature"]?.messages, protocolVersion >= 70_017 ? 1 : undefined)
      })
    )

    live("ping each other", (node) =>
      Effect.gen(function* () {
        const met = yield* OurPeer.meet(node, direction, { pingInterval: "100 millis" })
        assert.isAbove(Duration.toMillis(yield* met.peer.ping), 0)
        yield* eventually(met.peer.stats, ({ received }) => (received["pong"]?.messages ?? 0) >= 4)
        yield* OurPeer.rowOf(node, met)
        const before = (yield* met.peer.stats).received["ping"]?.messages ?? 0
        yield* node.rpc("ping")
        yield* eventually(met.peer.stats, ({ received }) => (received["ping"]?.messages ?? 0) > before)
        yield* eventually(OurPeer.rowOf(node, met), ({ pingtime = -1 }) => pingtime >= 0)
        const { lastPing, minimumPing, received, sent } = yield* met.peer.stats
        assert.strictEqual(sent["pong"]?.messages, received["ping"]?.messages)
        assert.isTrue(Duration.isLessThanOrEqualTo(minimumPing!, lastPing!))
      })
    )

    describe.each(Policy.names)("with policy %s", (policy) => {
      live("exchange headers and blocks without a reject or a complaint", (node) =>
        Effect.gen(function* () {
          const [hash = ""] = yield* node.mine(1)
          const { peer, receive } = yield* OurPeer.meet(node, direction, { policy: Policy.fromName(policy) })
          yield* peer.send({
            _tag: "getheaders",
            protocolVersion: 70_017,
            locator: [],
            stopHash: Wire.hashFromHex(hash)
          })
          const { headers } = yield* receive("headers")
          assert.strictEqual(Wire.hashToHex(Wire.blockHash(headers.at(0)!)), hash)
          yield* peer.send({
            _tag: "getdata",
            items: [{ type: Wire.InventoryType.block, hash: Wire.hashFromHex(hash) }]
          })
          yield* receive("block")
          yield* peer.ping
          const { received, sent } = yield* peer.stats
          assert.isUndefined(received["reject"])
          assert.isUndefined(sent["reject"])
        })
      )
    })

    live("agree on our version if it is older", (node) =>
      Effect.gen(function* () {
        // bcoin logs a complaint about a peer that it dials and that does not support compact blocks.
        const older = direction === "outbound" ? [70_014, 70_001] : [70_015]
        for (const protocolVersion of isCore ? [70_016, 70_015, 70_001, 60_001] : older) {
          const met = yield* OurPeer.meet(node, direction, { protocolVersion })
          assert.deepInclude(met.peer.info, {
            protocolVersion,
            remoteProtocolVersion: node.protocolVersion,
            addrV2: protocolVersion >= 70_016,
            wtxidRelay: protocolVersion >= 70_016
          })
          assert.strictEqual((yield* OurPeer.rowOf(node, met)).version, protocolVersion)
          yield* met.peer.ping
        }
      })
    )

    live("do not connect when we refuse the node's version, its services or its user agent", (node) =>
      Effect.gen(function* () {
        const refusal = (options: Peer.Options) =>
          Effect.flip(Effect.scoped(OurPeer.meet(node, direction, options))).pipe(
            Effect.map((error) => (error._tag === "HandshakeError" ? error.reason : error))
          )
        assert.deepEqual(yield* refusal({ minimumProtocolVersion: 70_018 }), {
          _tag: "VersionTooOld",
          protocolVersion: node.protocolVersion,
          minimum: 70_018
        })
        assert.deepInclude(yield* refusal({ requiredServices: [Wire.Service.compactFilters] }), {
          _tag: "ServicesMissing",
          required: [Wire.Service.compactFilters]
        })
        assert.deepEqual(yield* refusal({ onVersion: ({ userAgent }) => Effect.fail(`no ${userAgent}`) }), {
          _tag: "Refused",
          problem: `no ${node.userAgent}`
        })
        assert.strictEqual((yield* OurPeer.meet(node, direction)).peer.info.userAgent, node.userAgent)
      })
    )

    it.live("do not connect when the node refuses our version", () =>
      Effect.gen(function* () {
        const node = yield* start()
        const protocolVersion = isCore ? 31_799 : 70_000
        const error = yield* Effect.flip(OurPeer.meet(node, direction, { protocolVersion }))
        assert.strictEqual(error._tag === "HandshakeError" && error.reason._tag, "Disconnected")
        yield* node.awaitLog(/obsolete version|does not support required protocol version/)
      }).pipe(Effect.provide(Nonce.layer))
    )
  })

  it.live("do not connect when they are on different networks", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const error = yield* Effect.flip(OurPeer.meet(node, "inbound", { network: Network.mainnet }))
      assert.strictEqual(error.message, "handshake failed: the peer is on regtest, not on mainnet")
    }).pipe(Effect.provide(Nonce.layer))
  )

  live("connect forty times at once", (node) =>
    Effect.gen(function* () {
      const met = yield* Effect.forEach(Array.from({ length: 40 }), () => OurPeer.meet(node, "outbound"), {
        concurrency: "unbounded"
      })
      yield* Effect.forEach(met, ({ peer }) => Effect.repeat(peer.ping, { times: 5 }), { concurrency: "unbounded" })
      const rows = yield* node.peers
      assert.includeMembers(
        rows.map(({ addr }) => addr),
        met.map(({ address }) => address)
      )
    })
  )

  live("connect with Handshake.run alone, and with a layer configured by the environment", (node) =>
    Effect.gen(function* () {
      const connection = yield* NodeConnection.connect({ host: node.host, port: node.port })
      const whoIsIt = yield* Handshake.run(connection, { network: Network.regtest })
      assert.strictEqual(whoIsIt.userAgent, node.userAgent)
      yield* connection.close

      const environment = { BTCPEER_NETWORK: "regtest", BTCPEER_POLICY: "core", BTCPEER_RELAY: "false" }
      const peer = Peer.layerConfig().pipe(
        Layer.provide(NodeConnection.layerConnect({ host: node.host, port: node.port })),
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment)))
      )
      const RelaysTo = Schema.Array(Schema.Struct({ addr: Schema.String, relaytxes: Schema.Boolean }))
      yield* Effect.gen(function* () {
        const { info, ping } = yield* Peer.Peer
        yield* ping
        assert.deepInclude(yield* node.rpc("getpeerinfo").pipe(expecting(RelaysTo)), {
          addr: Connection.formatEndpoint(info.localAddress),
          relaytxes: false
        })
      }).pipe(Effect.provide(peer))
    })
  )

  live("connect when the node dials a PeerServer, and again after we disconnect", (node) =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const visits: Array<string> = []
      const twice = yield* Deferred.make<void>()
      const server = yield* fork(
        PeerServer.serve(listener, {
          peer: { network: Network.regtest, services },
          onPeer: (peer) =>
            Effect.gen(function* () {
              yield* peer.ping
              if (visits.push(peer.info.userAgent) === 2) yield* Deferred.succeed(twice, undefined)
              else yield* peer.disconnect()
            })
        })
      )
      const dialling = yield* start({ only: `127.0.0.1:${listener.address.port}` })
      yield* Deferred.await(twice).pipe(Effect.timeout("30 seconds"))
      assert.deepEqual(visits, [node.userAgent, node.userAgent])
      yield* Fiber.interrupt(server)
      yield* OurPeer.assertContent(dialling)
    })
  )

  if (!isCore) return

  live("connect at a version whose pings have no nonces (BIP31)", (node) =>
    Effect.gen(function* () {
      const { peer, receive } = yield* OurPeer.meet(node, "outbound", {
        protocolVersion: 60_000,
        pingInterval: "50 millis"
      })
      assert.strictEqual((yield* receive("ping")).nonce, undefined)
      assert.strictEqual((yield* Effect.flip(peer.ping)).reason._tag, "NotSupported")
      yield* eventually(peer.stats, ({ sent }) => (sent["ping"]?.messages ?? 0) >= 3)
      const { received, sent } = yield* peer.stats
      assert.isUndefined(sent["pong"])
      assert.isUndefined(received["pong"])
    })
  )

  live(
    "connect when the node offers to reconcile transactions (BIP330)",
    (node) =>
      Effect.gen(function* () {
        const { peer, receive } = yield* OurPeer.meet(node, "inbound")
        const { version } = yield* receive("sendtxrcncl")
        assert.strictEqual(version, 1)
        yield* peer.ping
      }),
    { args: ["-txreconciliation=1"] }
  )

  describe.each(["block-relay-only", "addr-fetch", "feeler"])("when it dials as %s", (type) => {
    live("connect, and the node disconnects when that connection type is done", (node) =>
      Effect.gen(function* () {
        yield* node.mine(1)
        const address = {
          timestamp: Math.floor(Date.now() / 1000),
          services,
          networkId: 1,
          address: Uint8Array.of(8, 8, 8, 8),
          port: 8333
        }
        const { peer } = yield* OurPeer.meet(
          node,
          "inbound",
          {
            handlers: {
              getaddr: (_, peer) => peer.send({ _tag: "addrv2", addresses: [address, { ...address, port: 8334 }] })
            }
          },
          (port) => node.rpc("addconnection", `127.0.0.1:${port}`, type, false)
        )
        assert.strictEqual(peer.info.userAgent, node.userAgent)
        assert.strictEqual(peer.info.relay, type === "addr-fetch")
        if (type === "block-relay-only") yield* peer.ping
        else assert.deepEqual(yield* peer.awaitShutdown, { _tag: "RemoteClosed" })
      })
    )
  })
})
