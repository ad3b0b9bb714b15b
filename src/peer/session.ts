/**
 * A connected peer: its parts, made after the handshake. The loops are in reader.ts, writer.ts, pinger.ts, announcer.ts and
 * dispatcher.ts; lifecycle.ts forks them and says in which order a peer ends.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Handshake from "../Handshake.ts"
import * as Inventory from "../Inventory.ts"
import * as Network from "../Network.ts"
import { Nonce } from "../Nonce.ts"
import { type EndReason, notSendable, type PeerError } from "../PeerError.ts"
import * as Policy from "../Policy.ts"
import { WaitList } from "../primitives/waitList.ts"
import type { MessageConnection } from "../transport/messageConnection.ts"
import type * as Wire from "../Wire.ts"
import { ProtocolVersion } from "../wire/protocolVersion.ts"
import { Announcer } from "./announcer.ts"
import { Dispatcher, type Handled } from "./dispatcher.ts"
import * as KeepAlive from "./keepAlive.ts"
import { type Ending, Lifecycle } from "./lifecycle.ts"
import { ended, rejectFor, servedBy } from "./misbehavior.ts"
import {
  defaultDataStallTimeout,
  defaultHeadersStallTimeout,
  defaultIdleTimeout,
  defaultMaximumQueuedBytes,
  defaultPingInterval,
  defaultPingTimeout,
  type SessionOptions
} from "./options.ts"
import { Pinger } from "./pinger.ts"
import { Reader } from "./reader.ts"
import * as RemoteState from "./remoteState.ts"
import { Requests } from "./requests/requests.ts"
import { isRequest, RequestTracker } from "./requests/tracker.ts"
import { makeSenders } from "./sending.ts"
import { SendQueue } from "./sendQueue.ts"
import { type Info, snapshot, type Stats } from "./stats.ts"
import { makeSubscribers, type Subscribers } from "./subscribers.ts"
import { Observer } from "./telemetry.ts"
import { Writer } from "./writer.ts"

/** Ends of a remote that takes nothing: its connection is destroyed, since a close would wait for it. */
const silentEnds: ReadonlySet<EndReason["_tag"]> = new Set([
  "PingTimeout",
  "IdleTimeout",
  "WriteTimeout",
  "Stalled"
] as const)
const stallCheckInterval = Duration.seconds(15)

let peersSoFar = 0

/** What a session is made of. */
interface Parts<Self> {
  readonly link: MessageConnection
  readonly info: Info
  readonly options: SessionOptions & Handled<Self>
  readonly nonces: Nonce
  readonly now: () => number
  readonly lifecycle: Lifecycle
  readonly observer: Observer
  readonly sendQueue: SendQueue<PeerError>
  /** Seeds the hash of the known inventory. */
  readonly seed: number
  readonly assemble: (session: Session<Self>) => Self
}

/** The parts of a connected peer, of which `Peer` makes its service. */
export class Session<Self = unknown> {
  readonly info: Info
  readonly lifecycle: Lifecycle
  readonly sendQueue: SendQueue<PeerError>
  readonly dispatcher: Dispatcher<Self>
  readonly pinger: Pinger
  /** The peer that callers and handlers get. */
  readonly peer: Self
  readonly #link: MessageConnection
  readonly #options: SessionOptions
  readonly #policy: Policy.Policy
  readonly #now: () => number
  readonly #observer: Observer
  readonly #keepAlive: KeepAlive.KeepAlive
  readonly #inventory: Inventory.Inventory
  readonly #remote: RemoteState.RemoteState
  readonly #reader: Reader<Self>
  readonly #writer: Writer
  // An idle peer is small: parts that few callers ask for are made when first asked for.
  #announcer: Announcer | undefined
  #subscribers: Subscribers | undefined
  #senders: ReturnType<typeof makeSenders> | undefined
  #tracker: RequestTracker | undefined
  #requests: Requests | undefined
  /** Whether the stall watch runs, or must not. */
  #watchesStalls: boolean
  #asked: WaitList | undefined

