/** The handshake over a link: runs the key exchange, then the machine, and returns the agreement of both sides. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { HandshakeError, type HandshakeReason } from "../HandshakeError.ts"
import * as Network from "../Network.ts"
import { Nonce } from "../Nonce.ts"
import * as Policy from "../Policy.ts"
import { maxGarbageLength, maxGarbageLengthUnknown, V1Peers } from "../Transport.ts"
import type { MessageConnection } from "../transport/messageConnection.ts"
import * as Wire from "../Wire.ts"
import * as Machine from "./machine.ts"
import { establish, isText } from "./negotiateTransport.ts"
import {
  bad,
  defaultMinimumProtocolVersion,
  defaultProtocolVersion,
  defaultUserAgent,
  type Options
} from "./options.ts"

/**
 * The agreement of both sides, and the facts that the peer states about itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Negotiated {
  readonly direction: "inbound" | "outbound"
  /** The transport; "v2" is encrypted (BIP324). */
  readonly transport: "v1" | "v2"
  /** With "v2", 32 bytes that only the two ends know. If both ends have the same, there is no man in the middle. */
  readonly sessionId: Uint8Array | undefined
  /** The lower one of the two protocol versions. */
  readonly protocolVersion: number
  /** The peer's own protocol version. */
  readonly remoteProtocolVersion: number
  /** The peer's 64 service bits, unknown ones included. */
  readonly services: bigint
  /** The user agent as it was sent, one character for each byte: sanitise it before you print it. */
  readonly userAgent: string
  /** The height of the best block of the peer, by its own account. */
  readonly startHeight: number
  /** Whether the peer wants transaction announcements (BIP37). */
  readonly relay: boolean
  /** The peer's clock minus ours, in whole seconds. */
  readonly timeOffset: Duration.Duration
  /** Whether the peer wants addrv2 instead of addr (BIP155). */
  readonly addrV2: boolean
  /** Whether transactions are announced by wtxid, because both sides asked for it (BIP339). */
  readonly wtxidRelay: boolean
  /** The features that the peer announced (BIP434), by id. */
  readonly features: ReadonlyMap<string, Uint8Array>
  /** The nonce of the peer's version message. */
  readonly remoteNonce: bigint
}

const defaultRequiredServices = [Wire.Service.network | Wire.Service.networkLimited, Wire.Service.witness]
// `addr_from` and `addr_recv` are sent as zeros except for the services: our address, or that of a proxy, does not
// leak.
const noAddress = new Uint8Array(16)

const withComments = (userAgent: string, comments: ReadonlyArray<string>): string =>
  comments.length === 0 ? userAgent : userAgent.replace(/\/?$/, `(${comments.join("; ")})/`)

const failed = (reason: HandshakeReason): Effect.Effect<never, HandshakeError> =>
  Effect.fail(new HandshakeError({ reason }))

/** How long "auto" waits for an answer to our key, in milliseconds; at most half of the time limit of the handshake. */
const longestSilence = 15_000

/**
 * Runs the handshake over a link that the peer then keeps using; the caller has checked the options with `badOption`. `rest` are
 * messages for the connected peer: first those before the verack that count after it (`countsBeforeVerack`), then those after it.
 */
