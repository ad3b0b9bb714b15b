/**
 * The handshake of two peers: an Effect over a connection that succeeds with what was agreed or fails with a typed
 * error. `Peer.make` runs it; run it alone to ask a node who it is and leave.
 *
 * An outbound peer sends its version first; an inbound one waits for the other's. Then both send, in this order:
 * version, wtxidrelay [339], sendaddrv2 [155], feature… [434] (as far as the common version allows), verack.
 */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Connection, ConnectionError } from "./Connection.ts"
import { establish } from "./internal/establish.ts"
import { makeV1 } from "./internal/framing.ts"
import * as Machine from "./internal/handshake.ts"
import { hex } from "./internal/hex.ts"
import { type Link, makeLink } from "./internal/link.ts"
import { start as startRecording } from "./internal/recording.ts"
import { badOption } from "./internal/options.ts"
import { Nonce } from "./Nonce.ts"
import * as Network from "./Network.ts"
import * as Policy from "./Policy.ts"
import { OnlyVersion1, type Transport } from "./Transport.ts"
import * as Wire from "./Wire.ts"

/** Why a handshake failed. In each case the connection is of no more use: close it. */
export type HandshakeReason =
  | Machine.Failure
  /** The whole handshake, the key exchange included, took longer than `handshakeTimeout`. */
  | { readonly _tag: "TimedOut"; readonly after: Duration.Duration; readonly waitingFor: "key" | "version" | "verack" }
  /**
   * The peer does not speak version 2: it closed the connection without a word when our key came, stayed silent
   * (outbound, "auto"), or came with version 1 (inbound, "v2").
   */
  | { readonly _tag: "V2NotSpoken"; readonly by: "end" | "silence" | "version 1" }
  /** The peer answered our key, but there is no encrypted connection: no terminator, or a packet that is not authentic. */
  | { readonly _tag: "KeyExchangeFailed"; readonly problem: string }
  /** The first bytes are not this network's magic, or text instead of a key: another network, or no Bitcoin node at all. */
  | { readonly _tag: "WrongNetwork"; readonly expected: Network.Network; readonly received: Uint8Array }
  /** Bytes that the policy does not tolerate: a bad checksum, a malformed message, a payload above the limit. */
  | { readonly _tag: "BadMessage"; readonly error: Wire.WireError }
  /** The connection ended in the middle of the handshake. */
  | { readonly _tag: "Disconnected"; readonly error: ConnectionError }
  /** The caller's `onVersion` refused. */
  | { readonly _tag: "Refused"; readonly problem: string }
  /** Our own options are out of range, or cannot be sent: a user agent of more than 256 bytes, an interval of 0. */
  | { readonly _tag: "BadOptions"; readonly error: Wire.WireError }

const ascii = (bytes: Uint8Array): string => String.fromCharCode(...bytes).replace(/[^\x20-\x7e]/g, ".")
const describe = (reason: HandshakeReason): string => {
  switch (reason._tag) {
    case "NotVersionFirst":
      return `the first message was "${reason.received}" instead of "version"`
    case "VersionTooOld":
      return `the peer speaks protocol version ${reason.protocolVersion}, at least ${reason.minimum} is needed`
    case "SelfConnection":
      return "connected to itself"
    case "ServicesMissing": {
      const missing = reason.required.filter((mask) => (reason.offered & mask) === 0n)
      const wanted = missing.map((mask) => Wire.serviceNames(mask).join(" or ")).join(", and ")
      return `the peer does not offer the required services: ${wanted} (it offers ${Wire.serviceNames(reason.offered).join(", ") || "none"})`
    }
    case "DuplicateVersion":
      return "the peer sent a second version message"
    case "BadFeature":
      return `bad feature message: ${reason.problem}`
    case "TimedOut":
      return reason.waitingFor === "version"
        ? `no version message within ${Duration.format(reason.after)}; is it a Bitcoin node?`
        : reason.waitingFor === "key"
          ? `no encrypted connection within ${Duration.format(reason.after)}; is it of the same network, does it speak version 2?`
          : `no verack message within ${Duration.format(reason.after)}`
    case "V2NotSpoken":
      switch (reason.by) {
        case "end":
          return "the peer does not speak the version 2 transport: it closed the connection when our key came"
        case "silence":
          return "the peer does not speak the version 2 transport: it does not answer our key"
        case "version 1":
          return "the peer speaks the version 1 transport, which is not accepted"
      }
    case "KeyExchangeFailed":
      return `no encrypted connection: ${reason.problem}`
    case "WrongNetwork": {
      const other = Network.fromMagic(reason.received)
      return other === undefined
        ? `not a Bitcoin node of ${reason.expected.name}: its first bytes are ${hex(reason.received)} ("${ascii(reason.received)}")`
        : `the peer is on ${other.name}, not on ${reason.expected.name}`
    }
    case "BadMessage":
      return `bad message: ${reason.error.message}`
    case "Disconnected":
      return reason.error.reason._tag === "Closed"
        ? "the peer closed the connection during the handshake"
        : reason.error.message
    case "Refused":
      return `refused: ${reason.problem}`
    case "BadOptions":
      return `bad options: ${reason.error.message}`
  }
}

