/** Callers without type checking: results of their handlers, and messages of a wrong type. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect } from "effect"
import { Nonce, type Peer, type Wire } from "effect-bitcoin-peer"
import { withRemote } from "./support/peers.ts"

const ping: Wire.Message = { _tag: "ping", nonce: 1n }
const getaddr: Wire.Message = { _tag: "getaddr" }

describe("a peer of a JavaScript caller", () => {
  const start = <H extends Peer.Handlers<unknown> = Peer.Handlers>(options: Peer.Options<H> = {}) =>
    withRemote({ direction: "outbound", ...options })

  it.effect("waits for the promise of an async handler before it runs the next handler", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { remote } = yield* start({
        handlers: {
          getaddr: async () => {
            log.push("begins")
            await Promise.resolve()
            await Promise.resolve()
            log.push("ends")
          },
          sendheaders: () => void log.push("next")
        }
      })
      yield* remote.send(getaddr, { _tag: "sendheaders" }, ping)
      yield* remote.receiveUntil("pong")
      assert.deepStrictEqual(log, ["begins", "ends", "next"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("waits for the promise of a handler that peer.handle has set", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { peer, remote } = yield* start()
      yield* peer.handle({ getaddr: () => Promise.resolve().then(() => log.push("handled")) })
      yield* remote.send(getaddr, ping)
      yield* remote.receiveUntil("pong")
      assert.deepStrictEqual(log, ["handled"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with HandlerFailed and the error when a handler's promise rejects", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ handlers: { getaddr: () => Promise.reject(new Error("no addresses")) } })
      yield* remote.send(getaddr)
      const reason = yield* peer.awaitShutdown
      assert(reason._tag === "HandlerFailed")
      assert.strictEqual(reason.command, "getaddr")
      assert.include(Cause.pretty(reason.cause), "no addresses")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([7, "text", null, {}, [], true])("ignores the result %j of a handler", (result) =>
    Effect.gen(function* () {
      const handlers = { getaddr: (): unknown => result } as Peer.Handlers
      const { remote } = yield* start({ handlers })
      yield* remote.send(getaddr, ping)
      assert.deepStrictEqual(yield* remote.receive, { _tag: "pong", nonce: 1n })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([
    [{ _tag: "nope" }, '"_tag" is "nope"'],
    [{ _tag: "constructor" }, '"_tag" is "constructor"'],
    [{}, '"_tag" is undefined'],
    [null, '"message" is null'],
    [undefined, '"message" is undefined'],
    ["ping", '"message" is ping'],
    [{ _tag: "ping", nonce: 5 }, '"nonce" is of type number instead of bigint'],
    [{ _tag: "pong" }, '"nonce" is missing'],
    [{ _tag: "inv", items: null }, '"items" is of type null instead of Array'],
    [{ _tag: "getdata", items: [{ type: 1, hash: "00" }] }, '"items.hash" is of type string instead of Uint8Array']
  ] as const)("refuses to send %j with NotSendable, and stays connected", ([message, problem]) =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      for (const send of [peer.send, peer.sendAndWait]) {
        const error = yield* Effect.flip(send(message as Wire.Message))
        assert.strictEqual(error.reason._tag, "NotSendable")
        assert.include(error.message, problem)
      }
      yield* remote.send(ping)
      assert.deepStrictEqual(yield* remote.receive, { _tag: "pong", nonce: 1n })
    }).pipe(Effect.provide(Nonce.layer))
  )
})
