/**
 * The fibers of a server: one dials what the registry asks for, one runs each attempt or peer, one accepts on each listener. Each reports its
 * result to the registry.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import { SecureRandom } from "effect/crypto"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberMap from "effect/FiberMap"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { Take } from "effect/Take"
import * as Address from "../../Address.ts"
import type { Connection, Endpoint } from "../../Connection.ts"
import * as Nonce from "../../Nonce.ts"
import * as Peer from "../../Peer.ts"
import type * as PeerServer from "../../PeerServer.ts"
import { sipKey } from "../../primitives/siphash.ts"
import * as Wire from "../../Wire.ts"
import * as AddressBook from "../AddressBook.ts"
import * as Asmap from "../Asmap.ts"
import * as BanList from "../BanList.ts"
import * as ChainViews from "../ChainView.ts"
import { kinds } from "../ConnectionKind.ts"
import { Dialer, formatTarget, isName, type NetworkName, networkNameOf } from "../Dialer.ts"
import * as LocalAddresses from "../LocalAddresses.ts"
import { forManual } from "../Permissions.ts"
import { Reputation } from "../Reputation.ts"
import * as Reputations from "../Reputation.ts"
import * as Seeds from "../Seeds.ts"
import { Duplicate, type ServerEvent } from "../ServerEvent.ts"
import * as Store from "../Store.ts"
import { AddressRelay } from "./addressRelay.ts"
import { isBadPort } from "./badPorts.ts"
import { watchChain } from "./chainWatch.ts"
import { Conduct } from "./conduct.ts"
import { addressOf, defectOf, endOf, type Failure, failureOf } from "./ends.ts"
import { findFirstPeers } from "./firstPeers.ts"
import { Inbound } from "./inbound.ts"
import { type ConnectedPeer, DialError, type Options, ServerError } from "./model.ts"
import { checked } from "./options.ts"
import { Persistence } from "./persistence.ts"
import { groupKey } from "./keys.ts"
import { bytesOf, makeRandom } from "./random.ts"
import { desirable, type Entry, Registry } from "./registry.ts"
import { Relaying } from "./relaying.ts"
import { TimeOffsets } from "./timeOffsets.ts"
import { Connections, makeRunning, networkOf, type Pool, type Running } from "./running.ts"
import { makeService, type Waiter } from "./service.ts"

/** Events that wait for a reader; a slower one misses the oldest. */
const eventCapacity = 1_024
/** Events that a new reader gets first: the start of a server is over before anyone can subscribe. */
const replayedEvents = 64
/** The least time between two calls of the registry, in milliseconds. */
const askInterval = 50
/** Nonces are remembered for this many handshakes more than run at once. */
const spareNonces = 64
/** The most of these nonces for added nodes. */
const mostNonces = 10_000
/** How long the peers have to end with the server. Each of them takes a second at most. */
const longestEnd = Duration.seconds(5)
/** The pause before a loop of the server starts again after a defect. */
const pauseAfterDefect = Duration.seconds(5)
/** How long a seed may take to send addresses. */
const addrFetchTimeout = Duration.minutes(5)
/** How much of the book an answer to `getaddr` has at most. */
const answerPercent = 23

/** A connection as the table of our own addresses sees it. */
const remoteOf = (one: Running): LocalAddresses.Remote => ({
  host: one.connected!.address,
  network: networkOf(one),
  isInbound: one.entry.kind === "inbound",
  says: one.addressLocal
})

