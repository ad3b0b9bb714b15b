/** Handshake.openTransport: the messages of a connection on which no handshake runs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import { Connection, Handshake, Network, Nonce, Wire } from "effect-bitcoin-peer"
import { fork, network, scripted, version } from "./support/peers.ts"

const tags = (events: ReadonlyArray<Wire.ParserEvent>) =>
  events.map((event) => (event._tag === "Received" ? event.message._tag : event._tag))

describe("Handshake.openTransport", () => {
  it.effect("sends and answers nothing by itself", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(theirs)
      const messages = yield* Handshake.openTransport(ours, { network, transport: "v1" })
      assert.strictEqual(messages.transport, "v1")
      yield* remote.send(version(), { _tag: "ping", nonce: 1n })
      assert.deepStrictEqual(tags(yield* messages.read), ["version", "ping"])
      assert.isUndefined(messages.write([{ _tag: "getaddr" }, { _tag: "mempool" }]))
      assert.strictEqual((yield* remote.receive)._tag, "getaddr")
      assert.strictEqual((yield* remote.receive)._tag, "mempool")
    })
  )

  it.effect("writes nothing where one message cannot be encoded", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(theirs)
      const messages = yield* Handshake.openTransport(ours, { network, transport: "v1" })
      const error = messages.write([{ _tag: "verack" }, { _tag: "ping", nonce: 2n ** 64n }])
      assert.strictEqual(error?.command, "ping")
      messages.write([{ _tag: "getaddr" }])
      assert.strictEqual((yield* remote.receive)._tag, "getaddr")
    })
  )

  it.effect("fails with the end of the connection, after the messages before it", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const messages = yield* Handshake.openTransport(ours, { network, transport: "v1" })
      yield* scripted(theirs).send({ _tag: "getaddr" })
      yield* theirs.close
      assert.deepStrictEqual(tags(yield* messages.read), ["getaddr"])
      assert.strictEqual((yield* Effect.flip(messages.read)).reason._tag, "Disconnected")
      assert.strictEqual((yield* Effect.flip(messages.read)).reason._tag, "Disconnected")
    })
  )

  it.effect("fails when the stream cannot be read any more, after the messages before that", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const messages = yield* Handshake.openTransport(ours, { network, transport: "v1" })
      const good = Result.getOrThrow(Wire.encodeFrames(network.magic, [{ _tag: "getaddr" }]))
      const other = Result.getOrThrow(Wire.encodeFrames(Network.mainnet.magic, [{ _tag: "getaddr" }]))
      theirs.write(Uint8Array.of(...good, ...other))
      assert.deepStrictEqual(tags(yield* messages.read), ["getaddr"])
      const { reason } = yield* Effect.flip(messages.read)
      assert.strictEqual(reason._tag, "WrongNetwork")
      if (reason._tag === "WrongNetwork") assert.deepStrictEqual(reason.received, Network.mainnet.magic)
    })
  )

  it.effect("exchanges keys with version 2, and reads the messages that come with them", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const inbound = yield* fork(
        Handshake.run(theirs, { network, direction: "inbound", transport: "v2", requiredServices: [] })
      )
      const messages = yield* Handshake.openTransport(ours, { network, transport: "v2" })
      assert.strictEqual(messages.transport, "v2")
      assert.isUndefined(messages.write([version(), { _tag: "verack" }]))
      assert.strictEqual((yield* Fiber.join(inbound)).transport, "v2")
      assert.deepStrictEqual(tags(yield* messages.read), ["version", "wtxidrelay", "sendaddrv2", "verack"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with version 2 where the remote speaks version 1, or hangs up", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      yield* scripted(theirs).send(version())
      const wrong = yield* Effect.flip(Handshake.openTransport(ours, { network, transport: "v2" }))
      assert.deepStrictEqual(wrong.reason, { _tag: "V2NotSpoken", by: "version 1" })

      const [left, right] = yield* Connection.makePair()
      const fiber = yield* fork(Effect.flip(Handshake.openTransport(left, { network, transport: "v2" })))
      yield* right.pull
      yield* right.close
      assert.deepStrictEqual((yield* Fiber.join(fiber)).reason, { _tag: "V2NotSpoken", by: "end" })
    })
  )
})
