/** Implements `Server` over the parts of a running server. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Take } from "effect/Take"
import * as Address from "../../Address.ts"
import * as Handshake from "../../Handshake.ts"
import * as Wire from "../../Wire.ts"
import type { Book } from "../AddressBook.ts"
import type { Asmap } from "../Asmap.ts"
import type { BanList } from "../BanList.ts"
import { type Dialer, formatTarget, type NetworkName, type Target } from "../Dialer.ts"
import type { LocalAddresses } from "../LocalAddresses.ts"
import { NetworkInfo } from "../NetworkInfo.ts"
import * as PeerInfo from "../PeerInfo.ts"
import type { ServerEvent } from "../ServerEvent.ts"
import { targetKey } from "./backoff.ts"
import type { Conduct } from "./conduct.ts"
import { addressKey } from "./keys.ts"
import { type ConnectedPeer, DialError, type Options, type Server } from "./model.ts"
import type { Checked } from "./options.ts"
import { hexOfServices } from "./keys.ts"
import { publicNetworks } from "./networkNames.ts"
import type { Persistence } from "./persistence.ts"
import type { Registry } from "./registry.ts"
import type { Relaying } from "./relaying.ts"
import { type Connections, networkOf, type Running } from "./running.ts"
import type { TimeOffsets } from "./timeOffsets.ts"
import { parseTarget } from "./targets.ts"

/** How long a ban waits for its file. */
const longestSave = Duration.seconds(5)
/** 0.1.0, as Bitcoin Core writes versions as numbers. */
const version = 100

/** A caller of `dialOnce`. */
export interface Waiter {
  readonly target: Target
  readonly deferred: Deferred.Deferred<ConnectedPeer, DialError>
}

/** What `dialOnce` can dial. */
const dialable: ReadonlySet<unknown> = new Set([
  "addr-fetch",
  "block-relay-only",
  "feeler",
  "manual",
  "outbound-full-relay"
])

export interface Parts {
  readonly options: Pick<Options, "peer">
  readonly settings: Checked
  readonly registry: Registry
  readonly connections: Connections
  readonly bans: BanList
  readonly book: Book
  readonly persistence: Persistence
  readonly local: LocalAddresses
  readonly offsets: TimeOffsets
  readonly asmap: Asmap | undefined
  readonly conduct: Conduct
  readonly relaying: Relaying
  readonly events: PubSub.PubSub<Take<ServerEvent>>
  /** Whether the last event was published. */
  readonly hasEnded: () => boolean
  readonly dialer: Dialer
  readonly reachable: ReadonlySet<NetworkName>
  /** Callers of `dialOnce` whose dials have not begun. */
  readonly waiters: Map<number, Waiter>
  /** Ends the waits of all of them. */
  readonly failWaiters: (why: "ended" | "inactive") => void
  readonly wake: () => void
  readonly now: () => number
}

const isConnected = (one: Running): one is Running & { readonly connected: ConnectedPeer } =>
  one.connected !== undefined && !one.entry.isEnding