/** A handshake that did not end in agreement; `reason` says why. */
export class HandshakeError extends Data.TaggedError("HandshakeError")<{ readonly reason: HandshakeReason }> {
  override get message(): string {
    return `handshake failed: ${describe(this.reason)}`
  }
}

/** What both sides agreed on, and what the peer said of itself. */
export interface Negotiated {
  readonly direction: "inbound" | "outbound"
  /** How the bytes are made: "v2" is encrypted [324]. */
  readonly transport: "v1" | "v2"
  /** 32 bytes that only the two ends know, of "v2": where both have the same, nobody sits in between. */
  readonly sessionId: Uint8Array | undefined
  /** The smaller of the two protocol versions. */
  readonly protocolVersion: number
  /** The peer's own protocol version. */
  readonly remoteProtocolVersion: number
  /** The peer's 64 service bits, unknown ones included. */
  readonly services: bigint
  /** As it was sent, one character a byte: sanitise before printing. */
  readonly userAgent: string
  /** Height of the peer's best block, as it says. */
  readonly startHeight: number
  /** Whether the peer wants transactions announced [37]. */
  readonly relay: boolean
  /** The peer's clock minus ours, in whole seconds. */
  readonly timeOffset: Duration.Duration
  /** The peer wants addrv2 [155]. */
  readonly addrV2: boolean
  /** Transactions are announced by wtxid [339]: both sides said so. */
  readonly wtxidRelay: boolean
  /** What the peer announced by `feature` [434], by id. */
  readonly features: ReadonlyMap<string, Uint8Array>
  /** The nonce of the peer's version. */
  readonly remoteNonce: bigint
}