  constructor({ assemble, info, lifecycle, link, nonces, now, observer, options, seed, sendQueue }: Parts<Self>) {
    const idleTimeout = Duration.fromInputUnsafe(options.idleTimeout ?? defaultIdleTimeout)
    const knownInventory = options.knownInventory ?? Inventory.defaultKnownInventory
    this.info = info
    this.lifecycle = lifecycle
    this.sendQueue = sendQueue
    this.#link = link
    this.#options = options
    this.#policy = options.policy ?? Policy.core
    this.#now = now
    this.#observer = observer
    this.#watchesStalls = options.stalls === false
    this.#keepAlive = KeepAlive.make(
      {
        pingInterval: Duration.toMillis(options.pingInterval ?? defaultPingInterval),
        pingTimeout: Duration.toMillis(options.pingTimeout ?? defaultPingTimeout),
        idleTimeout: Duration.toMillis(idleTimeout)
      },
      now()
    )
    this.#inventory = Inventory.make(knownInventory, seed)
    this.#remote = RemoteState.make({
      known: this.#inventory.known,
      knownLimit: knownInventory,
      wtxidRelay: info.wtxidRelay,
      relay: info.relay,
      wantsHeaders: false
    })
    this.pinger = new Pinger({
      keepAlive: this.#keepAlive,
      protocolVersion: info.protocolVersion,
      nonces,
      sendQueue,
      now,
      lifecycle,
      observer,
      asking: (wait) => this.dispatcher.asking(wait)
    })
    const isAsked = (): boolean => this.pinger.open + (this.#requests?.open ?? 0) > 0
    this.dispatcher = new Dispatcher<Self>({
      handled: options as Handled<Self>,
      malformed: this.#policy.malformed,
      traffic: link.traffic,
      subscribers: () => this.#subscribers,
      lifecycle,
      pinger: this.pinger,
      peer: () => this.peer,
      isAsked
    })
    this.#reader = new Reader<Self>({
      link,
      served: servedBy(this.#policy, options.services ?? 0n, info.protocolVersion),
      keepAlive: this.#keepAlive,
      remote: this.#remote,
      tracker: () => this.#tracker,
      pinger: this.pinger,
      dispatcher: this.dispatcher,
      lifecycle,
      observer,
      now,
      isAsked,
      failWaiting: (reason) => this.#failWaiting(reason)
    })
    this.#writer = new Writer({
      link,
      sendQueue,
      lifecycle,
      observer,
      timeout: idleTimeout,
      onSend: (message) => this.#sent(message),
      onBatch: () => this.#watchStalls(),
      reader: this.#reader,
      dispatcher: this.dispatcher
    })
    this.peer = assemble(this)
  }

  /** Forks the loops; `first` is the batch of messages that the handshake left. */
  start(first: ReadonlyArray<Wire.ParserEvent>): Effect.Effect<void> {
    const ending: Ending = {
      failWaiting: (reason) => {
        this.#failWaiting(reason)
        this.#subscribers?.end()
      },
      disconnect: (reason) => this.#disconnect(reason),
      endRecording: this.#link.endRecording,
      observe: (reason) => this.#observer.ended(reason)
    }
    const forkLoops = (): void => {
      this.#writer.start()
      this.lifecycle.fork(this.#reader.loop(first))
      this.lifecycle.fork(this.pinger.loop)
    }
    return this.lifecycle.start(forkLoops, ending, this.#observer.context)
  }

  get announcer(): Announcer {
    return (this.#announcer ??= new Announcer({
      inventory: this.#inventory,
      trickle: this.#options.trickle ?? Inventory.defaultTrickle(this.info.direction),
      remote: this.#remote,
      sendQueue: this.sendQueue,
      now: this.#now,
      lifecycle: this.lifecycle
    }))
  }

  get subscribers(): Subscribers {
    if (this.#subscribers === undefined) {
      this.#subscribers = makeSubscribers()
      if (this.lifecycle.isEnding) this.#subscribers.end()
    }
    return this.#subscribers
  }

  get senders(): ReturnType<typeof makeSenders> {
    return (this.#senders ??= makeSenders({ negotiated: this.info, sendQueue: this.sendQueue, policy: this.#policy }))
  }

  get requests(): Requests {
    return (this.#requests ??= new Requests({
      tracker: this.#openTracker(),
      sendQueue: this.sendQueue,
      probe: this.pinger.probe,
      protocolVersion: this.info.protocolVersion,
      wtxidRelay: this.info.wtxidRelay,
      services: this.info.services,
      asking: (wait) => this.dispatcher.asking(wait)
    }))
  }

  get stats(): Effect.Effect<Stats> {
    return Effect.sync(() => this.#snapshot())
  }

  #snapshot(): Stats {
    return snapshot(this.info, this.#link.traffic, this.#keepAlive, {
      feeFilter: this.#remote.feeFilter,
      lastBlockAnnounced: this.#remote.lastBlockAnnounced,
      lastBlockReceived: this.#remote.lastBlockReceived,
      knownInventory: this.#inventory.known.size,
      waitingAnnouncements: this.#inventory.waiting.length,
      openRequests: this.#openRequests,
      queuedMessages: this.sendQueue.length,
      queuedBytes: this.sendQueue.bytes
    })
  }

  /** The clock of the stall deadlines: it stands still while our side is busy. */
  #remoteNow(): number {
    return KeepAlive.remoteTime(this.#keepAlive, this.#now())
  }

  get #openRequests(): number {
    return this.#tracker === undefined ? 0 : this.#tracker.size
  }

  #openTracker(): RequestTracker {
    const { dataStallTimeout, headersStallTimeout } = this.#options
    return (this.#tracker ??= new RequestTracker({
      genesisHash: this.info.network.genesisHash,
      segwitHeight: this.info.network.segwitHeight ?? 0,
      answersPings: this.pinger.hasPongs,
      dataTimeout: Duration.toMillis(dataStallTimeout ?? defaultDataStallTimeout),
      headersTimeout: Duration.toMillis(headersStallTimeout ?? defaultHeadersStallTimeout)
    }))
  }

  /** A message is about to be written. */
  #sent(message: Wire.Message): void {
    RemoteState.observeSent(this.#remote, message)
    if (message._tag === "ping") {
      this.pinger.sent(message)
      this.#tracker?.sent(message, this.#remoteNow())
    } else if (isRequest(message)) this.#openTracker().sent(message, this.#remoteNow())
  }

  #watchStalls(): void {
    if (this.#openRequests === 0) return
    if (this.#watchesStalls) return this.#asked?.wake()
    this.#watchesStalls = true
    this.lifecycle.fork(this.#stallWatch)
  }

  /** Looks every 15 s, while requests are open, whether one is overdue. */
  get #stallWatch(): Effect.Effect<never, EndReason> {
    const asked = (this.#asked = new WaitList(() => (this.#openRequests > 0 ? Effect.void : undefined)))
    return Effect.gen({ self: this }, function* () {
      while (true) {
        yield* asked.wait
        yield* Effect.sleep(stallCheckInterval)
        const late = this.#openTracker().overdue(this.#remoteNow())
        if (late?._tag === "Ping") yield* this.pinger.probe
        else if (late !== undefined) {
          const { command, hash, waited } = late
          return yield* Effect.fail<EndReason>({ _tag: "Stalled", command, hash, after: Duration.millis(waited) })
        }
      }
    })
  }

  /** Fails every caller that waits for the remote: for room in the send queue, for an answer, for a pong. */
  #failWaiting(reason: EndReason): void {
    // Made for the first caller: a peer that nobody waits for needs none.
    let made: PeerError | undefined
    const error = (): PeerError => (made ??= ended(reason))
    this.sendQueue.close(error)
    this.#requests?.fail(error())
    this.pinger.fail(error)
  }

  #disconnect(reason: EndReason): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { connection } = this.#link
      this.#link.release()
      this.dispatcher.clear()
      const reject =
        this.#policy.sendReject && this.info.remoteProtocolVersion >= ProtocolVersion.reject
          ? rejectFor(reason)
          : undefined
      // An observer (`onWrite`) that throws must not keep the connection open.
      return Effect.sync(() => void (reject !== undefined && this.#link.write([reject]))).pipe(
        Effect.ignoreCause,
        Effect.andThen(silentEnds.has(reason._tag) ? connection.destroy : connection.close)
      )
    })
  }
}

