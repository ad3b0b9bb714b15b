/** Options and arguments of the wrong type: callers without TypeScript pass anything. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Connection, Handshake, Network, Nonce, Peer, Policy } from "effect-bitcoin-peer"
import { network, scripted, verack, version, withRemote } from "./support/peers.ts"

/** Options, and the start of the error's message. */
const bad: ReadonlyArray<readonly [unknown, string]> = [
  [null, '"options" is of type null instead of an object'],
  [5, '"options" is of type number instead of an object'],
  [{ network: "regtest" }, '"network" is of type string instead of a Network such as Network.regtest'],
  [{ network: null }, '"network" is of type null'],
  [{ network: {} }, '"network.magic" must be a Uint8Array of 4 bytes'],
  [{ network: { ...network, magic: "fabfb5da" } }, '"network.magic" must be a Uint8Array of 4 bytes'],
  [{ network: { ...network, genesisHash: undefined } }, '"network.genesisHash" must be a Uint8Array of 32 bytes'],
  [{ network: { ...network, name: 5 } }, '"network.name" is of type number instead of string'],
  [{ network: { ...network, port: "1" } }, '"network.port" must be a whole number from 1 to 65,535'],
  [{ policy: "core" }, '"policy" is of type string instead of a Policy such as Policy.core'],
  [{ policy: {} }, '"policy.badChecksum" is missing'],
  [{ policy: { ...Policy.core, malformed: "ignore" } }, '"policy.malformed" is "ignore" instead of "drop" or'],
  [{ policy: { ...Policy.core, sendReject: 1 } }, '"policy.sendReject" is of type number instead of boolean'],
  [{ direction: "in" }, '"direction" is "in" instead of "inbound" or "outbound"'],
  [{ transport: "V2" }, '"transport" is "V2" instead of "v1" or "v2" or "auto"'],
  [{ transport: 2 }, '"transport" is of type number instead of "v1"'],
  [{ services: 1 }, '"services" is of type number instead of bigint'],
  [{ services: -1n }, '"services" is not an unsigned 64-bit integer'],
  [{ services: 2n ** 64n }, '"services" is not an unsigned 64-bit integer'],
  [{ remoteServices: 1, transport: "auto" }, '"remoteServices" is of type number instead of bigint'],
  [{ requiredServices: 1n }, '"requiredServices" is of type bigint instead of an array'],
  [{ requiredServices: [1n, 1] }, '"requiredServices" has an element 1 that is of type number instead of bigint'],
  [{ protocolVersion: 70_016n }, '"protocolVersion" must be a whole number'],
  [{ minimumProtocolVersion: "x" }, '"minimumProtocolVersion" must be a whole number'],
  [{ userAgent: 5 }, '"userAgent" is of type number instead of string'],
  [{ userAgentComments: "abc" }, '"userAgentComments" is of type string instead of an array'],
  [{ userAgentComments: [5] }, '"userAgentComments" has an element 0 that is of type number instead of string'],
  [{ startHeight: 5 }, '"startHeight" is of type number instead of an Effect'],
  [{ relay: 1 }, '"relay" is of type number instead of boolean'],
  [{ allowSelfConnection: "yes" }, '"allowSelfConnection" is of type string instead of boolean'],
  [{ features: 5 }, '"features" is of type number instead of an array'],
  [{ features: [null] }, '"features" has an element 0 that is of type null'],
  [{ handshakeTimeout: "soon" }, '"handshakeTimeout" must be a duration'],
  [{ onVersion: 5 }, '"onVersion" is of type number instead of a function'],
  [{ trickle: {} }, '"trickle" is not a Trickle such as { _tag: "Fixed", interval: 500 }'],
  [{ trickle: 5 }, '"trickle" is of type number instead of a Trickle'],
  [{ trickle: { _tag: "Fixed", interval: "1" } }, '"trickle.interval" must be a number of milliseconds'],
  [{ trickle: { _tag: "Shared", group: "a" } }, '"trickle.turns" must come from Inventory.makeSharedTurns'],
  [{ trickle: { _tag: "Shared", turns: { next: () => 1 } } }, '"trickle.group" is missing'],
  [{ pingInterval: "often" }, '"pingInterval" must be a duration'],
  [{ maximumQueuedBytes: "5" }, '"maximumQueuedBytes" must be a whole number'],
  [{ stalls: 5 }, '"stalls" is of type number instead of boolean'],
  [{ onRead: 5 }, '"onRead" is of type number instead of a function'],
  [{ onWrite: 5 }, '"onWrite" is of type number instead of a function'],
  [{ handlers: 5 }, '"handlers" is of type number instead of an object'],
  [{ handlers: [] }, '"handlers" is of type Array instead of an object'],
  [{ handlers: { ping: 5 } }, '"handlers.ping" is of type number instead of a function'],
  [{ custom: {} }, '"custom" is of type Object instead of an array'],
  [{ custom: [5] }, '"custom" has an element that does not come from Peer.custom']
]

