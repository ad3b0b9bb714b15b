/** Dialing over TCP: errors, several addresses of a name, timeouts, interruption. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as net from "node:net"
import { Worker } from "node:worker_threads"
import * as NodeConnection from "../src/NodeConnection.ts"
import { leavingNoHandle, freePort, problemOf } from "./support/sockets.ts"

/** A lookup that resolves every name to these addresses. */
const answering =
  (addresses: ReadonlyArray<{ readonly address: string; readonly family: number }>): net.LookupFunction =>
  (_host, _options, callback) =>
    callback(null, [...addresses])

const failingWith =
  (code: string): net.LookupFunction =>
  (_host, _options, callback) =>
    callback(Object.assign(new Error(code), { code }), [])

const neverAnswering: net.LookupFunction = () => {}

describe("connect", () => {
  it.live("fails with Refused on a port without a listener", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const error = yield* Effect.flip(NodeConnection.connect({ host: "127.0.0.1", port }))
      assert.strictEqual(problemOf(error), "Refused")
      assert.strictEqual(error.message, `connect 127.0.0.1:${port}: connection refused`)
    })
  )

  it.live("fails with the most specific error when all addresses of a name fail", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const lookup = answering([
        { address: "::1", family: 6 },
        { address: "127.0.0.1", family: 4 }
      ])
      const error = yield* Effect.flip(NodeConnection.connect({ host: "localhost", port, lookup }))
      assert.strictEqual(problemOf(error), "Refused")
      if (error.reason._tag === "DialFailed") assert.notInstanceOf(error.reason.cause, AggregateError)
    })
  )

  it.live("tries all addresses of a name", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const lookup = answering([
        { address: "::1", family: 6 },
        { address: "127.0.0.1", family: 4 }
      ])
      const connection = yield* NodeConnection.connect({ host: "localhost", port: listener.address.port, lookup })
      assert.strictEqual(connection.remoteAddress.host, "127.0.0.1")
    })
  )

  it.live("fails with HostNotFound for an unknown name", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(NodeConnection.connect({ host: "peer.invalid", port: 8333 }))
      assert.strictEqual(problemOf(error), "HostNotFound")
    })
  )

  const codes = {
    ENOTFOUND: "HostNotFound",
    EAI_AGAIN: "HostNotFound",
    ETIMEDOUT: "Timeout",
    EHOSTUNREACH: "Unreachable",
    ENETUNREACH: "Unreachable",
    EMFILE: "Other"
  }
  for (const [code, problem] of Object.entries(codes)) {
    it.live(`reports ${problem} for ${code}`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(
          NodeConnection.connect({ host: "peer.invalid", port: 8333, lookup: failingWith(code) })
        )
        assert.strictEqual(problemOf(error), problem)
      })
    )
  }

  for (const port of [-1, 65_536, 1.5, Number.NaN]) {
    it.live(`fails with BadPort for ${port}`, () =>
      leavingNoHandle(
        Effect.gen(function* () {
          assert.strictEqual(
            problemOf(yield* Effect.flip(NodeConnection.connect({ host: "127.0.0.1", port }))),
            "BadPort"
          )
          assert.strictEqual(problemOf(yield* Effect.flip(NodeConnection.listen({ port }))), "BadPort")
        })
      )
    )
  }

  it.live("fails with a typed error for an invalid local address", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(NodeConnection.connect({ host: "127.0.0.1", port: 1, localAddress: "nonsense" }))
      assert.strictEqual(problemOf(error), "Other")
    })
  )

  it.effect("fails with Timeout after connectTimeout, 5 seconds by default", () =>
    Effect.gen(function* () {
      const dial = yield* Effect.forkChild(
        Effect.flip(NodeConnection.connect({ host: "peer.invalid", port: 1, lookup: neverAnswering })),
        { startImmediately: true }
      )
      yield* TestClock.adjust(4999)
      assert.isUndefined(dial.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(dial)).message, "connect peer.invalid:1: timed out")
    })
  )

  /** A listener with a full backlog in a process that never accepts: the kernel answers no further dials. */
  const fullListener = Effect.gen(function* () {
    const source = `
      const { parentPort } = require("node:worker_threads")
      const server = require("node:net").createServer()
      server.listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => {
        parentPort.postMessage(server.address().port)
        setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0))
      })`
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(source, { eval: true })),
      (worker) => Effect.promise(() => worker.terminate())
    )
    const port = yield* Effect.callback<number>((resume) => {
      worker.once("message", (port: number) => resume(Effect.succeed(port)))
    })
    const isUnanswered = Effect.map(
      Effect.exit(NodeConnection.connect({ host: "127.0.0.1", port, connectTimeout: 200 })),
      Exit.isFailure
    )
    // One unanswered dial may only be slow.
    for (let i = 0; i < 16; i++) if ((yield* isUnanswered) && (yield* isUnanswered)) return port
    return assert.fail("the backlog is never full")
  })

  it.live("leaves no handle after a timeout", () =>
    leavingNoHandle(
      Effect.gen(function* () {
        const port = yield* fullListener
        const error = yield* Effect.flip(NodeConnection.connect({ host: "127.0.0.1", port, connectTimeout: 50 }))
        assert.strictEqual(problemOf(error), "Timeout")
      })
    )
  )

  it.live("leaves no handle after an interruption", () =>
    leavingNoHandle(
      Effect.gen(function* () {
        const port = yield* fullListener
        const dial = yield* Effect.forkChild(NodeConnection.connect({ host: "127.0.0.1", port }), {
          startImmediately: true
        })
        yield* Effect.sleep(20)
        assert.isUndefined(dial.pollUnsafe())
        yield* Fiber.interrupt(dial)
      })
    )
  )

  it.live("leaves no handle after an interruption at any time", () =>
    leavingNoHandle(
      Effect.gen(function* () {
        const listener = yield* NodeConnection.listen({ port: 0 })
        for (let i = 0; i < 30; i++) {
          const dial = yield* Effect.forkChild(
            Effect.scoped(NodeConnection.connect({ ...listener.address, closeTimeout: 0 })),
            {
              startImmediately: true
            }
          )
          for (let turn = 0; turn < i % 10; turn++)
            yield* Effect.callback<void>((resume) => {
              setImmediate(() => resume(Effect.void))
            })
          yield* Fiber.interrupt(dial)
        }
      })
    )
  )
})
