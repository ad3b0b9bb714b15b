/**
 * The fibers of a server: one that asks the registry what to dial, one for each attempt or peer, and one for each listener. They do what the
 * registry decides, and tell it how it went.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Address from "../../Address.ts"
import type { Connection } from "../../Connection.ts"
import { ConnectionError } from "../../ConnectionError.ts"
import { HandshakeError } from "../../HandshakeError.ts"
import * as Handshake from "../../Handshake.ts"
import * as Network from "../../Network.ts"
import * as Nonce from "../../Nonce.ts"
import * as Peer from "../../Peer.ts"
import * as Wire from "../../Wire.ts"
import { kinds } from "../ConnectionKind.ts"
import { Dialer, formatTarget, isName, type NetworkName, networkNameOf, type Target, Unreachable } from "../Dialer.ts"
import { NetworkInfo } from "../NetworkInfo.ts"
import * as PeerInfo from "../PeerInfo.ts"
import { Duplicate, type ServerEvent } from "../ServerEvent.ts"
import { targetKey } from "./backoff.ts"
import { addressKey } from "./keys.ts"
import { type Bind, type ConnectedPeer, DialError, type Options, type Server, ServerError } from "./model.ts"
import { makeRandom } from "./random.ts"
import { desirable, type End, type Entry, Registry } from "./registry.ts"
import { parseTarget } from "./targets.ts"

/** Events that wait for a reader; a slower one misses the oldest. */
const eventCapacity = 1_024
/** The registry is asked at most once in this time. */
const askInterval = 50
/** Nonces are remembered for this many handshakes more than run at once. */
const spareNonces = 64

type Failure = ConnectionError | Duplicate | HandshakeError | Unreachable

/** A connection, with what its fiber and its waiting caller need. */
interface Running {
  readonly entry: Entry
  peer: ConnectedPeer | undefined
  /** Why this side ends the peer. */
  readonly waiter: Deferred.Deferred<ConnectedPeer, DialError> | undefined
}

const bad = (problem: string): ServerError => new ServerError({ reason: { _tag: "BadOptions", problem } })

const targetsOf = (
  texts: ReadonlyArray<string> | undefined,
  option: string,
  port: number
): Effect.Effect<ReadonlyArray<Target>, ServerError> =>
  Effect.forEach(texts ?? [], (text) => {
    const target = parseTarget(text, port)
    return Result.isSuccess(target) ? Effect.succeed(target.success) : Effect.fail(bad(`${option}: ${target.failure}`))
  })

const wholeNumber = (value: unknown, option: string, maximum = 1_000_000): Effect.Effect<void, ServerError> =>
  value === undefined || (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= maximum)
    ? Effect.void
    : Effect.fail(bad(`${option} must be a whole number from 0 to ${maximum.toLocaleString("en")}`))

/** Whether a dial failed because of this machine, and says nothing about the address. */
const isLocal = (error: unknown): boolean =>
  error instanceof ConnectionError &&
  error.reason._tag === "DialFailed" &&
  ((error.reason.problem === "Unreachable" && error.reason.proxy === undefined) ||
    error.reason.problem === "ProxyUnreachable")

const failureOf = (cause: Cause.Cause<Failure>): Failure | undefined =>
  Option.getOrUndefined(Cause.findErrorOption(cause))

const endOf = (exit: Exit.Exit<Peer.EndReason, Failure>): End => {
  if (Exit.isSuccess(exit)) {
    const { by, retry } = Peer.assess(exit.value)
    return { isInterrupted: exit.value._tag === "ScopeClosed", isLocal: by === "local", retry }
  }
  const error = failureOf(exit.cause)
  if (error === undefined) return { isInterrupted: Cause.hasInterrupts(exit.cause), isLocal: true, retry: true }
  if (error instanceof Unreachable) {
    return { isInterrupted: false, isLocal: true, retry: false, unreachable: error.message }
  }
  if (error instanceof Duplicate) return { isInterrupted: false, isLocal: true, retry: false }
  return { isInterrupted: false, isLocal: isLocal(error), retry: Peer.assess(error).retry }
}

