/** The dialogue with a proxy, before the connection through it is established. */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as net from "node:net"
import { ConnectionError, type DialProblem, type Endpoint } from "../../ConnectionError.ts"
import { dialProblem, unwrapAttempts } from "../dialProblem.ts"
import { startTimer } from "../../primitives/timer.ts"
import type { Restore } from "./netSocket.ts"

/** The bytes to send, and what must arrive before the dialogue goes on: a number of bytes, at least one, or a line. */
export interface Turn {
  readonly send?: Uint8Array | string
  readonly read: number | "line"
  /** Whether this read may take any time: from here on the time limit does not count. */
  readonly patient?: boolean
}

/**
 * One side of a dialogue, as a generator. It yields the bytes to send and how much it must read, gets exactly that (a
 * line without its end), and returns the agreement. It throws a `ProxyError` if the other side breaks the rules.
 */
export type Dialogue<A> = Generator<Turn, A, Uint8Array>

/** Why a dialogue failed. `cause` is the answer of the proxy, if there was one. */
export class ProxyError extends Error {
  readonly problem: DialProblem

  constructor(problem: DialProblem, message: string, cause?: unknown) {
    super(message, { cause })
    this.problem = problem
  }
}

/** The longest line, as in Core. The longest useful one, an I2P destination with its keys, has a few kilobytes. */
const maximumLine = 65_536

const lineEnd = 10

/**
 * Assembles the pieces of a stream as the dialogue requests them. Each byte is copied a few times at most, however they
 * arrive.
 */
const makeReader = () => {
  let pieces: Array<Uint8Array> = []
  let size = 0
  return {
    /** Adds bytes that arrived. When the requested bytes are complete, returns them and the rest. */
    take: (arrived: Uint8Array, wanted: Turn["read"]): readonly [Uint8Array, Uint8Array] | undefined => {
      pieces.push(arrived)
      const before = size
      size += arrived.length
      const index = wanted === "line" ? arrived.indexOf(lineEnd) : -1
      const end = wanted === "line" ? (index < 0 ? Infinity : before + index) : wanted
      if (wanted === "line" && Math.min(size, end) > maximumLine) {
        throw new ProxyError("ProxyBroken", "the proxy's answer has no end")
      }
      if (wanted === "line" ? index < 0 : size < end) return undefined
      const all = Buffer.concat(pieces)
      pieces = []
      size = 0
      return [all.subarray(0, end), all.subarray(wanted === "line" ? end + 1 : end)]
    }
  }
}

const onError = () => {}

export interface ThroughProxy<A> {
  readonly proxy: Endpoint
  /** The target as the caller named it, for errors. */
  readonly target: Endpoint
  /** The time limit of the connection to the proxy and of the dialogue. */
  readonly timeout: Duration.Input
  readonly noDelay: boolean
  readonly dialogue: () => Dialogue<A>
}

/** A socket whose dialogue has ended. It is paused, and the bytes after the last answer can still be read. */
export interface Through<A> {
  readonly socket: net.Socket
  readonly agreed: A
}

const failedAt =
  ({ proxy, target: { host, port } }: ThroughProxy<unknown>) =>
  (problem: DialProblem, detail: string, cause: unknown): ConnectionError =>
    new ConnectionError({ reason: { _tag: "DialFailed", problem, host, port, proxy, detail, cause } })

const reachProblems: Partial<Readonly<Record<DialProblem, string>>> = {
  HostNotFound: "host not found",
  Refused: "connection refused",
  Timeout: "timed out",
  Unreachable: "unreachable",
  BadPort: "not a port"
}

/** Runs the dialogue on a socket that is connecting. */
const talk = <A>(socket: net.Socket, options: ThroughProxy<A>): Effect.Effect<Through<A>, ConnectionError> =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.callback<Through<A>, ConnectionError>((resume) => {
      const failed = failedAt(options)
      const dialogue = options.dialogue()
      const reader = makeReader()
      let wanted: Turn["read"] = 1
      let isReached = false

      const settle = (): void => {
        stop()
        socket.off("connect", onConnect).off("data", onData).off("error", onBroken)
        socket.off("end", onClosed).off("close", onClosed)
      }
      const fail = (error: ConnectionError): void => {
        settle()
        socket.destroy()
        resume(Effect.fail(error))
      }
      /** Takes the next turn, unless that was the last one. Errors go to `fail`. */
      const advance = (given: Uint8Array | undefined, rest: Uint8Array): boolean => {
        const step = given === undefined ? dialogue.next() : dialogue.next(given)
        if (step.done !== true) {
          wanted = step.value.read
          if (step.value.patient === true) stop()
          if (step.value.send !== undefined) socket.write(step.value.send)
          return true
        }
        settle()
        socket.pause()
        if (rest.length > 0) socket.unshift(rest)
        resume(Effect.succeed({ socket, agreed: step.value }))
        return false
      }
      const guarded = (run: () => void): void => {
        try {
          run()
        } catch (cause) {
          if (!(cause instanceof ProxyError)) throw cause
          fail(failed(cause.problem, cause.message, cause.cause))
        }
      }
      const onConnect = (): void => {
        isReached = true
        guarded(() => advance(undefined, new Uint8Array(0)))
      }
      const onData = (chunk: Buffer): void =>
        guarded(() => {
          for (let arrived: Uint8Array = chunk; arrived.length > 0;) {
            const taken = reader.take(arrived, wanted)
            if (taken === undefined || !advance(...taken)) return
            arrived = taken[1]
          }
        })
      const onBroken = (cause: Error): void => {
        if (isReached) return fail(failed("ProxyBroken", `the proxy broke off: ${cause.message}`, cause))
        const attempt = unwrapAttempts(cause)
        const why = reachProblems[dialProblem(attempt)] ?? cause.message
        fail(failed("ProxyUnreachable", `cannot reach the proxy: ${why}`, attempt))
      }
      const onClosed = (): void => fail(failed("ProxyBroken", "the proxy closed the connection", undefined))
      const stop = startTimer(context, options.timeout, () =>
        fail(
          isReached
            ? failed("Timeout", "timed out", undefined)
            : failed("ProxyUnreachable", "cannot reach the proxy: timed out", undefined)
        )
      )
      socket.on("connect", onConnect).on("data", onData).on("error", onBroken)
      socket.on("end", onClosed).on("close", onClosed)
      return Effect.sync(() => {
        settle()
        socket.destroy()
      })
    })
  )

/**
 * Dials the proxy and runs the dialogue until the connection to the target is open. Interruption, failure and the time
 * limit destroy the socket. Run it where only `restore` can be interrupted: afterwards the caller owns the socket.
 */
export const dialThrough = <A>(
  options: ThroughProxy<A>,
  restore: Restore
): Effect.Effect<Through<A>, ConnectionError> =>
  Effect.suspend(() => {
    const { proxy } = options
    if (proxy.host === "") {
      return Effect.fail(failedAt(options)("ProxyUnreachable", "cannot reach the proxy: host not found", undefined))
    }
    const socket = new net.Socket()
    socket.on("error", onError)
    socket.setNoDelay(options.noDelay)
    return Effect.try({
      try: () => socket.connect({ host: proxy.host, port: proxy.port }),
      catch: (cause) => {
        const why = reachProblems[dialProblem(cause)] ?? String(cause)
        return failedAt(options)("ProxyUnreachable", `cannot reach the proxy: ${why}`, cause)
      }
    }).pipe(
      Effect.andThen(restore(talk(socket, options))),
      Effect.onError(() => Effect.sync(() => socket.destroy()))
    )
  })