export const run = Effect.fnUntraced(function* <H extends Peer.Handlers<unknown>, R>(options: Options<H, R>) {
  const settings = yield* checked(options)
  const { maxInbound, maxPending, network, pendingDials } = settings
  const dialer = yield* Dialer
  for (const name of options.onlyNetworks ?? []) {
    if (dialer.ways.has(name)) continue
    const problem = `onlyNetworks: the dialer has no way to ${name}`
    return yield* new ServerError({ reason: { _tag: "BadOptions", problem } })
  }
  const chain = yield* ChainViews.ChainView
  const clock = yield* Clock.Clock
  const now = (): number => clock.currentTimeMillisUnsafe()
  const random = makeRandom(settings.randomKey)
  const secret = (): Uint8Array => bytesOf(random, 16)
  const requiredServices = options.requiredServices ?? desirable
  /** One service of each mask: NETWORK and WITNESS by default. */
  const desirableServices = requiredServices.reduce((all, mask) => all | (mask & -mask), 0n)

  const events = yield* PubSub.sliding<Take<ServerEvent>>({ capacity: eventCapacity, replay: replayedEvents })
  const emit = (event: ServerEvent): void => void Effect.runSync(PubSub.publish(events, [event]))
  let hasEnded = false
  // The last finalizer to run: the save of the files is an event, too.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      hasEnded = true
      return PubSub.publish(events, Exit.void)
    })
  )
  const given = {
    book: yield* Effect.serviceOption(AddressBook.AddressBook),
    bans: yield* Effect.serviceOption(BanList.BanList),
    local: yield* Effect.serviceOption(LocalAddresses.LocalAddresses),
    seeds: yield* Effect.serviceOption(Seeds.Seeds),
    store: yield* Effect.serviceOption(Store.Store)
  }
  const secure = SecureRandom.make((size) => bytesOf(random, size))
  const bans = Option.isSome(given.bans)
    ? given.bans.value
    : yield* Effect.provideService(BanList.make(), SecureRandom.SecureRandom, secure)
  const store = Option.getOrElse(given.store, Store.makeMemory)
  const persistence = new Persistence({ store, network, bans, emit, now })
  yield* persistence.loadBans
  const { asmap } = options
  const systemOf = asmap === undefined ? undefined : Asmap.groups(asmap)
  const book = Option.isSome(given.book)
    ? given.book.value.book
    : yield* persistence.loadBook({ network, random, groupOf: systemOf, asmapVersion: asmap?.version })
  const groupOf = (host: Address.Host): string => groupKey(host, systemOf)

  // It closes before the peers end: nobody comes in meanwhile.
  const listening = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Scope.close(listening, exit))
  const listeners: Array<{ readonly listener: PeerServer.Listener; readonly pool: Pool; readonly address?: Endpoint }> =
    []
  for (const { bind, ...pool } of settings.binds) {
    const listener = yield* Effect.mapError(
      Scope.provide(bind.listen, listening),
      (error) => new ServerError({ reason: { _tag: "ListenFailed", error } })
    )
    listeners.push({ listener, pool, ...(listener.address !== undefined && { address: listener.address }) })
  }
  const local = Option.isSome(given.local)
    ? given.local.value
    : yield* LocalAddresses.make({
        port: listeners[0]?.address?.port ?? network.port,
        listens: listeners.length > 0,
        external: settings.external,
        discovers: options.discover,
        networks: dialer.ways
      }).pipe(
        Effect.provideService(SecureRandom.SecureRandom, secure),
        Effect.mapError(({ message }) => new ServerError({ reason: { _tag: "BadOptions", problem: message } }))
      )

  const asked = yield* Latch.make()
  /** Asks the registry again: something changed. */
  const wake = (): void => void asked.openUnsafe()

  const reachable = new Set<NetworkName>([...dialer.ways].filter((way) => options.onlyNetworks?.includes(way) ?? true))
  if (options.allowUnroutable === true) reachable.add("not_publicly_routable")
  const registry = new Registry({
    limits: {
      fullRelay: settings.fullRelay,
      blockRelay: settings.blockRelay,
      manual: settings.maxManual,
      feelers: !settings.isConnectOnly && (options.feelers ?? true),
      pendingDials,
      dialsPerSecond: settings.dialRate.perSecond,
      dialBurst: settings.dialRate.burst
    },
    random,
    book,
    reachable,
    groupOf,
    isAllowed: (address, at) => !local.has(address) && !bans.has(address, at) && !bans.isDiscouraged(address),
    isBadPort,
    requiredServices,
    emit: (event) =>
      emit(
        event._tag === "AddedUnreachable"
          ? { _tag: "Warning", message: `the added node ${formatTarget(event.target)} is not dialled: ${event.why}` }
          : event
      )
  })
  for (const target of settings.added) registry.added.add(target, now())
  const { added, maxManual } = settings
  if (added.length > maxManual) {
    const message = `${added.length} nodes are added, of which ${maxManual} can be connected at one time: the others wait for their turn`
    emit({ _tag: "Warning", message })
  }
  for (const { services, ...address } of settings.isConnectOnly ? [] : yield* persistence.takeAnchors) {
    registry.anchors.push({ address, services, lastTry: 0 })
  }

  const nonces = yield* Effect.provide(
    Nonce.Nonce,
    Nonce.layerWith({ capacity: pendingDials + maxPending + Math.min(settings.maxManual, mostNonces) + spareNonces })
  )
  /** Block-relay peers: others cannot learn of them, so they are dialled first after a restart. */
  const anchors = (): ReadonlyArray<Wire.AddressV2> =>
    connections.peers.flatMap(({ address, kind, peer }) =>
      kind === "block-relay-only"
        ? [{ ...address, services: peer.info.services, timestamp: Math.floor(now() / 1_000) }]
        : []
    )
  let lastAnchors: ReadonlyArray<Wire.AddressV2> | undefined
  // The scope closes in the reverse order: attempts and peers end, and then the files are saved.
  // Without block-relay peers, the anchors of another run stay as they are.
  yield* persistence.run(book, () => (settings.isConnectOnly ? undefined : (lastAnchors ?? anchors())))
  const tasks = yield* FiberSet.make()
  const fork = yield* FiberSet.runtime(tasks)<never>()
  const runFork = (effect: Effect.Effect<unknown>): void => void fork(effect)
  const lives = yield* Scope.make()
  // An `onPeer` or a dialer that does not let itself be interrupted must not keep the files from being saved.
  yield* Effect.addFinalizer((exit) =>
    Effect.flatMap(Effect.forkDetach(Scope.close(lives, exit)), (closing) =>
      Effect.ignore(Effect.timeout(Effect.interruptible(Fiber.await(closing)), longestEnd))
    )
  )
  const fibers = yield* Scope.provide(FiberMap.make<number>(), lives)
  const connections = new Connections((id) => FiberMap.remove(fibers, id))
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      connections.haveEnded = true
      connections.changed()
    })
  )
  const conduct = new Conduct({
    connections,
    bans,
    reputation: new Reputation(options.reputation ?? Reputations.core),
    emit,
    runFork,
    offersBloom: ((options.peer?.services ?? 0n) & Wire.Service.bloom) !== 0n,
    now
  })
  yield* Effect.addFinalizer(() => Effect.sync(conduct.stop))
  const inbound = new Inbound({
    connections,
    bans,
    whitelist: settings.whitelist,
    maxInbound,
    maxPending,
    evictionKey: sipKey(secret()),
    groupOf
  })
  /** The answer to `getaddr` is the same for all peers of a network that came in at the same address of ours. */
  const requesterOf = (id: number): AddressBook.Requester => {
    const one = connections.get(id)
    const local = one?.connected?.peer.info.localAddress
    return {
      network: one === undefined ? "not_publicly_routable" : networkOf(one),
      bind: local === undefined ? "" : `${local.host}:${local.port}`
    }
  }
  const relaying = new Relaying({
    relay: new AddressRelay({
      random,
      key: sipKey(secret()),
      isReachable: (host) => reachable.has(networkNameOf(host)),
      isRefused: (host, at) => bans.has(host, at) || bans.isDiscouraged(host),
      store: (entries, source, penalty) => {
        if (book.add(entries, source, now(), penalty / 1_000) === 0) return
        registry.bookChanged()
        wake()
      },
      answer: (peer, at) =>
        peer.permissions.has("addr")
          ? book.getAddresses(at, { maximum: Wire.maxAddresses, percent: answerPercent })
          : book.answer(requesterOf(peer.id), at, (address) => bans.has(address, at) || bans.isDiscouraged(address)),
      ownAddress: ({ id }) => {
        const one = connections.get(id)
        return one === undefined ? undefined : Option.getOrUndefined(local.bestFor(remoteOf(one)))
      },
      ownServices: options.peer?.services ?? 0n,
      announces: () => listeners.length > 0 && chain?.isInitialSync() !== true,
      desirableServices
    }),
    connections,
    conduct,
    runFork,
    now
  })

  const offsets = new TimeOffsets()

  // ---- one connection

  const observe = (one: Running, event: Wire.ParserEvent): void => {
    options.peer?.onRead?.(event)
    if (event._tag === "Dropped") return
    const { message } = event
    if (message._tag === "version") {
      const host = Address.fromBytes(message.receiver.address)
      if (host !== undefined && Address.isValid(host)) one.addressLocal = { ...host, port: message.receiver.port }
    } else {
      conduct.received(one, message)
      if (!settings.isFleet) relaying.received(one, message)
    }
  }

  const peerOptions = (one: Running, services: bigint | undefined): Peer.Options<H> => {
    const rules = kinds[one.entry.kind]
    return {
      ...options.peer,
      network,
      handlers: options.handlers,
      onRead: (event) => observe(one, event),
      remoteServices: services,
      relay: rules.relaysTransactions && (options.peer?.relay ?? true),
      requiredServices: rules.needsServices ? requiredServices : []
    }
  }

  /** From the handshake to the end. */
  const attend = (one: Running, peer: Peer.Peer): Effect.Effect<Peer.EndReason, never, Scope.Scope | R> => {
    const { entry } = one
    const { id, kind, target } = entry
    if (one.ticket !== undefined) inbound.gate.settled(one.ticket)
    registry.ready(id, peer.info.services, now())
    // Behind a resolving proxy the address of a name is unknown.
    const address = entry.address ?? addressOf(peer.info.remoteAddress)
    if (kind === "manual") one.permissions = forManual(address, settings.whitelist)
    const { permissions } = one
    const connected: ConnectedPeer = { id, kind, peer, target, address, permissions, connectedAt: now() }
    connections.connected(one, connected)
    if (one.addressLocal !== undefined) local.seen(remoteOf(one))
    if (kind !== "inbound") {
      const before = offsets.warning
      offsets.add(Duration.toSeconds(peer.info.timeOffset))
      const { warning } = offsets
      if (warning !== undefined && before === undefined) emit({ _tag: "Warning", message: warning })
    }
    const { services, transport, userAgent } = peer.info
    emit({ _tag: "Ready", id, kind, target, userAgent, services, transport })
    wake()
    connections.changed()
    if (one.waiter !== undefined) Deferred.doneUnsafe(one.waiter, Effect.succeed(connected))
    if (kind === "feeler") return Effect.andThen(peer.disconnect("the address answers"), peer.awaitShutdown)
    const evicted = kind === "inbound" ? inbound.overTransactionShare(one) : undefined
    if (evicted !== undefined) evict(evicted, id)
    if (kind === "addr-fetch") runFork(Effect.delay(connections.end(one, "it sent no addresses"), addrFetchTimeout))
    const greeted =
      !settings.isFleet && relaying.ready(one) ? Effect.ignore(peer.send({ _tag: "getaddr" })) : Effect.void
    // The next ping comes after two minutes; peers are compared by their round trips from now on.
    runFork(Effect.ignore(peer.ping))
    const { onPeer } = options
    const attended =
      onPeer === undefined
        ? peer.awaitShutdown
        : Effect.raceFirst(
            Effect.andThen(
              Effect.ignoreCause(
                Effect.suspend(() => onPeer(connected)),
                { log: "Debug", message: "onPeer failed" }
              ),
              Effect.never
            ),
            peer.awaitShutdown
          )
    return Effect.andThen(greeted, attended)
  }

  const evict = (id: number, by: number | undefined): void => {
    const one = connections.get(id)
    if (one === undefined) return
    emit({ _tag: "Evicted", id, by })
    runFork(connections.end(one, { _tag: "Evicted", why: "another peer needs its slot" }))
  }

  const finished = (one: Running, exit: Exit.Exit<Peer.EndReason, Failure>): void => {
    const { id, kind, readyAt, target } = one.entry
    if (one.ticket !== undefined) inbound.gate.settled(one.ticket)
    relaying.ended(id)
    const error = Exit.isFailure(exit) ? failureOf(exit.cause) : undefined
    if (Exit.isSuccess(exit)) {
      const reason = exit.value
      const assessment = Peer.assess(reason)
      emit({ _tag: "Ended", id, kind, target, reason, assessment, age: now() - (readyAt ?? now()) })
    } else if (error !== undefined) emit({ _tag: "DialFailed", id, kind, target, error })
    else if (!Cause.hasInterrupts(exit.cause)) {
      emit({
        _tag: "Warning",
        message: `the connection with ${formatTarget(target)} has failed: ${defectOf(exit.cause)}`
      })
    }
    connections.delete(id)
    registry.ended(id, endOf(exit), now())
    if (one.waiter !== undefined) {
      const failed = new DialError({ target: formatTarget(target), error: error ?? "ended" })
      Deferred.doneUnsafe(one.waiter, Effect.fail(failed))
    }
    wake()
    connections.changed()
    // The last: listeners of the ban list are not ours, and a defect of theirs costs no slot.
    if (Exit.isSuccess(exit)) conduct.judge(one, Peer.assess(exit.value), Peer.describeEnd(exit.value))
  }

  /** Runs an attempt or a peer to its end, and gives its slot back. */
  const start = (
    one: Running,
    body: Effect.Effect<Peer.EndReason, Failure, Scope.Scope | Nonce.Nonce | Peer.HandlerServices<H> | R>
  ) => {
    connections.set(one.entry.id, one)
    return FiberMap.run(
      fibers,
      one.entry.id,
      Effect.onExit(Effect.scoped(Effect.provideService(body, Nonce.Nonce, nonces)), (exit) =>
        Effect.sync(() => finished(one, exit))
      )
    )
  }

  // ---- outbound

  const waiters = new Map<number, Waiter>()
  const failWaiters = (error: "ended" | "inactive"): void => {
    for (const [id, { deferred, target }] of waiters) {
      registry.withdraw(id)
      Deferred.doneUnsafe(deferred, Effect.fail(new DialError({ target: formatTarget(target), error })))
    }
    waiters.clear()
  }

  const dial = (entry: Entry, services: bigint | undefined) => {
    const one = makeRunning(entry, { waiter: waiters.get(entry.id)?.deferred })
    waiters.delete(entry.id)
    const { id, kind, target } = entry
    emit({ _tag: "Dialing", id, kind, target })
    const dialled = Effect.tap(dialer.dial(target, kind), ({ remoteAddress: { host, port } }) => {
      const found = isName(target) ? Address.parseHost(host) : undefined
      return found === undefined || Result.isFailure(found) || registry.resolved(id, { ...found.success, port })
        ? Effect.void
        : Effect.fail(new Duplicate({ address: `${host}:${port}` }))
    })
    const connect = Effect.suspend(() =>
      registry.isDuplicate(id) ? Effect.fail(new Duplicate({ address: formatTarget(target) })) : dialled
    )
    return start(
      one,
      Effect.flatMap(Peer.dial(connect, peerOptions(one, services)), (peer) => attend(one, peer))
    )
  }

  const planner = Effect.gen(function* () {
    while (true) {
      asked.closeUnsafe()
      const action = registry.next(now())
      if (action._tag === "Dial") yield* dial(action.entry, action.services)
      else {
        const wait = action.until - now()
        yield* Number.isFinite(wait) ? Effect.raceFirst(asked.await, Effect.sleep(Math.max(wait, 0))) : asked.await
        yield* Effect.sleep(askInterval)
      }
    }
  })

  // ---- inbound

  const accept = (connection: Connection, scope: Scope.Closeable, pool: Pool) => {
    const address = addressOf(connection.remoteAddress)
    const permissions = inbound.permissionsOf(address, pool)
    const admission = inbound.arrived(address, pool, permissions, registry.isActive, now())
    if (admission._tag === "Refuse") {
      const { log, step, unlogged } = admission
      if (log) emit({ _tag: "Refused", host: connection.remoteAddress.host, step, unlogged })
      return Effect.andThen(connection.destroy, Scope.close(scope, Exit.void))
    }
    const entry = registry.accept(address, now())
    if (admission._tag === "AdmitByEvicting") evict(admission.evict, entry.id)
    const { isDiscouraged, ticket } = admission
    const one = makeRunning(entry, { pool, permissions, ticket, isDiscouraged })
    emit({ _tag: "Accepted", id: entry.id, host: connection.remoteAddress.host, port: connection.remoteAddress.port })
    const made = Peer.make(connection, { ...peerOptions(one, undefined), direction: "inbound" })
    return start(
      one,
      Effect.onExit(
        Effect.flatMap(made, (peer) => attend(one, peer)),
        (exit) => Scope.close(scope, exit)
      )
    )
  }

  const acceptAll = (listener: PeerServer.Listener, pool: Pool) => {
    const acceptOne = Effect.uninterruptibleMask((restore) => {
      const scope = Scope.makeUnsafe()
      return restore(Scope.provide(listener.accept, scope)).pipe(
        Effect.flatMap((connection) => accept(connection, scope, pool)),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
    })
    return Effect.catch(Effect.forever(acceptOne, { disableYield: true }), (error) =>
      Effect.sync(() => emit({ _tag: "Warning", message: `a listener has failed: ${error.message}` }))
    )
  }
  // The first of these to run at the end: the peers are still there.
  yield* Effect.addFinalizer((exit) =>
    Effect.suspend(() => {
      lastAnchors = anchors()
      registry.setActive(false, now())
      failWaiters("ended")
      return Scope.close(listening, exit)
    })
  )
  /** Reports a defect of a loop, such as one of a service of the caller, as a warning and starts the loop again. */
  const supervised = <R>(name: string, loop: Effect.Effect<void, never, R>): Effect.Effect<void, never, R> =>
    Effect.catchDefect(loop, (defect) => {
      emit({ _tag: "Warning", message: `${name} has failed: ${defectOf(Cause.die(defect))}` })
      return Effect.andThen(Effect.sleep(pauseAfterDefect), supervised(name, loop))
    })
  for (const { listener, pool } of listeners)
    yield* Effect.forkScoped(supervised("a listener", acceptAll(listener, pool)))
  yield* Effect.forkScoped(supervised("the address relay", relaying.loop))
  yield* Effect.forkScoped(supervised("the dial planner", planner))
  const chainParts = { limits: settings, connections, registry, emit, runFork, wake, now }
  if (chain !== undefined) yield* Effect.forkScoped(supervised("the chain watch", watchChain(chain, chainParts)))
  if (!settings.isConnectOnly) {
    const first = findFirstPeers({
      network,
      seedNodes: options.seedNodes ?? [],
      seeds: Option.getOrUndefined(given.seeds),
      fixedSeeds: options.fixedSeeds ?? true,
      services: desirableServices,
      reachable,
      registry,
      book,
      random,
      emit,
      wake,
      now
    })
    yield* Effect.forkScoped(supervised("the search for first addresses", first))
  }

  return makeService({
    options,
    settings,
    registry,
    connections,
    bans,
    book,
    persistence,
    local,
    offsets,
    asmap,
    conduct,
    relaying,
    events,
    hasEnded: () => hasEnded,
    dialer,
    reachable,
    waiters,
    failWaiters,
    wake,
    now
  })
})
