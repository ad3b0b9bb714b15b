import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Scope } from "effect"
import { Socket } from "effect/socket"
import { TestClock } from "effect/testing"
import * as Connection from "../src/Connection.ts"
import { compliance, fill, patterned, pullBytes, pullToEnd } from "./support/connectionCompliance.ts"
import { makeSocketPair } from "./support/memorySocket.ts"

const fromPair = (pair: Connection.Pair) => ({ a: pair[0], b: pair[1], resetB: pair.reset() })

compliance("the in-memory pair", {
  time: "virtual",
  capacity: 1_048_576,
  make: (options) => Effect.map(Connection.makePair(options), fromPair)
})

compliance("the in-memory pair that cuts writes", {
  time: "virtual",
  capacity: 1_048_576,
  make: (options) => Effect.map(Connection.makePair({ ...options, split: [1, 700, 13] }), fromPair)
})

compliance("an Effect Socket", {
  time: "virtual",
  capacity: 4_194_304,
  make: (options) =>
    Effect.gen(function* () {
      const sockets = yield* makeSocketPair
      const a = yield* Connection.fromSocket(sockets.first, options)
      const b = yield* Connection.fromSocket(sockets.second, options)
      return { a, b, resetB: sockets.resetSecond }
    })
})
