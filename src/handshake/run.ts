/** The handshake over a link: runs the key exchange, then the machine, and returns the agreement of both sides. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { HandshakeError, type HandshakeReason } from "../HandshakeError.ts"
import * as Network from "../Network.ts"
import { Nonce } from "../Nonce.ts"
import * as Policy from "../Policy.ts"
import { maxGarbageLength, maxGarbageLengthUnknown, type Transport, V1Peers } from "../Transport.ts"
import type { ConnectionError } from "../ConnectionError.ts"
import { startTimer } from "../primitives/timer.ts"
import type { MessageConnection, MessageReceiver } from "../transport/messageConnection.ts"
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
const defaultTimeout = Duration.seconds(60)

/** The result of a handshake, and the messages for the connected peer. */
export interface Completed {
  readonly negotiated: Negotiated
  /** First the messages before the verack that count after it (`countsBeforeVerack`), then those after it. */
  readonly rest: ReadonlyArray<Wire.ParserEvent>
}

const noEvents: ReadonlyArray<Wire.ParserEvent> = []
const never = (): boolean => false
const monotonic = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/**
 * One handshake. Its machine runs in callbacks of the connection: the caller's fiber waits once, for the result, unless an
 * Effect of the options or the key exchange has to run in between.
 */
class Exchange implements MessageReceiver {
  readonly #link: MessageConnection
  readonly #options: Options
  readonly #context: Context.Context<never>
  readonly #nonces: Nonce
  readonly #clock: Clock.Clock
  readonly #v1Peers: V1Peers
  readonly #direction: "inbound" | "outbound"
  readonly #network: Network.Network
  readonly #transport: Transport
  readonly #timeout: Duration.Duration
  /** Milliseconds of the monotonic clock. */
  readonly #deadline: number
  readonly #supportsV2: boolean | undefined
  #config: Machine.Config
  #state = Machine.initial
  /** The last message of each command, so that repetitions use no memory. Made with the first one. */
  #early: Map<string, Wire.ParserEvent> | undefined
  #versionReceivedAt = 0
  #isEstablished: boolean
  /** The first bytes of the peer in a key exchange. */
  #opening: Uint8Array | undefined
  #resume: ((effect: Effect.Effect<Completed, HandshakeError>) => void) | undefined

  constructor(link: MessageConnection, options: Options, nonce: bigint, context: Context.Context<Nonce>) {
    const direction = options.direction ?? "outbound"
    const nonces = Context.get(context, Nonce)
    const { remoteServices } = options
    this.#link = link
    this.#options = options
    this.#context = context
    this.#nonces = nonces
    this.#clock = Context.get(context, Clock.Clock)
    this.#v1Peers = Context.get(context, V1Peers)
    this.#direction = direction
    this.#network = options.network ?? Network.mainnet
    this.#supportsV2 = remoteServices === undefined ? undefined : (remoteServices & Wire.Service.p2pV2) !== 0n
    const wanted = options.transport ?? (direction === "inbound" ? "auto" : "v1")
    const isV1Peer =
      direction === "outbound" &&
      wanted === "auto" &&
      (this.#supportsV2 === false || this.#v1Peers.has(link.connection.remoteAddress))
    this.#transport = isV1Peer ? "v1" : wanted
    this.#isEstablished = this.#transport === "v1"
    this.#timeout =
      options.handshakeTimeout === undefined ? defaultTimeout : Duration.fromInputUnsafe(options.handshakeTimeout)
    this.#deadline = monotonic(this.#clock) + Duration.toMillis(this.#timeout)
    const services =
      (options.services ?? 0n) | (direction === "inbound" && this.#transport !== "v1" ? Wire.Service.p2pV2 : 0n)
    this.#config = {
      direction,
      policy: options.policy ?? Policy.core,
      minimumProtocolVersion: options.minimumProtocolVersion ?? defaultMinimumProtocolVersion,
      requiredServices: options.requiredServices ?? (direction === "outbound" ? defaultRequiredServices : []),
      features: options.features ?? [],
      isOwnNonce: options.allowSelfConnection === true ? never : nonces.isOwn,
      version: {
        _tag: "version",
        protocolVersion: options.protocolVersion ?? defaultProtocolVersion,
        services,
        timestamp: 0,
        receiver: { services: 0n, address: noAddress, port: 0 },
        sender: { services, address: noAddress, port: 0 },
        nonce,
        userAgent: withComments(options.userAgent ?? defaultUserAgent, options.userAgentComments ?? []),
        startHeight: 0,
        relay: options.relay ?? true
      }
    }
  }

  get run(): Effect.Effect<Completed, HandshakeError> {
    return this.#isEstablished ? this.#open(noEvents) : this.#negotiateTransport()
  }

  /** Milliseconds until the time limit of the handshake. */
  get #timeLeft(): number {
    return Math.max(1, Math.ceil(this.#deadline - monotonic(this.#clock)))
  }

  /** Bounds an Effect of the options, or the key exchange, by the time limit. */
  #inTime<A>(effect: Effect.Effect<A, HandshakeError>): Effect.Effect<A, HandshakeError> {
    return Effect.timeoutOrElse(effect, { duration: this.#timeLeft, orElse: () => this.#timedOut() })
  }

  #negotiateTransport(): Effect.Effect<Completed, HandshakeError> {
    const transport = this.#transport as Exclude<Transport, "v1">
    const established = establish(this.#link, {
      direction: this.#direction,
      // The initiator of version 2 has shown by its key that it supports it.
      garbageLimit:
        this.#direction === "inbound" || this.#supportsV2 === true ? maxGarbageLength : maxGarbageLengthUnknown,
      network: this.#network,
      onOpening: (bytes) => {
        this.#opening = bytes
      },
      policy: this.#config.policy,
      silence: Math.min(longestSilence, Duration.toMillis(this.#timeout) / 2),
      transport
    })
    const explained = Effect.catch(established, (reason) => {
      if (reason._tag === "V2NotSpoken" && transport === "auto") {
        this.#v1Peers.add(this.#link.connection.remoteAddress)
      }
      return failed(this.#likely(reason))
    })
    return Effect.flatMap(this.#inTime(explained), (events) => {
      this.#isEstablished = true
      return this.#open(events)
    })
  }

  /** Sends our first messages, if ours are the first, then takes those of the peer. */
  #open(events: ReadonlyArray<Wire.ParserEvent>): Effect.Effect<Completed, HandshakeError> {
    const { startHeight } = this.#options
    const open = (): Effect.Effect<Completed, HandshakeError> => {
      const error = this.#link.write(Machine.start(this.#config, this.#now()))
      return error === undefined ? this.#goOn(events, 0) : failed({ _tag: "BadOptions", error })
    }
    if (startHeight === undefined) return Effect.suspend(open)
    return Effect.flatMap(this.#inTime(startHeight), (height) => {
      this.#config = { ...this.#config, version: { ...this.#config.version, startHeight: height } }
      return open()
    })
  }

  #goOn(events: ReadonlyArray<Wire.ParserEvent>, from: number): Effect.Effect<Completed, HandshakeError> {
    return this.#take(events, from) ?? this.#wait
  }