export const runHandshake = Effect.fnUntraced(function* (
  link: MessageConnection,
  options: Options
): Effect.fn.Return<
  { readonly negotiated: Negotiated; readonly rest: ReadonlyArray<Wire.ParserEvent> },
  HandshakeError,
  Nonce
> {
  const nonces = yield* Nonce
  const clock = yield* Clock.Clock
  const now = (): number => Math.floor(clock.currentTimeMillisUnsafe() / 1000)
  const direction = options.direction ?? "outbound"
  const network = options.network ?? Network.mainnet
  const policy = options.policy ?? Policy.core
  const v1Peers = yield* V1Peers
  const wanted = options.transport ?? (direction === "inbound" ? "auto" : "v1")
  const { remoteServices } = options
  const supportsV2 = remoteServices === undefined ? undefined : (remoteServices & Wire.Service.p2pV2) !== 0n
  const isV1Peer =
    direction === "outbound" &&
    wanted === "auto" &&
    (supportsV2 === false || v1Peers.has(link.connection.remoteAddress))
  const transport = isV1Peer ? "v1" : wanted
  const services = (options.services ?? 0n) | (direction === "inbound" && transport !== "v1" ? Wire.Service.p2pV2 : 0n)
  const timeout = Duration.fromInputUnsafe(options.handshakeTimeout ?? Duration.seconds(60))

  const settings: Machine.Config = {
    direction,
    policy,
    minimumProtocolVersion: options.minimumProtocolVersion ?? defaultMinimumProtocolVersion,
    requiredServices: options.requiredServices ?? (direction === "outbound" ? defaultRequiredServices : []),
    features: options.features ?? [],
    isOwnNonce: options.allowSelfConnection === true ? () => false : nonces.isOwn,
    version: {
      _tag: "version",
      protocolVersion: options.protocolVersion ?? defaultProtocolVersion,
      services,
      timestamp: 0,
      receiver: { services: 0n, address: noAddress, port: 0 },
      sender: { services, address: noAddress, port: 0 },
      // Only the dialling side looks for itself; the nonces of inbound connections must not displace those of outbound
      // ones.
      nonce: yield* direction === "outbound" ? nonces.next : nonces.unremembered,
      userAgent: withComments(options.userAgent ?? defaultUserAgent, options.userAgentComments ?? []),
      startHeight: 0,
      relay: options.relay ?? true
    }
  }

  const send = (messages: ReadonlyArray<Wire.Message>): Effect.Effect<void, HandshakeError> => {
    const error = link.write(messages)
    return error === undefined ? Effect.void : failed({ _tag: "BadOptions", error })
  }

  let state = Machine.initial
  /** The last message of each command, so that repetitions use no memory. */
  const early = new Map<string, Wire.ParserEvent>()
  let versionReceivedAt = 0
  let isEstablished = transport === "v1"
  /** The first bytes of the peer in a key exchange. */
  let opening: Uint8Array | undefined

  /** The reason with the network of the node's port, if that is not ours. A node that sent its version is on our network. */
  const likely = (reason: HandshakeReason): HandshakeReason => {
    if (direction === "inbound" || state.remote !== undefined) return reason
    if (reason._tag !== "Disconnected" && reason._tag !== "TimedOut") return reason
    const { port } = link.connection.remoteAddress
    const likelyNetwork = port === network.port ? undefined : Network.fromPort(port)
    return likelyNetwork === undefined ? reason : { ...reason, likelyNetwork }
  }

  const exchange = Effect.gen(function* () {
    let events: ReadonlyArray<Wire.ParserEvent> = []
    if (transport !== "v1") {
      const silence = Math.min(longestSilence, Duration.toMillis(timeout) / 2)
      // The initiator of version 2 has shown by its key that it supports it.
      const garbageLimit = direction === "inbound" || supportsV2 === true ? maxGarbageLength : maxGarbageLengthUnknown
      const onOpening = (bytes: Uint8Array): void => {
        opening = bytes
      }
      const established = establish(link, {
        direction,
        garbageLimit,
        network,
        onOpening,
        policy,
        silence,
        transport
      })
      events = yield* Effect.catch(established, (reason) => failed(likely(reason)))
      isEstablished = true
    }
    const startHeight = yield* options.startHeight ?? Effect.succeed(0)
    const config = { ...settings, version: { ...settings.version, startHeight } }
    yield* send(Machine.start(config, now()))
    while (true) {
      for (let index = 0; index < events.length; index++) {
        const event = events[index]!
        if (event._tag === "Dropped") {
          const { command, reason } = event.error
          const wasFeature = command === "feature" && reason._tag !== "BadChecksum" && reason._tag !== "BadCommand"
          if (wasFeature) return yield* failed({ _tag: "BadFeature", problem: event.error.message })
          // A malformed version is not a version. A policy that wants it first need not wait for another.
          if (state.remote === undefined && policy.notVersionFirst === "disconnect") {
            return yield* failed({ _tag: "BadMessage", error: event.error })
          }
          continue
        }
        const before = state.remote
        if (before === undefined) versionReceivedAt = now()
        else if (Machine.countsBeforeVerack(event.message)) early.set(event.message._tag, event)
        const step = Machine.step(config, state, event.message, now())
        state = step.state
        if (step.failure !== undefined) {
          yield* send(step.send)
          return yield* failed(step.failure)
        }
        if (before === undefined && state.remote !== undefined && options.onVersion !== undefined) {
          const judged = options.onVersion(state.remote)
          if (!Effect.isEffect(judged)) {
            return yield* failed({ _tag: "BadOptions", error: bad("onVersion", "must return an Effect") })
          }
          yield* Effect.catch(judged, (problem) => failed({ _tag: "Refused", problem }))
        }
        yield* send(step.send)
        if (state._tag === "Done") return [...early.values(), ...events.slice(index + 1)]
      }
      const error = link.failure
      if (error?.reason._tag === "WrongMagic") {
        return yield* failed({ _tag: "WrongNetwork", expected: network, received: error.reason.received })
      }
      if (error !== undefined) return yield* failed({ _tag: "BadMessage", error })
      events = yield* Effect.catch(link.read, (error) =>
        // Our inbound side found its own nonce and closed the connection.
        failed(
          nonces.wasReceived(settings.version.nonce)
            ? { _tag: "SelfConnection" }
            : likely({ _tag: "Disconnected", error })
        )
      )
    }
  }).pipe(
    Effect.tapError(({ reason }) =>
      Effect.sync(() => {
        if (reason._tag === "V2NotSpoken" && transport === "auto") v1Peers.add(link.connection.remoteAddress)
      })
    )
  )

  const rest = yield* Effect.timeoutOrElse(exchange, {
    duration: timeout,
    orElse: () =>
      // Another protocol, such as SSH, that waits for us to go on.
      !isEstablished && opening !== undefined && isText(opening)
        ? failed({ _tag: "WrongNetwork", expected: network, received: opening.slice(0, 4) })
        : failed(
            likely({
              _tag: "TimedOut",
              after: timeout,
              // An inbound peer that sent nothing has not even shown which transport it uses.
              waitingFor:
                !isEstablished && link.traffic.bytesSent > 0 ? "key" : state.remote === undefined ? "version" : "verack"
            })
          )
  })

  const remote = state.remote!
  const { sessionId, transport: spoken } = link.framing
  // The node supports version 2 although the key exchange failed: it was busy, or someone interfered. The next
  // connection may use version 2 again.
  if (direction === "outbound" && spoken === "v1" && (remote.services & Wire.Service.p2pV2) !== 0n) {
    v1Peers.remove(link.connection.remoteAddress)
  }
  const common = Machine.commonVersion(settings, remote)
  return {
    rest,
    negotiated: {
      direction,
      transport: spoken,
      sessionId,
      protocolVersion: common,
      remoteProtocolVersion: remote.protocolVersion,
      services: remote.services,
      userAgent: remote.userAgent,
      startHeight: remote.startHeight,
      relay: remote.relay,
      timeOffset: Duration.seconds(remote.timestamp - versionReceivedAt),
      addrV2: state.addrV2,
      wtxidRelay: state.wtxidRelay && common >= Wire.ProtocolVersion.wtxidRelay,
      features: state.features,
      remoteNonce: remote.nonce
    }
  }
})