export const makeService = (parts: Parts): Server => {
  const { bans, book, conduct, connections, dialer, events, now, options, reachable, registry, relaying } = parts
  const { asmap, failWaiters, hasEnded, local, offsets, persistence, settings, waiters, wake } = parts
  const { port } = settings.network
  const saved = Effect.ignore(Effect.timeout(persistence.saveBans, longestSave))

  const targetOf = (text: string): Effect.Effect<Target, DialError> => {
    const parsed = parseTarget(text, port)
    return Result.isSuccess(parsed)
      ? Effect.succeed(parsed.success)
      : Effect.fail(new DialError({ target: text, error: { problem: parsed.failure } }))
  }

  const forEach: Server["forEach"] = (f, where = () => true) =>
    Effect.suspend(() =>
      Effect.forEach(connections.peers.filter(where), (one) => Effect.ignoreCause(Effect.suspend(() => f(one))), {
        concurrency: "unbounded",
        discard: true
      })
    )

  const peerInfo = (one: Running & { readonly connected: ConnectedPeer }) =>
    Effect.map(one.connected.peer.stats, (stats) => {
      const { entry } = one
      const relay = relaying.counters(entry.id)
      return PeerInfo.make(one.connected.peer.info, stats, {
        id: entry.id,
        kind: entry.kind,
        network: networkOf(one),
        mappedAs: asmap?.lookup(one.connected.address),
        addressLocal: one.addressLocal === undefined ? undefined : Address.format(one.addressLocal),
        lastTransaction: one.lastTransaction,
        lastBlock: one.lastBlock,
        relaysAddresses: relay?.addr_relay_enabled ?? false,
        addressesProcessed: relay?.addr_processed ?? 0,
        addressesRateLimited: relay?.addr_rate_limited ?? 0,
        permissions: [...one.permissions]
      })
    })
  const networkInfo = (): NetworkInfo => {
    const services = options.peer?.services ?? 0n
    const { peers } = connections
    const inbound = peers.filter(({ kind }) => kind === "inbound").length
    return new NetworkInfo({
      version,
      subversion: options.peer?.userAgent ?? Handshake.defaultUserAgent,
      protocolversion: options.peer?.protocolVersion ?? Handshake.defaultProtocolVersion,
      localservices: hexOfServices(services),
      localservicesnames: Wire.serviceNames(services),
      localrelay: options.peer?.relay ?? true,
      timeoffset: offsets.median,
      networkactive: registry.isActive,
      connections: peers.length,
      connections_in: inbound,
      connections_out: peers.length - inbound,
      networks: publicNetworks.map((name) => ({
        name,
        limited: !reachable.has(name),
        reachable: dialer.ways.has(name),
        proxy: "",
        proxy_randomize_credentials: false
      })),
      localaddresses: local.all().map(({ address, score }) => ({
        address: Address.formatHost(address),
        port: address.port,
        score
      })),
      warnings: offsets.warning === undefined ? [] : [offsets.warning]
    })
  }

  return {
    peers: Effect.sync(() => connections.peers),
    peerInfo: Effect.suspend(() => Effect.forEach([...connections.values()].filter(isConnected), peerInfo)),
    networkInfo: Effect.sync(networkInfo),
    events: Stream.suspend(() => (hasEnded() ? Stream.empty : Stream.fromPubSubTake(events))),
    awaitPeers: (count, where = () => true) =>
      Effect.gen(function* () {
        while (true) {
          const { nextChange } = connections
          const found = connections.peers.filter(where)
          if (!(found.length < count)) return found
          // Nobody comes any more.
          if (connections.haveEnded) return yield* Effect.interrupt
          yield* nextChange
        }
      }),
    find: (peer) => connections.find(peer),
    add: (text) =>
      Effect.map(targetOf(text), (target) => {
        const isNew = registry.added.add(target, now())
        wake()
        return isNew
      }),
    remove: (text) =>
      Effect.flatMap(targetOf(text), (target) => {
        const removed = registry.added.get(target)
        return registry.added.remove(target)
          ? Effect.as(
              connections.endAll(({ entry }) => entry.added === removed, "the added node was removed"),
              true
            )
          : Effect.succeed(false)
      }),
    added: Effect.sync(() =>
      registry.added.all.map((node) => ({
        target: formatTarget(node.target),
        connected: [...connections.values()].some((one) => one.entry.added === node && isConnected(one)),
        attempts: node.attempts,
        nextAttempt: Number.isFinite(node.nextAt) ? node.nextAt : undefined,
        unreachable: node.unreachable
      }))
    ),
    dialOnce: (text, kind = "manual") =>
      Effect.flatMap(targetOf(text), (target): Effect.Effect<ConnectedPeer, DialError, Scope.Scope> => {
        if (!dialable.has(kind)) {
          const problem = `there is no kind of connection "${kind}" that can be dialled once`
          return Effect.fail(new DialError({ target: text, error: { problem } }))
        }
        if (!registry.isActive) return Effect.fail(new DialError({ target: text, error: "inactive" }))
        const waiter = Deferred.makeUnsafe<ConnectedPeer, DialError>()
        const id = registry.dialOnce(target, kind)
        waiters.set(id, { target, deferred: waiter })
        wake()
        const stop = Effect.suspend(() => {
          registry.withdraw(id)
          waiters.delete(id)
          const one = connections.get(id)
          if (one === undefined) return Effect.void
          const ended = one.connected?.peer.awaitShutdown ?? Effect.void
          return Effect.andThen(connections.end(one, "the caller of dialOnce has ended"), ended)
        })
        return Effect.andThen(
          Effect.addFinalizer(() => stop),
          Deferred.await(waiter)
        )
      }),
    disconnect: (who, why = "the operator disconnected it") =>
      Effect.suspend(() => {
        const parsed = typeof who === "string" ? parseTarget(who, port) : undefined
        const key = parsed !== undefined && Result.isSuccess(parsed) ? targetKey(parsed.success) : undefined
        return connections.endAll(
          ({ entry }) =>
            entry.id === who ||
            targetKey(entry.target) === key ||
            (entry.address !== undefined && addressKey(entry.address) === key),
          why
        )
      }),
    misbehaved: (id, points, why) =>
      Effect.sync(() => {
        const one = connections.get(id)
        if (one !== undefined) conduct.judge(one, { by: "remote", retry: false, points }, why)
      }),
    mark: (id, what) =>
      Effect.sync(() => {
        const one = connections.get(id)
        if (one === undefined) return
        if (what === "block") one.lastBlock = now()
        else one.lastTransaction = now()
      }),
    // A ban of the operator is in its file when the call returns, unless the store hangs: no crash after that loses it.
    bans: {
      ...bans,
      ban: (...asked) => Effect.tap(bans.ban(...asked), saved),
      unban: (...asked) => Effect.tap(bans.unban(...asked), saved),
      clear: Effect.andThen(bans.clear, saved)
    },
    book,
    setNetworkActive: (isActive) =>
      Effect.suspend(() => {
        registry.setActive(isActive, now())
        if (!isActive) failWaiters("inactive")
        wake()
        return isActive ? Effect.void : Effect.asVoid(connections.endAll(() => true, "the network was switched off"))
      }),
    networkActive: Effect.sync(() => registry.isActive),
    forEach,
    announce: (announcements) => forEach(({ peer }) => peer.announce(announcements)),
    announceBlocks: (headers) => forEach(({ peer }) => peer.announceBlocks(headers))
  }
}
