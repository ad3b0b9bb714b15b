/**
 * The sessions that a server has with an I2P router: one with a kept destination, from which it accepts, and short-lived ones for
 * single dials. Making a session makes the router build tunnels for seconds, so sessions are not made without need.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { type Connection, ConnectionError } from "../../Connection.ts"
import type { I2pSession } from "../../NodeConnection.ts"

/** The shortest time in milliseconds between two attempts to make the kept session: routers have run out of tunnels (Core). */
export const remakeInterval = 30_000

/** How many unused sessions are kept (Core). */
export const maximumUnused = 10

export type MakeSession = Effect.Effect<I2pSession, ConnectionError, Scope.Scope>

/** A session that can be ended apart from the connections. */
interface Held {
  readonly session: I2pSession
  readonly scope: Scope.Closeable
}

const hold = (make: MakeSession): Effect.Effect<Held, ConnectionError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const session = yield* restore(Scope.provide(make, scope)).pipe(
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
      return { session, scope }
    })
  )

const release = ({ scope }: Held): Effect.Effect<void> => Scope.close(scope, Exit.void)

/** Whether an error is about the session or the router, and not about the target: the session is of no more use. */
const isBroken = ({ reason }: ConnectionError): boolean =>
  reason._tag !== "DialFailed" ||
  reason.problem === "ProxyRefused" ||
  reason.problem === "ProxyBroken" ||
  reason.problem === "ProxyUnreachable"

const tooSoon = (milliseconds: number): ConnectionError =>
  new ConnectionError({
    reason: {
      _tag: "DialFailed",
      problem: "ProxyBroken",
      host: "i2p",
      port: 0,
      detail: `the I2P session ended, and is made again in ${Math.ceil(milliseconds / 1000)} s at the earliest`,
      cause: undefined
    }
  })

/** The session with the kept destination: made when it is needed, and again after it broke. */
export const makeKept = Effect.fnUntraced(function* (make: MakeSession) {
  let held: Held | undefined
  let notBefore = -Infinity
  const turn = yield* Semaphore.make(1)
  yield* Effect.addFinalizer(() => Effect.suspend(() => (held === undefined ? Effect.void : release(held))))
  const get: Effect.Effect<Held, ConnectionError> = turn.withPermit(
    Effect.gen(function* () {
      if (held !== undefined) return held
      const now = yield* Clock.currentTimeMillis
      if (now < notBefore) return yield* tooSoon(notBefore - now)
      notBefore = now + remakeInterval
      held = yield* hold(make)
      return held
    })
  )
  const drop = (broken: Held): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (held !== broken) return Effect.void
      held = undefined
      return release(broken)
    })
  return {
    /** Uses the session. An error that is about the session ends it. */
    use: <A, R>(run: (session: I2pSession) => Effect.Effect<A, ConnectionError, R>) =>
      Effect.flatMap(get, (used) =>
        Effect.tapError(run(used.session), (error) => (isBroken(error) ? drop(used) : Effect.void))
      )
  }
})

/** Sessions for one connection each. Those of failed dials are used again. */
export const makeTransient = Effect.fnUntraced(function* (make: MakeSession) {
  const unused: Array<Held> = []
  let isOpen = true
  yield* Effect.addFinalizer(() => {
    isOpen = false
    return Effect.forEach(unused.splice(0), release, { discard: true })
  })
  const dial = (
    host: string,
    held: Effect.Effect<Held, ConnectionError>,
    isReusable: boolean
  ): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const used = yield* restore(held)
        const connection = yield* restore(used.session.connect(host)).pipe(
          Effect.onExit((exit) => {
            if (Exit.isSuccess(exit)) return Effect.void
            const error = Exit.findErrorOption(exit)
            const isWhole = error._tag === "None" || !isBroken(error.value)
            if (!isReusable || !isOpen || !isWhole || unused.length >= maximumUnused) return release(used)
            unused.push(used)
            return Effect.void
          })
        )
        yield* Effect.addFinalizer(() => release(used))
        return connection
      })
    )
  return {
    dial: (host: string) =>
      Effect.suspend(() => {
        const found = unused.shift()
        return dial(host, found === undefined ? hold(make) : Effect.succeed(found), true)
      }),
    /** With a session that nothing else uses, before or after. */
    dialAlone: (host: string) => dial(host, hold(make), false)
  }
})