export interface Options {
  /** "outbound" (the default) speaks first, "inbound" waits. */
  readonly direction?: "inbound" | "outbound" | undefined
  /**
   * Plain ("v1"), encrypted ("v2") or what the peer can ("auto") [324]. Inbound "auto" by default; P2P_V2 is then among the
   * services that are announced. Outbound "v1", for a single connection cannot be spoken twice: with "auto", and a peer
   * that does not speak version 2, it fails with `V2NotSpoken` and the next one to the same address is spoken in
   * version 1. `Peer.dial` makes that next one.
   */
  readonly transport?: Transport | undefined
  /** mainnet by default. */
  readonly network?: Network.Network | undefined
  /** What we announce; 70017 by default. The smaller of the two sides' counts. */
  readonly protocolVersion?: number | undefined
  /** Peers below it are refused; 31800 by default, as in Bitcoin Core (btcd: 209). */
  readonly minimumProtocolVersion?: number | undefined
  /** What we offer: bits of `Wire.Service`. None by default. */
  readonly services?: bigint | undefined
  /**
   * Masks of service bits; of each the peer must have at least one. By default an outbound peer must offer NETWORK or
   * NETWORK_LIMITED, and WITNESS, and an inbound one nothing.
   */
  readonly requiredServices?: ReadonlyArray<bigint> | undefined
  /** At most 256 bytes of printable ASCII [14]. */
  readonly userAgent?: string | undefined
  /**
   * What to say of ourselves in brackets behind the user agent, as `/name:version(comment; comment)/` [14]. A comment must
   * not hold `/`, `:`, `(` or `)`.
   */
  readonly userAgentComments?: ReadonlyArray<string> | undefined
  /** Height of our best block, asked for at each handshake; 0 by default. */
  readonly startHeight?: Effect.Effect<number> | undefined
  /** Whether the peer shall announce transactions [37]; true by default. */
  readonly relay?: boolean | undefined
  /** What to announce by `feature` [434]: an id of 4 to 80 bytes, data of at most 512. */
  readonly features?: ReadonlyArray<{ readonly id: string; readonly data: Uint8Array }> | undefined
  /** Where Core and btcd differ; `Policy.standard` by default. */
  readonly policy?: Policy.Policy | undefined
  /** For the whole handshake, the key exchange included; 60 seconds by default. */
  readonly handshakeTimeout?: Duration.Input | undefined
  /** Accept a connection to ourselves; for tests. */
  readonly allowSelfConnection?: boolean | undefined
  /** Looks at the peer's version before it is answered; failing refuses the peer, with the text as the reason. */
  readonly onVersion?: ((version: Wire.Version) => Effect.Effect<void, string>) | undefined
}

/** What the user agent of this version is unless another is set [14]. */
export const defaultUserAgent = "/effect-bitcoin-peer:0.1.0/"
/** What we announce. */
export const defaultProtocolVersion = 70_017
/** Peers below it are refused. */
export const defaultMinimumProtocolVersion = 31_800

const defaultRequiredServices = [Wire.Service.network | Wire.Service.networkLimited, Wire.Service.witness]
// `addr_from` is sent as zeros but for services, and `addr_recv` too: neither our address nor a proxy's leaks.
const noAddress = new Uint8Array(16)

const withComments = (userAgent: string, comments: ReadonlyArray<string>): string =>
  comments.length === 0 ? userAgent : userAgent.replace(/\/?$/, `(${comments.join("; ")})/`)

/** How long "auto" waits for an answer to our key, or half of the handshake's time where that is less. */
const longestSilence = 15_000