/** Makes a session after the handshake and forks its loops, which end with the scope of the context. */
export const startSession = <Self>(
  link: MessageConnection,
  rest: ReadonlyArray<Wire.ParserEvent>,
  negotiated: Handshake.Negotiated,
  options: SessionOptions & Handled<Self>,
  /** Makes of the session what callers and handlers get as the peer. */
  assemble: (session: Session<Self>) => Self
): Effect.Effect<Self, never, Nonce | Scope.Scope> =>
  Effect.contextWith((context: Context.Context<Nonce | Scope.Scope>) => {
    const nonces = Context.get(context, Nonce)
    const clock = Context.get(context, Clock.Clock)
    const info: Info = {
      ...negotiated,
      id: ++peersSoFar,
      localAddress: link.connection.localAddress,
      remoteAddress: link.connection.remoteAddress,
      network: options.network ?? Network.mainnet
    }
    const start = (observer: Observer, seed: bigint): Effect.Effect<Self> => {
      const session = new Session<Self>({
        link,
        info,
        options,
        nonces,
        now: () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6,
        lifecycle: new Lifecycle(Context.get(context, Scope.Scope)),
        observer,
        sendQueue: new SendQueue<PeerError>(options.maximumQueuedBytes ?? defaultMaximumQueuedBytes, (message) =>
          Result.mapError(link.encode(message), notSendable)
        ),
        seed: Number(BigInt.asIntN(32, seed)),
        assemble
      })
      return Effect.as(session.start(rest), session.peer)
    }
    return Effect.flatMap(Observer.make(info, link.traffic), (observer) =>
      Effect.flatMap(nonces.unremembered, (seed) => start(observer, seed))
    )
  })
