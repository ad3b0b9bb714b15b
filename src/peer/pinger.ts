/**
 * The pings of a peer: those of the loop that keeps the connection alive and ends a silent peer, and those that callers ask
 * for. A round trip begins when the ping is handed to the connection.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Nonce } from "../Nonce.ts"
import type * as Wire from "../Wire.ts"
import * as KeepAlive from "./keepAlive.ts"
import type { Lifecycle } from "./lifecycle.ts"
import { ProtocolVersion } from "../wire/protocolVersion.ts"
import type { Observer } from "./telemetry.ts"
import type { SendQueue } from "./sendQueue.ts"
import { type EndReason, PeerError } from "../PeerError.ts"

export interface PingerOptions {
  readonly keepAlive: KeepAlive.KeepAlive
  readonly protocolVersion: number
  readonly nonces: Nonce
  readonly sendQueue: SendQueue<PeerError>
  readonly now: () => number
  readonly lifecycle: Lifecycle
  readonly observer: Observer
  /** To be put around every wait for a pong. */
  readonly asking: <A>(wait: Effect.Effect<A, PeerError>) => Effect.Effect<A, PeerError>
}

/** Pongs that may wait to be written. A remote that leaves more unread floods us and is not read until they are written. */
const maximumPongs = 1000

type Answer = Deferred.Deferred<Duration.Duration, PeerError>

export class Pinger {
  readonly #options: PingerOptions
  /** Whether pings carry a nonce, which a pong repeats (BIP31). */
  readonly hasPongs: boolean
  /** Nonces of pings in the send queue, with the caller that waits for the pong. */
  readonly #queued = new Map<bigint, Answer | undefined>()
  #unwrittenPongs = 0
  /** Callers that wait for a pong. Made when the first one waits. */
  #waiting: Set<Answer> | undefined

  constructor(options: PingerOptions) {
    this.#options = options
    this.hasPongs = options.protocolVersion >= ProtocolVersion.pong
  }

  /** Callers that wait for a pong. */
  get open(): number {
    return this.#waiting === undefined ? 0 : this.#waiting.size
  }

  /** Sends pings at their times; fails when the remote was silent for too long. */
  get loop(): Effect.Effect<never, EndReason> {
    return Effect.suspend(() => this.#turn())
  }

  #turn(): Effect.Effect<never, EndReason> {
    const { keepAlive, lifecycle, nonces, now, sendQueue } = this.#options
    // The remote is gone. A slow handler may still work on the messages that arrived, and no deadline ends it.
    if (lifecycle.reason !== undefined) return Effect.never
    const action = KeepAlive.next(keepAlive, now())
    switch (action._tag) {
      case "Wait":
        return Effect.andThen(Effect.sleep(Math.ceil(action.milliseconds)), this.loop)
      case "Ping":
        return Effect.flatMap(this.hasPongs ? nonces.unremembered : Effect.undefined, (nonce) => {
          if (nonce !== undefined) this.#queued.set(nonce, undefined)
          sendQueue.force({ _tag: "ping", nonce })
          return this.loop
        })
      case "PingTimeout":
        return Effect.fail({ _tag: "PingTimeout", after: Duration.millis(keepAlive.timing.pingTimeout) })
      case "IdleTimeout":
        return Effect.fail({ _tag: "IdleTimeout", after: Duration.millis(keepAlive.timing.idleTimeout) })
    }
  }

  /**
   * Sends a ping after requests, whether there is room or not; does nothing if the remote does not answer pings. It does not count
   * as a round trip: its pong comes after the answers to the requests, which may be large.
   */
  get probe(): Effect.Effect<void> {
    const { nonces, sendQueue } = this.#options
    if (!this.hasPongs) return Effect.void
    return Effect.map(nonces.unremembered, (nonce) => sendQueue.force({ _tag: "ping", nonce }))
  }

  /** Sends a ping and returns the round trip. */
  get ping(): Effect.Effect<Duration.Duration, PeerError> {
    const { nonces, protocolVersion } = this.#options
    return this.hasPongs
      ? Effect.flatMap(nonces.unremembered, (nonce) => this.#ask(nonce))
      : Effect.suspend(() =>
          Effect.fail(new PeerError({ reason: { _tag: "NotSupported", what: "ping", protocolVersion } }))
        )
  }

  #ask(nonce: bigint): Effect.Effect<Duration.Duration, PeerError> {
    const { asking, keepAlive, sendQueue } = this.#options
    return Effect.acquireUseRelease(
      Effect.sync(() => {
        const answer: Answer = Deferred.makeUnsafe()
        ;(this.#waiting ??= new Set()).add(answer)
        this.#queued.set(nonce, answer)
        return answer
      }),
      (answer) => asking(Effect.andThen(sendQueue.offer({ _tag: "ping", nonce }), Deferred.await(answer))),
      (answer) =>
        Effect.sync(() => {
          this.#waiting?.delete(answer)
          this.#queued.delete(nonce)
          keepAlive.outstanding.delete(nonce)
        })
    )
  }

  /** To be called for each ping that is about to be written. */
  sent({ nonce }: Wire.Ping): void {
    if (nonce === undefined || !this.#queued.has(nonce)) return
    const answer = this.#queued.get(nonce)
    this.#queued.delete(nonce)
    KeepAlive.pinged(
      this.#options.keepAlive,
      nonce,
      this.#options.now(),
      answer && ((roundTrip) => void Deferred.doneUnsafe(answer, Effect.succeed(Duration.millis(roundTrip))))
    )
  }

  /**
   * Answers a ping. Pongs find room in the send queue at once, since two peers with full queues that ping each other would
   * wait for ever. The result is an Effect for a remote that leaves very many unread: it is waited for.
   */
  answer({ nonce }: Wire.Ping): Effect.Effect<void> | undefined {
    if (nonce === undefined || !this.hasPongs) return undefined
    const { sendQueue } = this.#options
    if (this.#unwrittenPongs >= maximumPongs) return Effect.ignore(sendQueue.offerAndWait({ _tag: "pong", nonce }))
    this.#unwrittenPongs++
    sendQueue.force({ _tag: "pong", nonce }, () => void this.#unwrittenPongs--)
    return undefined
  }

  /** To be called for each pong that was received. */
  received({ nonce }: Wire.Pong): void {
    const { keepAlive, now, observer } = this.#options
    if (KeepAlive.ponged(keepAlive, nonce, now())) observer.ponged(keepAlive.lastRoundTrip!)
  }

  /** Fails every caller that waits for a pong. */
  fail(error: () => PeerError): void {
    for (const answer of this.#waiting ?? []) Deferred.doneUnsafe(answer, Effect.fail(error()))
  }
}
