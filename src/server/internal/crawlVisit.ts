/** One visit of a crawl: dial, handshake, `getaddr`, and the addresses that come, until an answer or a time limit. */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type Address, fromBytes } from "../../Address.ts"
import { ConnectionError } from "../../ConnectionError.ts"
import type { HandshakeError } from "../../HandshakeError.ts"
import type { Network } from "../../Network.ts"
import type { Nonce } from "../../Nonce.ts"
import * as Peer from "../../Peer.ts"
import type { Transport } from "../../Transport.ts"
import type { Addr, AddressV2, AddrV2 } from "../../Wire.ts"
import { Dialer, formatTarget, type Unreachable } from "../Dialer.ts"
import { addressKey } from "./keys.ts"
import { type NetworkName, wayOf } from "./networkNames.ts"

/**
 * The durations of the parts of a visit. A part that was not reached is absent.
 *
 * @category models
 * @since 0.1.0
 */
export interface VisitTimings {
  /** The connection, without the wait for the dial rate. With two connections (`transport` "auto"), the last one. */
  readonly connect?: Duration.Duration
  /** From the connection to the end of the handshake. */
  readonly handshake?: Duration.Duration
  /** From `getaddr` to its answer. */
  readonly answer?: Duration.Duration
  /** The whole visit. */
  readonly total: Duration.Duration
}

/**
 * A visit with a handshake.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reached {
  readonly _tag: "Reached"
  readonly address: Address
  /** The start, in milliseconds since 1970. */
  readonly at: number
  /** The negotiated features, and the version message of the node. */
  readonly info: Peer.Info
  /** The addresses that the node sent, each once, at most `addressesPerVisit`. The node's own announcement can be among them. */
  readonly learnt: ReadonlyArray<AddressV2>
  /**
   * Why the visit ended: `Answered` by a message with more than one address, `TimedOut` without one, or `Ended` by the node, which
   * `end` describes.
   */
  readonly answer: "Answered" | "TimedOut" | "Ended"
  readonly end: Peer.EndReason | undefined
  readonly timings: VisitTimings
}

/**
 * A visit without a handshake.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failed {
  readonly _tag: "Failed"
  readonly address: Address
  /** The start, in milliseconds since 1970. */
  readonly at: number
  /** A `DialProblem` such as "Refused", "Unreachable", or the tag of a handshake's reason such as "WrongNetwork". */
  readonly problem: string
  readonly error: ConnectionError | HandshakeError | Unreachable
  readonly timings: VisitTimings
}

/**
 * A visit of an address.
 *
 * @category models
 * @since 0.1.0
 */
export type Visit = Reached | Failed

/** The time limits of a visit, in milliseconds. */
export interface Limits {
  readonly connect: number
  readonly handshake: number
  readonly answer: number
}

/** The settings of visits: options with their defaults. */
export interface VisitSettings {
  readonly network: Network
  readonly userAgent: string
  readonly userAgentComments: ReadonlyArray<string>
  readonly transport: Transport
  readonly limits: { readonly [Network in NetworkName]: Limits }
  readonly addressesPerVisit: number
}

/** The part of the peer's options that does not depend on the address. */
export const peerOptions = (settings: VisitSettings): Peer.Options => ({
  network: settings.network,
  userAgent: settings.userAgent,
  userAgentComments: settings.userAgentComments,
  transport: settings.transport,
  services: 0n,
  relay: false,
  requiredServices: []
})

const problemOf = (error: Failed["error"]): string =>
  error._tag === "Unreachable"
    ? "Unreachable"
    : error.reason._tag === "DialFailed"
      ? error.reason.problem
      : error.reason._tag

const timedOut = (address: Address, limit: number): ConnectionError => {
  const [, host = "", port = ""] = /^(.*):(\d+)$/.exec(formatTarget(address)) ?? ["", formatTarget(address), "0"]
  return new ConnectionError({
    reason: {
      _tag: "DialFailed",
      problem: "Timeout",
      host,
      port: Number(port),
      cause: `no connection within ${limit} ms`
    }
  })
}

/** The addresses of one node, each once, with a bound. Their bytes are copied: those of messages share a buffer with others. */
class Collector {
  readonly addresses: Array<AddressV2> = []
  private readonly keys = new Set<string>()
  private readonly maximum: number