  get #wait(): Effect.Effect<Completed, HandshakeError> {
    return Effect.callback((resume) => {
      let stop: Effect.Effect<void> = Effect.void
      const stopTimer = startTimer(this.#context, this.#timeLeft, () => {
        resume(Effect.andThen(stop, this.#timedOut()))
      })
      this.#waits((next) => {
        stopTimer()
        resume(next)
      })
      stop = this.#link.receive(this)
      return Effect.suspend(() => {
        stopTimer()
        return stop
      })
    })
  }

  // V8 allocates a function that is assigned to a property among the old objects, where it keeps all that it refers to until the
  // next full collection. A function that is an argument is allocated among the young ones.
  #waits(resume: (effect: Effect.Effect<Completed, HandshakeError>) => void): void {
    this.#resume = resume
  }

  onEvents(events: ReadonlyArray<Wire.ParserEvent>): boolean {
    const next = this.#take(events, 0)
    if (next === undefined) return true
    this.#resume!(next)
    return false
  }

  onEnd(error: ConnectionError): void {
    this.#resume!(
      // Our inbound side found its own nonce and closed the connection.
      this.#nonces.wasReceived(this.#config.version.nonce)
        ? failed({ _tag: "SelfConnection" })
        : failed(this.#likely({ _tag: "Disconnected", error }))
    )
  }

  onDefect(defect: unknown): void {
    this.#resume!(Effect.die(defect))
  }

  #now(): number {
    return Math.floor(this.#clock.currentTimeMillisUnsafe() / 1000)
  }

  /** Feeds the machine from this event on. Returns an Effect when the handshake is over, or something has to be waited for. */
  #take(events: ReadonlyArray<Wire.ParserEvent>, from: number): Effect.Effect<Completed, HandshakeError> | undefined {
    for (let index = from; index < events.length; index++) {
      const event = events[index]!
      if (event._tag === "Dropped") {
        const failure = this.#dropped(event.error)
        if (failure !== undefined) return failed(failure)
        continue
      }
      const before = this.#state.remote
      if (before === undefined) this.#versionReceivedAt = this.#now()
      else if (Machine.countsBeforeVerack(event.message)) (this.#early ??= new Map()).set(event.message._tag, event)
      const step = Machine.step(this.#config, this.#state, event.message, this.#versionReceivedAt)
      this.#state = step.state
      if (step.failure !== undefined) {
        const error = this.#link.write(step.send)
        return failed(error === undefined ? step.failure : { _tag: "BadOptions", error })
      }
      const judged =
        before === undefined && step.state.remote !== undefined ? this.#judged(step.state.remote) : undefined
      const answer = (): Effect.Effect<Completed, HandshakeError> | undefined => {
        const error = this.#link.write(step.send)
        if (error !== undefined) return failed({ _tag: "BadOptions", error })
        return step.state._tag === "Done" ? Effect.succeed(this.#completed(events.slice(index + 1))) : undefined
      }
      if (judged !== undefined) return Effect.flatMap(judged, () => answer() ?? this.#goOn(events, index + 1))
      const done = answer()
      if (done !== undefined) return done
    }
    const error = this.#link.failure
    if (error?.reason._tag === "WrongMagic") {
      return failed({ _tag: "WrongNetwork", expected: this.#network, received: error.reason.received })
    }
    return error === undefined ? undefined : failed({ _tag: "BadMessage", error })
  }

  /** Why a message that could not be read ends the handshake, if it does. */
  #dropped(error: Wire.WireError): HandshakeReason | undefined {
    const { command, reason } = error
    const wasFeature = command === "feature" && reason._tag !== "BadChecksum" && reason._tag !== "BadCommand"
    if (wasFeature) return { _tag: "BadFeature", problem: error.message }
    // A malformed version is not a version. A policy that wants it first need not wait for another.
    return this.#state.remote === undefined && this.#config.policy.notVersionFirst === "disconnect"
      ? { _tag: "BadMessage", error }
      : undefined
  }

  /** What the caller says to the version of the peer, if it has a say. */
  #judged(version: Wire.Version): Effect.Effect<void, HandshakeError> | undefined {
    const judged = this.#options.onVersion?.(version)
    if (this.#options.onVersion === undefined) return undefined
    if (!Effect.isEffect(judged))
      return failed({ _tag: "BadOptions", error: bad("onVersion", "must return an Effect") })
    return this.#inTime(Effect.catch(judged, (problem) => failed({ _tag: "Refused", problem })))
  }

  #timedOut(): Effect.Effect<never, HandshakeError> {
    const opening = this.#isEstablished ? undefined : this.#opening
    // Another protocol, such as SSH, that waits for us to go on.
    if (opening !== undefined && isText(opening)) {
      return failed({ _tag: "WrongNetwork", expected: this.#network, received: opening.slice(0, 4) })
    }
    // An inbound peer that sent nothing has not even shown which transport it uses.
    const waitsForKey = !this.#isEstablished && this.#link.traffic.bytesSent > 0
    const waitingFor = waitsForKey ? "key" : this.#state.remote === undefined ? "version" : "verack"
    return failed(this.#likely({ _tag: "TimedOut", after: this.#timeout, waitingFor }))
  }

  /** The reason with the network of the node's port, if that is not ours. A node that sent its version is on our network. */
  #likely(reason: HandshakeReason): HandshakeReason {
    if (this.#direction === "inbound" || this.#state.remote !== undefined) return reason
    if (reason._tag !== "Disconnected" && reason._tag !== "TimedOut") return reason
    const { port } = this.#link.connection.remoteAddress
    const likelyNetwork = port === this.#network.port ? undefined : Network.fromPort(port)
    return likelyNetwork === undefined ? reason : { ...reason, likelyNetwork }
  }

  #completed(after: ReadonlyArray<Wire.ParserEvent>): Completed {
    const { addrV2, features, wtxidRelay } = this.#state
    const remote = this.#state.remote!
    const { connection, framing } = this.#link
    // The node supports version 2 although the key exchange failed: it was busy, or someone interfered. The next
    // connection may use version 2 again.
    if (this.#direction === "outbound" && framing.transport === "v1" && (remote.services & Wire.Service.p2pV2) !== 0n) {
      this.#v1Peers.remove(connection.remoteAddress)
    }
    const common = Machine.commonVersion(this.#config, remote)
    return {
      rest: this.#early === undefined ? after : [...this.#early.values(), ...after],
      negotiated: {
        direction: this.#direction,
        transport: framing.transport,
        sessionId: framing.sessionId,
        protocolVersion: common,
        remoteProtocolVersion: remote.protocolVersion,
        services: remote.services,
        userAgent: remote.userAgent,
        startHeight: remote.startHeight,
        relay: remote.relay,
        timeOffset: Duration.seconds(remote.timestamp - this.#versionReceivedAt),
        addrV2,
        wtxidRelay: wtxidRelay && common >= Wire.ProtocolVersion.wtxidRelay,
        features,
        remoteNonce: remote.nonce
      }
    }
  }
}

/** Runs the handshake over a link that the peer then keeps using; the caller has checked the options with `badOption`. */
export const runHandshake = (
  link: MessageConnection,
  options: Options
): Effect.Effect<Completed, HandshakeError, Nonce> =>
  Effect.contextWith((context: Context.Context<Nonce>) => {
    const nonces = Context.get(context, Nonce)
    // Only the dialling side looks for itself; the nonces of inbound connections must not displace those of outbound
    // ones.
    const nonce = options.direction === "inbound" ? nonces.unremembered : nonces.next
    return Effect.flatMap(nonce, (nonce) => new Exchange(link, options, nonce, context).run)
  })