export const run = Effect.fnUntraced(function* <H extends Peer.Handlers<unknown>, R>(options: Options<H, R>) {
  const network = options.network ?? Network.mainnet
  const isConnectOnly = options.connect !== undefined
  for (const option of ["fullRelay", "blockRelay", "maxManual", "maxInbound", "maxPending", "pendingDials"] as const) {
    yield* wholeNumber(options[option], option)
  }
  const added = yield* targetsOf(
    [...(options.connect ?? []), ...(options.added ?? [])],
    isConnectOnly ? "connect" : "added",
    network.port
  )
  const randomKey = options.randomKey ?? crypto.getRandomValues(new Uint8Array(16))
  if (!(randomKey instanceof Uint8Array && randomKey.length === 16)) return yield* bad("randomKey must be 16 bytes")

  const dialer = yield* Dialer
  const clock = yield* Clock.Clock
  const now = (): number => clock.currentTimeMillisUnsafe()
  const random = makeRandom(randomKey)
  const events = yield* PubSub.sliding<ServerEvent>(eventCapacity)
  const emit = (event: ServerEvent): void => void Effect.runSync(PubSub.publish(events, event))
  const pendingDials = options.pendingDials ?? 4
  const maxPending = options.maxPending ?? 128

  const reachable = new Set<NetworkName>([...dialer.ways].filter((way) => options.onlyNetworks?.includes(way) ?? true))
  if (options.allowUnroutable === true) reachable.add("not_publicly_routable")
  const registry = new Registry({
    limits: {
      fullRelay: isConnectOnly ? 0 : (options.fullRelay ?? 8),
      blockRelay: isConnectOnly ? 0 : (options.blockRelay ?? 2),
      manual: isConnectOnly ? Number.POSITIVE_INFINITY : (options.maxManual ?? 8),
      inbound: options.maxInbound ?? 189,
      feelers: !isConnectOnly && (options.feelers ?? true),
      pendingDials,
      dialsPerSecond: options.dialRate?.perSecond ?? 4,
      dialBurst: options.dialRate?.burst ?? 8
    },
    random,
    book: undefined,
    reachable,
    groupOf: Address.group,
    isAllowed: () => true,
    isBadPort: () => false,
    requiredServices: options.requiredServices ?? desirable,
    emit: (event) =>
      emit(
        event._tag === "AddedUnreachable"
          ? { _tag: "Warning", message: `the added node ${formatTarget(event.target)} is not dialled: ${event.why}` }
          : event
      )
  })
  for (const target of added) registry.added.add(target, now())

  const nonces = yield* Nonce.layerWith({ capacity: pendingDials + maxPending + spareNonces }).pipe((layer) =>
    Effect.provide(Nonce.Nonce, layer)
  )
  const running = new Map<number, Running>()
  const fibers = yield* FiberMap.make<number>()
  const asked = yield* Latch.make()
  /** Asks the registry again: something changed. */
  const wake = (): void => void asked.openUnsafe()
  const changed = yield* Latch.make()
  const peersChanged = (): void => {
    changed.openUnsafe()
    changed.closeUnsafe()
  }

  // ---- one connection

  const peerOptions = (entry: Entry, services: bigint | undefined): Peer.Options<H> => ({
    ...options.peer,
    network,
    handlers: options.handlers,
    remoteServices: services,
    relay: kinds[entry.kind].relaysTransactions && (options.peer?.relay ?? true),
    requiredServices: kinds[entry.kind].needsServices ? (options.requiredServices ?? desirable) : []
  })

  /** From the handshake to the end. */
  const attend = (one: Running, peer: Peer.Peer): Effect.Effect<Peer.EndReason, never, Scope.Scope | R> => {
    const { entry } = one
    registry.ready(entry.id, peer.info.services, now())
    const connected: ConnectedPeer = {
      id: entry.id,
      kind: entry.kind,
      peer,
      target: entry.target,
      address: entry.address,
      connectedAt: now()
    }
    one.peer = connected
    const { services, transport, userAgent } = peer.info
    emit({ _tag: "Ready", id: entry.id, kind: entry.kind, target: entry.target, userAgent, services, transport })
    wake()
    peersChanged()
    if (one.waiter !== undefined) Deferred.doneUnsafe(one.waiter, Effect.succeed(connected))
    if (entry.kind === "feeler") return Effect.andThen(peer.disconnect("the address answers"), peer.awaitShutdown)
    const { onPeer } = options
    const greeted = kinds[entry.kind].sendsGetaddr ? Effect.ignore(peer.send({ _tag: "getaddr" })) : Effect.void
    const attended =
      onPeer === undefined
        ? peer.awaitShutdown
        : Effect.raceFirst(
            Effect.andThen(
              Effect.ignoreCause(onPeer(connected), { log: "Debug", message: "onPeer failed" }),
              Effect.never
            ),
            peer.awaitShutdown
          )
    return Effect.andThen(greeted, attended)
  }

  /** Runs an attempt or a peer to its end, and gives its slot back. */
  const start = (
    one: Running,
    body: Effect.Effect<Peer.EndReason, Failure, Scope.Scope | Nonce.Nonce | Peer.HandlerServices<H> | R>
  ) => {
    const { entry } = one
    running.set(entry.id, one)
    const finished = (exit: Exit.Exit<Peer.EndReason, Failure>): void => {
      running.delete(entry.id)
      const end = endOf(exit)
      const { id, kind, target } = entry
      const error = Exit.isFailure(exit) ? failureOf(exit.cause) : undefined
      if (Exit.isSuccess(exit)) {
        const age = now() - (entry.readyAt ?? now())
        emit({ _tag: "Ended", id, kind, target, reason: exit.value, assessment: Peer.assess(exit.value), age })
      } else if (error !== undefined) emit({ _tag: "DialFailed", id, kind, target, error })
      registry.ended(id, end, now())
      if (one.waiter !== undefined) {
        Deferred.doneUnsafe(
          one.waiter,
          Effect.fail(new DialError({ target: formatTarget(target), error: error ?? "ended" }))
        )
      }
      wake()
      peersChanged()
    }
    return FiberMap.run(
      fibers,
      entry.id,
      Effect.scoped(Effect.provideService(body, Nonce.Nonce, nonces)).pipe(
        Effect.onExit((exit) => Effect.sync(() => finished(exit)))
      )
    )
  }

  const dial = (entry: Entry, services: bigint | undefined, waiter: Running["waiter"]) => {
    const one: Running = { entry, peer: undefined, waiter }
    emit({ _tag: "Dialing", id: entry.id, kind: entry.kind, target: entry.target })
    const connect = Effect.tap(dialer.dial(entry.target, entry.kind), (connection) => {
      if (!isName(entry.target)) return Effect.void
      const { host, port } = connection.remoteAddress
      const address = Address.parseHost(host)
      return Result.isFailure(address) || registry.resolved(entry.id, { ...address.success, port })
        ? Effect.void
        : Effect.fail(new Duplicate({ address: `${host}:${port}` }))
    })
    return start(
      one,
      Effect.flatMap(Peer.dial(connect, peerOptions(entry, services)), (peer) => attend(one, peer))
    )
  }

  // ---- the planner

  const waiters = new Map<number, Deferred.Deferred<ConnectedPeer, DialError>>()
  const planner = Effect.gen(function* () {
    while (true) {
      asked.closeUnsafe()
      const action = registry.next(now())
      if (action._tag === "Dial") {
        const waiter = waiters.get(action.entry.id)
        waiters.delete(action.entry.id)
        yield* dial(action.entry, action.services, waiter)
      } else {
        const wait = action.until - now()
        yield* Number.isFinite(wait) ? Effect.raceFirst(asked.await, Effect.sleep(Math.max(wait, 0))) : asked.await
        yield* Effect.sleep(askInterval)
      }
    }
  })

  // ---- inbound

  const accept = (connection: Connection, scope: Scope.Closeable, _bind: Bind) => {
    const host = Address.parseHost(connection.remoteAddress.host)
    const address: Address.Address = Result.isSuccess(host)
      ? { ...host.success, port: connection.remoteAddress.port }
      : { networkId: Address.NetworkId.ipv6, address: new Uint8Array(16), port: connection.remoteAddress.port }
    const isFull = registry.count("inbound") >= (options.maxInbound ?? 189)
    if (!registry.isActive || isFull) {
      emit({ _tag: "Refused", host: connection.remoteAddress.host, step: registry.isActive ? "full" : "inactive" })
      return Scope.close(scope, Exit.void)
    }
    const entry = registry.accept(address, now())
    const one: Running = { entry, peer: undefined, waiter: undefined }
    emit({ _tag: "Accepted", id: entry.id, host: connection.remoteAddress.host, port: connection.remoteAddress.port })
    const peer = Peer.make(connection, { ...peerOptions(entry, undefined), direction: "inbound", requiredServices: [] })
    return start(
      one,
      Effect.onExit(
        Effect.flatMap(peer, (made) => attend(one, made)),
        (exit) => Scope.close(scope, exit)
      )
    )
  }

  const listen = Effect.fnUntraced(function* (bind: Bind) {
    const listener = yield* Effect.mapError(
      bind.listen,
      (error) => new ServerError({ reason: { _tag: "ListenFailed", error } })
    )
    const acceptOne = Effect.uninterruptibleMask((restore) => {
      const scope = Scope.makeUnsafe()
      return restore(Scope.provide(listener.accept, scope)).pipe(
        Effect.flatMap((connection) => accept(connection, scope, bind)),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
    })
    yield* Effect.forkScoped(
      Effect.catch(Effect.forever(acceptOne, { disableYield: true }), (error) =>
        Effect.sync(() => emit({ _tag: "Warning", message: `a listener has failed: ${error.message}` }))
      )
    )
  })
  for (const bind of options.binds ?? []) yield* listen(bind)
  yield* Effect.forkScoped(planner)

  // ---- the service

  const connected = (): ReadonlyArray<ConnectedPeer> =>
    [...running.values()].flatMap(({ entry, peer }) => (peer === undefined || entry.isEnding ? [] : [peer]))

  const end = (one: Running, why: string | Peer.OwnerReason): Effect.Effect<void> => {
    one.entry.isEnding = true
    return one.peer === undefined ? FiberMap.remove(fibers, one.entry.id) : one.peer.peer.disconnect(why)
  }

  const target = (text: string): Effect.Effect<Target, DialError> => {
    const parsed = parseTarget(text, network.port)
    return Result.isSuccess(parsed)
      ? Effect.succeed(parsed.success)
      : Effect.fail(new DialError({ target: text, error: { problem: parsed.failure } }))
  }

  const forEach: Server["forEach"] = (f, where = () => true) =>
    Effect.suspend(() =>
      Effect.forEach(connected().filter(where), (one) => Effect.ignoreCause(f(one)), {
        concurrency: "unbounded",
        discard: true
      })
    )

  const peerInfo = ({ address, id, kind, peer }: ConnectedPeer) =>
    Effect.map(peer.stats, (stats) =>
      PeerInfo.make(peer.info, stats, {
        id,
        kind,
        network: address === undefined ? "not_publicly_routable" : networkNameOf(address),
        mappedAs: undefined,
        addressLocal: undefined,
        lastTransaction: 0,
        lastBlock: 0,
        relaysAddresses: kinds[kind].relaysAddresses,
        addressesProcessed: 0,
        addressesRateLimited: 0,
        permissions: []
      })
    )

  const networkInfo = (): NetworkInfo => {
    const services = options.peer?.services ?? 0n
    const peers = connected()
    const inbound = peers.filter(({ kind }) => kind === "inbound").length
    return new NetworkInfo({
      version: 100,
      subversion: options.peer?.userAgent ?? Handshake.defaultUserAgent,
      protocolversion: options.peer?.protocolVersion ?? Handshake.defaultProtocolVersion,
      localservices: services.toString(16).padStart(16, "0"),
      localservicesnames: Wire.serviceNames(services),
      localrelay: options.peer?.relay ?? true,
      timeoffset: 0,
      networkactive: registry.isActive,
      connections: peers.length,
      connections_in: inbound,
      connections_out: peers.length - inbound,
      networks: (["ipv4", "ipv6", "onion", "i2p", "cjdns"] as const).map((name) => ({
        name,
        limited: !reachable.has(name),
        reachable: dialer.ways.has(name),
        proxy: "",
        proxy_randomize_credentials: false
      })),
      localaddresses: [],
      warnings: []
    })
  }

  const server: Server = {
    peers: Effect.sync(connected),
    peerInfo: Effect.suspend(() => Effect.forEach(connected(), peerInfo)),
    networkInfo: Effect.sync(networkInfo),
    events: Stream.fromPubSub(events),
    awaitPeers: (count, where = () => true) =>
      Effect.gen(function* () {
        while (true) {
          const found = connected().filter(where)
          if (found.length >= count) return found
          yield* changed.await
        }
      }),
    add: (text) =>
      Effect.map(target(text), (node) => {
        const isNew = registry.added.add(node, now())
        wake()
        return isNew
      }),
    remove: (text) =>
      Effect.flatMap(target(text), (node) => {
        const removed = registry.added.get(node)
        if (!registry.added.remove(node)) return Effect.succeed(false)
        const ends = [...running.values()].filter(({ entry }) => entry.added === removed)
        return Effect.as(
          Effect.forEach(ends, (one) => end(one, "the added node was removed")),
          true
        )
      }),
    added: Effect.sync(() =>
      registry.added.all.map((node) => ({
        target: formatTarget(node.target),
        connected: [...running.values()].some(({ entry, peer }) => entry.added === node && peer !== undefined),
        attempts: node.attempts,
        nextAttempt: Number.isFinite(node.nextAt) ? node.nextAt : undefined,
        unreachable: node.unreachable
      }))
    ),
    dialOnce: (text, kind = "manual") =>
      Effect.flatMap(target(text), (node) => {
        if (!registry.isActive) return Effect.fail(new DialError({ target: text, error: "inactive" }))
        const waiter = Deferred.makeUnsafe<ConnectedPeer, DialError>()
        const id = registry.dialOnce(node, kind)
        waiters.set(id, waiter)
        wake()
        const stop = Effect.suspend(() => {
          registry.withdraw(id)
          waiters.delete(id)
          const one = running.get(id)
          if (one === undefined) return Effect.void
          return Effect.andThen(
            end(one, "the caller of dialOnce has ended"),
            one.peer?.peer.awaitShutdown ?? Effect.void
          )
        })
        return Effect.andThen(
          Effect.addFinalizer(() => stop),
          Deferred.await(waiter)
        )
      }),
    disconnect: (who, why = "the operator disconnected it") =>
      Effect.suspend(() => {
        const wanted = typeof who === "string" ? parseTarget(who, network.port) : undefined
        const key = wanted !== undefined && Result.isSuccess(wanted) ? targetKey(wanted.success) : undefined
        const ends = [...running.values()].filter(
          ({ entry }) =>
            entry.id === who ||
            targetKey(entry.target) === key ||
            (entry.address !== undefined && addressKey(entry.address) === key)
        )
        return Effect.as(
          Effect.forEach(ends, (one) => end(one, why)),
          ends.length
        )
      }),
    setNetworkActive: (isActive) =>
      Effect.suspend(() => {
        registry.setActive(isActive, now())
        wake()
        return isActive
          ? Effect.void
          : Effect.forEach([...running.values()], (one) => end(one, "the network was switched off"), { discard: true })
      }),
    networkActive: Effect.sync(() => registry.isActive),
    forEach,
    announce: (announcements) => forEach(({ peer }) => peer.announce(announcements)),
    announceBlocks: (headers) => forEach(({ peer }) => peer.announceBlocks(headers))
  }
  return server
})
