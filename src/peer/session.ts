/**
 * A connected peer at work: the loops that read, write, ping and announce, raced against each other, and the one end that
 * follows when the first of them ends.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Handshake from "../Handshake.ts"
import * as Inventory from "../Inventory.ts"
import * as Network from "../Network.ts"
import { Nonce } from "../Nonce.ts"
import * as Policy from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { makeAnnouncer } from "./announcer.ts"
import {
  ended,
  endOfConnection,
  endOfDropped,
  endOfMessage,
  isServed,
  reasonOf,
  rejectFor,
  servedBy
} from "./misbehavior.ts"
import { type Handled, HandlerOf, makeHandling } from "./dispatcher.ts"
import { ProtocolVersion } from "../wire/protocolVersion.ts"
import * as KeepAlive from "./keepAlive.ts"
import type { Link, Outgoing } from "../transport/messageConnection.ts"
import { makeOutbox, type Outbox } from "./sendQueue.ts"
import { makeObserver } from "./telemetry.ts"
import { type EndReason, notSendable, type PeerError } from "../PeerError.ts"
import { makePinging } from "./pinger.ts"
import {
  defaultDataStallTimeout,
  defaultHeadersStallTimeout,
  defaultIdleTimeout,
  defaultMaximumQueuedBytes,
  defaultPingInterval,
  defaultPingTimeout,
  type SessionOptions
} from "./options.ts"
import { type Info, snapshot, type Stats } from "./stats.ts"
import { Requests } from "./requests/requests.ts"
import { isRequest, RequestTracker } from "./requests/tracker.ts"
import { makeSenders } from "./sending.ts"
import { makeSubscribers, type Subscribers } from "./subscribers.ts"
import * as RemoteState from "./remoteState.ts"
import { WaitList } from "../primitives/waitList.ts"

const silentEnds: ReadonlySet<EndReason["_tag"]> = new Set([
  "PingTimeout",
  "IdleTimeout",
  "WriteTimeout",
  "Stalled"
] as const)
const stallCheckInterval = Duration.seconds(15)
// One write of small frames joined is 20 to 35 times faster than one by one; above some 64 KiB nothing more is won.
const maximumBatch = 256 * 1024
// Pongs need no room in the outbox: else two peers with full outboxes that ping each other would wait for ever. Whoever
// has so many unread ones is a flood, and is read no further until they are written.
const maximumPongs = 1000

/** What a message costs us beside its bytes: many small ones must not make the bound meaningless. */
const messageOverhead = 256
/** For the reader to come to the end that the writer has met. */
const writeFailureGrace = Duration.seconds(1)

/** Whether a scope, or one that it is part of, is being closed or was. */
const isClosing = (scope: Scope.Scope | undefined): boolean =>
  scope !== undefined && (scope.state._tag === "Closed" || isClosing(scope.parent))

/** Something that is made when it is first needed. */
interface Lazy<A> {
  readonly get: () => A
  readonly made: A | undefined
}

const once = <A>(make: () => A): Lazy<A> => {
  const self: { made: A | undefined; readonly get: () => A } = { made: undefined, get: () => (self.made ??= make()) }
  return self
}

/** The parts of a connected peer, of which `Peer` makes its service. */
export interface Session {
  readonly info: Info
  readonly stats: Effect.Effect<Stats>
  readonly encode: (message: Wire.Message) => Result.Result<Outgoing, PeerError>
  readonly outbox: Outbox<PeerError>
  readonly subscribers: Lazy<Subscribers>
  readonly senders: Lazy<ReturnType<typeof makeSenders>>
  readonly requests: Lazy<Requests>
  readonly handle: (handlers: object) => Effect.Effect<void>
  readonly announce: Announcer["announce"]
  readonly announceBlocks: Announcer["announceBlocks"]
  readonly ping: Effect.Effect<Duration.Duration, PeerError>
  /** Ends the peer for that reason, unless it has one already. */
  readonly stop: (reason: EndReason) => void
  readonly awaitShutdown: Effect.Effect<EndReason>
  readonly scope: Scope.Scope
}

