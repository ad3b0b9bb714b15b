/** The pings of a peer: the loop that sends them, and ends a peer that is silent for too long, and those that are asked for. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Nonce } from "../Nonce.ts"
import type * as Wire from "../Wire.ts"
import * as KeepAlive from "./keepAlive.ts"
import { ProtocolVersion } from "../wire/protocolVersion.ts"
import type { Outgoing } from "../transport/messageConnection.ts"
import type { Observer } from "./telemetry.ts"
import type { Outbox } from "./sendQueue.ts"
import { type EndReason, PeerError } from "../PeerError.ts"

export interface PingingOptions {
  readonly keepAlive: KeepAlive.KeepAlive
  readonly pingTimeout: Duration.Duration
  readonly idleTimeout: Duration.Duration
  readonly protocolVersion: number
  readonly nonces: Nonce["Service"]
  readonly outbox: Outbox<PeerError>
  readonly encode: (message: Wire.Message) => Result.Result<Outgoing, PeerError>
  readonly now: () => number
  readonly observer: Observer
  /** Somebody waits for a pong from now on. */
  readonly onAsk: () => void
}

export const makePinging = ({
  encode,
  idleTimeout,
  keepAlive,
  nonces,
  now,
  observer,
  onAsk,
  outbox,
  pingTimeout,
  protocolVersion
}: PingingOptions) => {
  const answersPings = protocolVersion >= ProtocolVersion.pong
  const pings = new Set<Deferred.Deferred<Duration.Duration, PeerError>>()

  const ponged = ({ nonce }: Wire.Pong): void => {
    if (KeepAlive.ponged(keepAlive, nonce, now())) observer.ponged(keepAlive.lastRoundTrip!)
  }

  /** Queues a ping, whether there is room or not. Nobody waits for its pong. */
  const send: Effect.Effect<void> = Effect.map(
    answersPings ? nonces.unremembered : Effect.succeed(undefined),
    (nonce) => {
      const encoded = encode({ _tag: "ping", nonce })
      if (Result.isFailure(encoded)) return
      if (nonce !== undefined) KeepAlive.pinged(keepAlive, nonce, now())
      outbox.force(encoded.success)
    }
  )

  const pinger = Effect.gen(function* () {
    while (true) {
      const action = KeepAlive.next(keepAlive, now())
      switch (action._tag) {
        case "Wait":
          yield* Effect.sleep(Math.ceil(action.milliseconds))
          break
        case "Ping":
          yield* send
          break
        case "PingTimeout":
          return yield* Effect.fail<EndReason>({ _tag: "PingTimeout", after: pingTimeout })
        case "IdleTimeout":
          return yield* Effect.fail<EndReason>({ _tag: "IdleTimeout", after: idleTimeout })
      }
    }
  })

  const ask = (nonce: bigint): Effect.Effect<Duration.Duration, PeerError> => {
    const answer = Deferred.makeUnsafe<Duration.Duration, PeerError>()
    const asked = outbox.offer(() => {
      KeepAlive.pinged(keepAlive, nonce, now(), (roundTrip) =>
        Deferred.doneUnsafe(answer, Effect.succeed(Duration.millis(roundTrip)))
      )
      pings.add(answer)
      onAsk()
      return encode({ _tag: "ping", nonce })
    })
    const leave = Effect.sync(() => {
      pings.delete(answer)
      keepAlive.outstanding.delete(nonce)
    })
    return Effect.ensuring(Effect.andThen(asked, Deferred.await(answer)), leave)
  }

  const ping: Effect.Effect<Duration.Duration, PeerError> = answersPings
    ? Effect.flatMap(nonces.unremembered, ask)
    : Effect.suspend(() =>
        Effect.fail(new PeerError({ reason: { _tag: "NotSupported", what: "ping", protocolVersion } }))
      )

  return {
    pinger,
    ping,
    send,
    ponged,
    /** How many wait for a pong. */
    open: (): number => pings.size,
    /** Answers everyone who waits. */
    end: (error: PeerError): void => {
      for (const answer of pings) Deferred.doneUnsafe(answer, Effect.fail(error))
    }
  }
}