/** @internal The handshake over a link, which Peer keeps using afterwards; `rest` came behind the verack. */
export const runOnLink = Effect.fnUntraced(function* (
  link: Link,
  options: Options
): Effect.fn.Return<
  { readonly negotiated: Negotiated; readonly rest: ReadonlyArray<Wire.ParserEvent> },
  HandshakeError,
  Nonce
> {
  const nonces = yield* Nonce
  const clock = yield* Clock.Clock
  const now = (): number => Math.floor(clock.currentTimeMillisUnsafe() / 1000)
  const wrong = badOption(options)
  if (wrong !== undefined) return yield* new HandshakeError({ reason: { _tag: "BadOptions", error: wrong } })
  const direction = options.direction ?? "outbound"
  const network = options.network ?? Network.mainnet
  const policy = options.policy ?? Policy.standard
  const onlyVersion1 = yield* OnlyVersion1
  const wanted = options.transport ?? (direction === "inbound" ? "auto" : "v1")
  const isKnown = direction === "outbound" && wanted === "auto" && onlyVersion1.has(link.connection.remoteAddress)
  const transport = isKnown ? "v1" : wanted
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
      // Only who dials needs to recognise itself; strangers must not push those nonces out.
      nonce: yield* direction === "outbound" ? nonces.next : nonces.unremembered,
      userAgent: withComments(options.userAgent ?? defaultUserAgent, options.userAgentComments ?? []),
      startHeight: 0,
      relay: options.relay ?? true
    }
  }

  const failed = (reason: HandshakeReason): Effect.Effect<never, HandshakeError> =>
    Effect.fail(new HandshakeError({ reason }))
  const send = (messages: ReadonlyArray<Wire.Message>): Effect.Effect<void, HandshakeError> => {
    const error = link.write(messages)
    return error === undefined ? Effect.void : failed({ _tag: "BadOptions", error })
  }

  let state = Machine.initial
  let versionReceivedAt = 0
  let isEstablished = transport === "v1"

  const exchange = Effect.gen(function* () {
    let events: ReadonlyArray<Wire.ParserEvent> = []
    if (transport !== "v1") {
      const silence = Math.min(longestSilence, Duration.toMillis(timeout) / 2)
      events = yield* Effect.catch(establish(link, { direction, network, policy, silence, transport }), failed)
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
          // A version that cannot be read is not a version: who insists on it coming first need not wait for another.
          if (state.remote === undefined && policy.notVersionFirst === "disconnect") {
            return yield* failed({ _tag: "BadMessage", error: event.error })
          }
          continue
        }
        const before = state.remote
        if (before === undefined) versionReceivedAt = now()
        const step = Machine.step(config, state, event.message, now())
        state = step.state
        if (step.failure !== undefined) {
          yield* send(step.send)
          return yield* failed(step.failure)
        }
        if (before === undefined && state.remote !== undefined && options.onVersion !== undefined) {
          yield* Effect.catch(options.onVersion(state.remote), (problem) => failed({ _tag: "Refused", problem }))
        }
        yield* send(step.send)
        if (state._tag === "Done") return events.slice(index + 1)
      }
      const error = link.failure()
      if (error?.reason._tag === "WrongMagic") {
        return yield* failed({ _tag: "WrongNetwork", expected: network, received: error.reason.received })
      }
      if (error !== undefined) return yield* failed({ _tag: "BadMessage", error })
      events = yield* Effect.catch(link.read, (error) => failed({ _tag: "Disconnected", error }))
    }
  }).pipe(
    Effect.tapError(({ reason }) =>
      Effect.sync(() => {
        if (reason._tag === "V2NotSpoken" && transport === "auto") onlyVersion1.add(link.connection.remoteAddress)
      })
    )
  )

  const rest = yield* Effect.timeoutOrElse(exchange, {
    duration: timeout,
    orElse: () =>
      failed({
        _tag: "TimedOut",
        after: timeout,
        // A stranger that says nothing has not even shown which version it speaks.
        waitingFor:
          !isEstablished && link.traffic.bytesSent > 0 ? "key" : state.remote === undefined ? "version" : "verack"
      })
  })

  const remote = state.remote!
  const { sessionId, transport: spoken } = link.framing()
  // Where version 2 failed all the same it was busy, or somebody interfered: the next one may be encrypted again.
  if (direction === "outbound" && spoken === "v1" && (remote.services & Wire.Service.p2pV2) !== 0n) {
    onlyVersion1.remove(link.connection.remoteAddress)
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
      wtxidRelay: state.wtxidRelay && common >= Machine.versionOf.wtxidRelay,
      features: state.features,
      remoteNonce: remote.nonce
    }
  }
})

/**
 * Runs the handshake alone over a connection, which stays open whatever comes of it: closing it is the caller's.
 *
 * Succeeds when the peer's verack has arrived. Messages that come right behind it are lost, so this is for asking a node
 * who it is; `Peer.make` is the way to keep talking. Fails with `HandshakeError`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Handshake, Network, Nonce } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const whoIs = (host: string) =>
 *   Effect.gen(function*() {
 *     const connection = yield* NodeConnection.connect({ host, port: Network.signet.port })
 *     const { services, userAgent } = yield* Handshake.run(connection, { network: Network.signet })
 *     return { services, userAgent }
 *   }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 */
export const run = Effect.fnUntraced(function* (
  connection: Connection["Service"],
  options: Options = {}
): Effect.fn.Return<Negotiated, HandshakeError, Nonce | Scope.Scope> {
  const recording = yield* startRecording(connection)
  const { magic } = options.network ?? Network.mainnet
  const link = makeLink(connection, {
    framing: makeV1(magic, options.policy ?? Policy.standard, recording?.received),
    clock: yield* Clock.Clock,
    onRead: undefined,
    onWrite: undefined,
    recording
  })
  return (yield* runOnLink(link, options)).negotiated
}, Effect.scoped)