type Announcer = ReturnType<typeof makeAnnouncer>

let peersSoFar = 0

/** Starts the loops; they end with the scope of the context. */
export const startSession = Effect.fnUntraced(function* <Self>(
  link: Link,
  rest: ReadonlyArray<Wire.ParserEvent>,
  negotiated: Handshake.Negotiated,
  options: SessionOptions & Handled<Self>,
  /** Makes of the parts what handlers get as the peer, before the first of them runs. */
  assemble: (session: Session) => Self
): Effect.fn.Return<Self, never, Nonce | Scope.Scope> {
  const { connection } = link
  const nonces = yield* Nonce
  const clock = yield* Clock.Clock
  const owner = yield* Effect.scope
  // Closing the owner ends the peer by this one; `scope` is closed at the end of the end.
  const guard = yield* Scope.fork(owner)
  const scope = yield* Scope.make()
  const now = (): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const policy = options.policy ?? Policy.core
  const network = options.network ?? Network.mainnet
  const pingTimeout = Duration.fromInputUnsafe(options.pingTimeout ?? defaultPingTimeout)
  const idleTimeout = Duration.fromInputUnsafe(options.idleTimeout ?? defaultIdleTimeout)
  const answersPings = negotiated.protocolVersion >= ProtocolVersion.pong

  const info: Info = {
    ...negotiated,
    id: ++peersSoFar,
    localAddress: connection.localAddress,
    remoteAddress: connection.remoteAddress,
    network
  }

  const observer = yield* makeObserver(info, link.traffic)
  const outbox = yield* makeOutbox<PeerError>(options.maximumQueuedBytes ?? defaultMaximumQueuedBytes)
  const shutdown = Deferred.makeUnsafe<EndReason>()
  const subscribers = once(makeSubscribers)
  const keepAlive = KeepAlive.make(
    {
      pingInterval: Duration.toMillis(options.pingInterval ?? defaultPingInterval),
      pingTimeout: Duration.toMillis(pingTimeout),
      idleTimeout: Duration.toMillis(idleTimeout)
    },
    now()
  )
  const knownInventory = options.knownInventory ?? Inventory.defaultKnownInventory
  const inventory = Inventory.make(knownInventory, Number(BigInt.asIntN(32, yield* nonces.unremembered)))
  // What few peers are asked for is made when first asked for: an idle peer is to be small.
  const tracker = once(
    () =>
      new RequestTracker({
        genesisHash: network.genesisHash,
        segwitHeight: network.segwitHeight ?? 0,
        answersPings,
        dataTimeout: Duration.toMillis(options.dataStallTimeout ?? defaultDataStallTimeout),
        headersTimeout: Duration.toMillis(options.headersStallTimeout ?? defaultHeadersStallTimeout)
      })
  )
  const openRequests = (): number => tracker.made?.size ?? 0
  const remoteNow = (): number => KeepAlive.remoteTime(keepAlive, now())
  /** Whether the stall watch runs, or is not to. */
  let watchesStalls = options.stalls === false
  const asked = new WaitList(() => (openRequests() > 0 ? Effect.void : undefined))
  const served = servedBy(policy, options.services ?? 0n, negotiated.protocolVersion)
  const { bloom } = served
  let end: EndReason | undefined
  let pongs = 0
  const remote = RemoteState.make({
    known: inventory.known,
    knownLimit: knownInventory,
    wtxidRelay: negotiated.wtxidRelay,
    relay: negotiated.relay,
    wantsHeaders: false
  })

  const encode = (message: Wire.Message): Result.Result<Outgoing, PeerError> =>
    Result.mapError(link.encode(message), notSendable)

  // ---- reading

  /** Answers a ping; an Effect when so many answers wait that this one has to be waited for. */
  const pong = ({ nonce }: Wire.Ping): Effect.Effect<void> | undefined => {
    if (nonce === undefined || !answersPings) return undefined
    const encoded = encode({ _tag: "pong", nonce })
    if (pongs >= maximumPongs) return Effect.ignore(outbox.offerAndWait(() => encoded))
    pongs++
    if (Result.isSuccess(encoded)) outbox.force(encoded.success, () => void pongs--)
    return undefined
  }

  /** Why nothing more comes, while what came is still being handled. */
  let over: EndReason | undefined
  let handles = false
  const isAsked = (): boolean => pinging.open() + (requests.made?.open ?? 0) > 0
  const handling = makeHandling({
    options,
    policy,
    traffic: link.traffic,
    subscribers,
    scope,
    peer: () => peer,
    pong,
    isAsked,
    isEnded: () => end !== undefined,
    over: () => over
  })

  /** What the messages mean to the peer itself; then they wait for their handlers. */
  const receive = Effect.fnUntraced(function* (
    events: ReadonlyArray<Wire.ParserEvent>
  ): Effect.fn.Return<void, EndReason> {
    // It stands still until we read again: the same for the whole batch.
    const arrivedAt = remoteNow()
    const messages: Array<Wire.Message> = []
    let bytes = 0
    let failure: EndReason | undefined
    // A pong comes behind the answers to what was asked before, as it does in Core, for it says that these are all. Only
    // while a handler waits for an answer itself it must not wait for that handler, or two peers could wait for each other.
    const pongs = handling.isIdle()
    observer.count()
    for (const event of events) {
      if (event._tag === "Dropped") {
        if (observer.dropped !== undefined) yield* observer.dropped(event.error)
        failure = endOfDropped(event.error, bloom)
      } else {
        const { message } = event
        if (observer.log !== undefined) yield* observer.log("received", message, event.size)
        failure = endOfMessage(message, served)
        if (failure === undefined && isServed(Wire.command(message), bloom)) {
          const hashes = RemoteState.observe(remote, message)
          failure = tracker.made?.received(message, hashes, arrivedAt)
          if (failure !== undefined) break
          if (message._tag === "pong") pinging.ponged(message)
          const waiting = message._tag === "ping" && !pongs ? pong(message) : undefined
          if (waiting !== undefined) yield* waiting
          bytes += event.size + messageOverhead
          messages.push(message)
        }
      }
      if (failure !== undefined) break
    }
    if (isReadonlyArrayNonEmpty(messages)) {
      handling.add({ messages, bytes, pongs })
      // Now, for most peers of a crawler never get here.
      if (!handles) {
        handles = true
        start(handling.loop)
      }
    }
    const unreadable = failure === undefined ? link.failure() : undefined
    if (unreadable !== undefined) failure = { _tag: "BadMessage", error: unreadable }
    if (failure !== undefined) return yield* finish(failure)
  })

  /** Nothing more comes: nobody waits for answers any more, what came before is handled, then this is the end. */
  const finish = (reason: EndReason): Effect.Effect<never, EndReason> =>
    Effect.suspend(() => {
      over ??= reason
      const error = ended(over)
      outbox.close(error)
      giveUp(error)
      return Effect.andThen(handling.idle, Effect.fail(over))
    })

  const giveUp = (error: PeerError): void => {
    requests.made?.fail(error)
    pinging.end(error)
  }

  let batchesRead = 0
  const reader = Effect.gen(function* () {
    let events = rest
    while (true) {
      KeepAlive.received(keepAlive, now())
      batchesRead++
      yield* receive(events)
      // A remote that does not answer, and floods us meanwhile, is not our being busy.
      if (!handling.canRead()) {
        if (isAsked()) KeepAlive.reading(keepAlive, now())
        yield* handling.mayRead
      }
      KeepAlive.reading(keepAlive, now())
      events = yield* Effect.catch(link.read, (error) => finish(endOfConnection(error)))
    }
  })

  // ---- writing

  const writer = Effect.gen(function* () {
    while (true) {
      const entries = yield* Queue.takeAll(outbox.queue)
      for (let from = 0; from < entries.length;) {
        let to = from
        let size = 0
        do size += entries[to++]!.outgoing.frame.length
        while (to < entries.length && size + entries[to]!.outgoing.frame.length <= maximumBatch)
        const batch = entries.slice(from, to)
        for (const { outgoing } of batch) {
          RemoteState.observeSent(remote, outgoing.message)
          if (isRequest(outgoing.message)) tracker.get().sent(outgoing.message, remoteNow())
          else if (outgoing.message._tag === "ping") tracker.made?.sent(outgoing.message, remoteNow())
        }
        if (openRequests() > 0) {
          if (watchesStalls) asked.wake()
          else {
            watchesStalls = true
            start(stallWatch)
          }
        }
        if (observer.log !== undefined) {
          for (const { outgoing } of batch) yield* observer.log("sent", outgoing.message, outgoing.frame.length)
        }
        const waits = link.writeFrames(batch.map(({ outgoing }) => outgoing))
        observer.count()
        const drained = Effect.catch(connection.drained, (error) => noLongerWritten(endOfConnection(error)))
        // Usually nothing waits; where something does, a remote that takes nothing for too long is ended.
        yield* waits === 0 ? drained : Effect.timeoutOrElse(drained, { duration: idleTimeout, orElse: writeTimeout })
        if (link.room !== undefined) yield* link.room
        outbox.release(batch)
        from = to
      }
    }
  })

  const writeTimeout = (): Effect.Effect<never, EndReason> => Effect.fail({ _tag: "WriteTimeout", after: idleTimeout })

  /**
   * Writing failed, but what the remote sent before is still to be read and handled: the reader comes to the same end. Only
   * if it does not, and has nothing to do, this is it.
   */
  const noLongerWritten = (reason: EndReason): Effect.Effect<never, EndReason> =>
    Effect.gen(function* () {
      over ??= reason
      outbox.close(ended(over))
      while (true) {
        const before = batchesRead
        yield* handling.idle
        yield* Effect.sleep(writeFailureGrace)
        if (handling.isIdle() && batchesRead === before) return yield* Effect.fail(over)
      }
    })

  // ---- announcing

  const { announce, announceBlocks, trickler } = makeAnnouncer({
    inventory,
    trickle: options.trickle ?? Inventory.defaultTrickle(negotiated.direction),
    remote,
    outbox,
    encode,
    now,
    ended: () => end && ended(end)
  })

  // ---- keeping alive

  const pinging = makePinging({
    keepAlive,
    pingTimeout,
    idleTimeout,
    protocolVersion: negotiated.protocolVersion,
    nonces,
    outbox,
    encode,
    now,
    observer,
    onAsk: handling.letRead
  })

  // ---- asking

  const requests = once(
    () =>
      new Requests({
        tracker: tracker.get(),
        send: (message) => outbox.offer(() => encode(message)),
        force: (message) => {
          const encoded = encode(message)
          if (Result.isSuccess(encoded)) outbox.force(encoded.success)
        },
        sendPing: answersPings ? pinging.send : Effect.void,
        protocolVersion: negotiated.protocolVersion,
        services: negotiated.services,
        onAsk: handling.letRead
      })
  )
  const senders = once(() => makeSenders({ encode, negotiated, outbox, policy }))

  const stallWatch = Effect.gen(function* () {
    while (true) {
      yield* asked.wait
      yield* Effect.sleep(stallCheckInterval)
      const late = tracker.get().overdue(remoteNow())
      if (late?._tag === "Ping") yield* pinging.send
      else if (late !== undefined) {
        const { command, hash, waited } = late
        return yield* Effect.fail<EndReason>({ _tag: "Stalled", command, hash, after: Duration.millis(waited) })
      }
    }
  })

  // ---- the end

  /** The first loop that ends says why. At once, so that a handler that cannot be interrupted still gets its answers. */
  const beginEnd = (exit: Exit.Exit<never, EndReason>): EndReason => {
    if (end === undefined) {
      // Once nothing more comes that is the reason, and some were told so, whatever happens until all is handled.
      end = over ?? reasonOf(exit)
      const error = ended(end)
      outbox.close(error)
      giveUp(error)
      subscribers.get().end()
    }
    return end
  }

  const teardown = (exit: Exit.Exit<never, EndReason>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const reason = beginEnd(exit)
      link.release()
      handling.clear()
      const reject =
        policy.sendReject && negotiated.remoteProtocolVersion >= ProtocolVersion.reject ? rejectFor(reason) : undefined
      // An observer that throws must not keep the connection open.
      return Effect.sync(() => void (reject !== undefined && link.write([reject]))).pipe(
        Effect.ignoreCause,
        Effect.andThen(silentEnds.has(reason._tag) ? connection.destroy : connection.close),
        Effect.andThen(link.endRecording),
        Effect.andThen(Scope.close(scope, Exit.void)),
        Effect.andThen(observer.ended(reason))
      )
    }).pipe(
      Effect.ensuring(
        Effect.suspend(() => {
          Deferred.doneUnsafe(shutdown, Effect.succeed(end!))
          return Scope.close(guard, Exit.void)
        })
      )
    )

  const stats = Effect.sync(() =>
    snapshot(info, link.traffic, keepAlive, {
      feeFilter: remote.feeFilter,
      lastBlockAnnounced: remote.lastBlockAnnounced,
      lastBlockReceived: remote.lastBlockReceived,
      knownInventory: inventory.known.size,
      waitingAnnouncements: inventory.waiting.length,
      openRequests: openRequests(),
      queuedMessages: outbox.length(),
      queuedBytes: outbox.bytes()
    })
  )

  const awaitShutdown = Effect.suspend(() => {
    // Whoever asks while `scope` is closing is part of what is being closed: it must not wait for itself.
    if (end !== undefined && scope.state._tag === "Closed") return Effect.succeed(end)
    // A finalizer that was added after the peer runs before the peer's own: waiting alone, it would wait for ever.
    if (isClosing(owner)) stop({ _tag: "ScopeClosed" })
    return Deferred.await(shutdown)
  })

  const peer = assemble({
    info,
    stats,
    encode,
    outbox,
    subscribers,
    senders,
    requests,
    handle: handling.handle,
    announce,
    announceBlocks,
    ping: pinging.ping,
    stop: (reason) => stop(reason),
    awaitShutdown,
    scope
  })

  // ---- the loops

  const fibers = new Set<Fiber.Fiber<unknown, unknown>>()
  let run: (loop: Effect.Effect<never, EndReason>) => Fiber.Fiber<never, EndReason>
  let endLoops = (exit: Exit.Exit<never, EndReason>): void => void beginEnd(exit)

  /** The first loop to end, in whatever way, ends the peer. */
  const start = (loop: Effect.Effect<never, EndReason>): void => {
    // Who is told of an answer may end the peer in the middle of a batch: nobody would end what is started then.
    if (end !== undefined) return
    const fiber = run(
      // Known before its first step, which may be to end the peer.
      Effect.withFiber((fiber) => {
        fibers.add(fiber)
        return loop
      })
    )
    fiber.addObserver((exit) => {
      fibers.delete(fiber)
      endLoops(exit)
    })
  }
  const stop = (reason: EndReason): void => endLoops(Exit.fail(reason))

  const loops: Effect.Effect<void> = Effect.contextWith((context: Context.Context<never>) => {
    run = Effect.runForkWith(context)
    return Effect.callback<Exit.Exit<never, EndReason>>((resume) => {
      if (end !== undefined) return resume(Effect.succeed(Exit.fail(end)))
      endLoops = (exit) => {
        beginEnd(exit)
        resume(Effect.succeed(exit))
      }
      for (const loop of [reader, writer, pinging.pinger, trickler]) start(loop)
    })
  }).pipe(Effect.flatMap((exit) => Effect.andThen(Fiber.interruptAll([...fibers]), teardown(exit))))

  // Nothing forked into a closed scope would ever run, not even its end.
  if (isClosing(owner)) yield* teardown(Exit.interrupt())
  else {
    yield* Scope.addFinalizer(
      guard,
      Effect.withFiber((fiber) => {
        stop({ _tag: "ScopeClosed" })
        // A handler that closes the scope of its peer is itself waited for, and so may be the fibers that it has forked.
        return Context.get(fiber.context, HandlerOf) === scope ? Effect.void : Deferred.await(shutdown)
      })
    )
    yield* Effect.forkDetach(observer.within(loops), { startImmediately: true })
  }
  return peer
})