const withNetwork = (options: unknown): Peer.Options =>
  (typeof options === "object" && options !== null ? { network, ...options } : options) as Peer.Options

describe("options of the wrong type", () => {
  it.effect("fail with BadOptions that names the option, before anything is sent, and the connection is closed", () =>
    Effect.gen(function* () {
      for (const [options, message] of bad) {
        const [ours, theirs] = yield* Connection.makePair()
        const error = yield* Effect.flip(Peer.make(ours, withNetwork(options)))
        assert.strictEqual(error.reason._tag, "BadOptions")
        assert.include(error.message, `bad options: ${message}`)
        assert.strictEqual((yield* Effect.flip(theirs.pull)).reason._tag, "Closed")
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fail before `dial` connects", () =>
    Effect.gen(function* () {
      for (const options of [null, { network: "regtest" }, { transport: "V2" }, { handlers: 5 }]) {
        const error = yield* Effect.flip(Peer.dial(Effect.die("connected"), withNetwork(options)))
        assert.strictEqual(error.reason._tag, "BadOptions")
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fail in a handshake that runs alone", () =>
    Effect.gen(function* () {
      for (const options of [null, { network: {} }, { policy: "core" }, { services: 1 }, { requiredServices: [1] }]) {
        const [ours] = yield* Connection.makePair()
        const error = yield* Effect.flip(Handshake.run(ours, withNetwork(options)))
        assert.strictEqual(error.reason._tag, "BadOptions")
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fail when onVersion returns something else than an Effect", () =>
    Effect.gen(function* () {
      for (const onVersion of [() => undefined, () => Promise.resolve()]) {
        const [ours, theirs] = yield* Connection.makePair()
        yield* scripted(theirs).send(version(), verack)
        const error = yield* Effect.flip(Peer.make(ours, withNetwork({ onVersion })))
        assert.include(error.message, 'bad options: "onVersion" must return an Effect')
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("may be undefined, each of them", () =>
    Effect.gen(function* () {
      const names = new Set(bad.flatMap(([options]) => Object.keys(options ?? {})))
      const absent = Object.fromEntries(Array.from(names, (name) => [name, undefined]))
      const [ours, theirs] = yield* Connection.makePair()
      const making = yield* Effect.forkChild(Effect.flip(Peer.make(ours, absent as Peer.Options)))
      yield* theirs.pull
      yield* theirs.close
      assert.strictEqual((yield* Fiber.join(making)).reason._tag, "Disconnected")
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("arguments of the wrong type", () => {
  it.effect("make sendAddresses fail with NotSendable, and the peer goes on", () =>
    Effect.gen(function* () {
      for (const negotiation of [[], [{ _tag: "sendaddrv2" }]] as const) {
        const { peer } = yield* withRemote({}, {}, {}, negotiation)
        assert.strictEqual(peer.info.addrV2, negotiation.length > 0)
        for (const addresses of [
          undefined,
          null,
          5,
          "abc",
          [null],
          [{}],
          [{ networkId: 1, address: "1.2.3.4", port: 1, services: 0n, timestamp: 0 }]
        ]) {
          const error = yield* Effect.flip(peer.sendAddresses(addresses as never))
          assert.strictEqual(error.reason._tag, "NotSendable")
          assert.include(error.message, '"addresses"')
        }
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("are ignored by `handle`", () =>
    Effect.gen(function* () {
      const { peer } = yield* withRemote({ network: Network.regtest })
      for (const handlers of [undefined, null, 5]) yield* peer.handle(handlers as never)
    }).pipe(Effect.provide(Nonce.layer))
  )
})