  constructor(maximum: number) {
    this.maximum = maximum
  }

  get isFull(): boolean {
    return this.addresses.length >= this.maximum
  }

  add({ address, networkId, port, services, timestamp }: AddressV2): void {
    if (this.isFull) return
    const key = addressKey({ networkId, address, port })
    if (this.keys.has(key)) return
    this.keys.add(key)
    this.addresses.push({ timestamp, services, networkId, address: address.slice(), port })
  }

  addAll(message: Addr | AddrV2): void {
    if (message._tag === "addrv2") {
      for (const address of message.addresses) this.add(address)
      return
    }
    for (const { address, port, services, timestamp } of message.addresses) {
      const host = fromBytes(address)
      if (host !== undefined) this.add({ ...host, port, services, timestamp })
    }
  }
}

const since = (from: number | undefined, to: number | undefined): Duration.Duration | undefined =>
  from === undefined || to === undefined ? undefined : Duration.millis(to - from)

/**
 * Visits an address. Never fails: a failed visit is a result. `services` are those that other nodes sent, or 0n. `onSecondDial` is called
 * before the second connection, with v1, to a node that does not support v2.
 */
export const visit = Effect.fnUntraced(function* (
  address: Address,
  services: bigint,
  settings: VisitSettings,
  onSecondDial: () => void = () => {}
): Effect.fn.Return<Visit, never, Dialer | Nonce> {
  const dialer = yield* Dialer
  const clock = yield* Clock.Clock
  const now = (): number => clock.currentTimeMillisUnsafe()
  const limits = settings.limits[wayOf(address)]
  const at = now()
  let dialledAt = at
  let connectedAt: number | undefined
  let readyAt: number | undefined
  let answeredAt: number | undefined
  const timings = (): VisitTimings => {
    const connect = since(dialledAt, connectedAt)
    const handshake = since(connectedAt, readyAt)
    const answer = since(readyAt, answeredAt)
    return {
      ...(connect === undefined ? {} : { connect }),
      ...(handshake === undefined ? {} : { handshake }),
      ...(answer === undefined ? {} : { answer }),
      total: Duration.millis(now() - at)
    }
  }

  let dials = 0
  const connect = Effect.suspend(() => {
    if (dials++ > 0) onSecondDial()
    dialledAt = now()
    connectedAt = undefined
    return dialer.dial(address, "addr-fetch")
  }).pipe(
    Effect.timeoutOrElse({
      duration: limits.connect,
      orElse: () => Effect.fail(timedOut(address, limits.connect))
    }),
    Effect.tap(() => Effect.sync(() => void (connectedAt = now())))
  )

  return yield* Effect.gen(function* () {
    const collector = new Collector(settings.addressesPerVisit)
    const answered = yield* Deferred.make<"Answered">()
    const receive = (message: Addr | AddrV2): void => {
      collector.addAll(message)
      if (message.addresses.length > 1 || collector.isFull) Deferred.doneUnsafe(answered, Effect.succeed("Answered"))
    }
    const peer = yield* Peer.dial(connect, {
      ...peerOptions(settings),
      ...(services === 0n ? {} : { remoteServices: services }),
      handshakeTimeout: limits.handshake,
      handlers: { addr: receive, addrv2: receive }
    })
    readyAt = now()
    const answer = yield* Effect.raceAllFirst([
      // A node that has ended takes no request, and `awaitShutdown` says why.
      Effect.andThen(Effect.ignore(peer.send({ _tag: "getaddr" })), Deferred.await(answered)),
      Effect.as(Effect.sleep(limits.answer), "TimedOut" as const),
      peer.awaitShutdown
    ])
    if (answer === "Answered") answeredAt = now()
    const reached: Reached = {
      _tag: "Reached",
      address,
      at,
      info: peer.info,
      learnt: collector.addresses,
      answer: typeof answer === "string" ? answer : "Ended",
      end: typeof answer === "string" ? undefined : answer,
      timings: timings()
    }
    return reached
  }).pipe(
    Effect.scoped,
    Effect.catch((error) => {
      const failed: Failed = { _tag: "Failed", address, at, problem: problemOf(error), error, timings: timings() }
      return Effect.succeed(failed)
    })
  )
})
