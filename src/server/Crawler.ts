/**
 * A crawler: it visits the nodes of a network, asks each for addresses, and visits the nodes at those addresses too.
 *
 * A visit is a connection, a handshake, `getaddr`, and the wait for its answer. A node answers once per connection, after half a minute on
 * average, from a cache that lasts a day. So a visit takes long, and visiting a node again soon gives the same addresses.
 *
 * A crawl is polite. It has a user agent of its own, with a contact, offers no services and wants no transactions. It has one connection
 * to a host, two to a /24 of IPv4 or a /64 of IPv6, and makes 50 dials per second in all. It visits an address at most every 10 minutes,
 * also after the node disconnected, and a banned host never.
 *
 * The frontier is the set of known addresses with the results of their visits. It is bounded, and `layerMemory` or `layerSql` saves it
 * before and after each visit, so a crawl that was killed continues.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { SqlClient } from "effect/sql/SqlClient"
import * as Stream from "effect/Stream"
import { type Address, format, type Host } from "../Address.ts"
import * as Network from "../Network.ts"
import type { Nonce } from "../Nonce.ts"
import type { Transport } from "../Transport.ts"
import { maxUserAgentLength } from "../Wire.ts"
import { Dialer, type NetworkName } from "./Dialer.ts"
import { badOption, CrawlError } from "./internal/crawlError.ts"
import { seedDumpOf, snapshotOf } from "./internal/crawlExport.ts"
import {
  type Counts,
  CrawlFrontier,
  type Entry,
  type Outcome,
  type Settings,
  type Tracked
} from "./internal/crawlFrontier.ts"
import { makeSqlStore } from "./internal/crawlSql.ts"
import { type Limits, type Visit, visit as visitWith, type VisitSettings } from "./internal/crawlVisit.ts"

export { CrawlError, type CrawlReason } from "./internal/crawlError.ts"
export type { Counts, CrawledNode, Entry, EntryState } from "./internal/crawlFrontier.ts"
export type { Failed, Reached, Visit, VisitTimings } from "./internal/crawlVisit.ts"

/**
 * The default user agent of a crawler (BIP14). The option `contact` adds a comment to it.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultUserAgent = "/effect-bitcoin-crawler:0.1.0/"

/**
 * The time limits of the parts of a visit.
 *
 * @category options
 * @since 0.1.0
 */
export interface Timeouts {
  /** Connecting, directly or through a proxy. */
  readonly connect?: Duration.Input | undefined
  /** The handshake with its key exchange. */
  readonly handshake?: Duration.Input | undefined
  /** The wait for the answer to `getaddr`. */
  readonly answer?: Duration.Input | undefined
}

/**
 * The options of a visit.
 *
 * @category options
 * @since 0.1.0
 */
export interface VisitOptions {
  /** Mainnet by default. */
  readonly network?: Network.Network | undefined
  /** `defaultUserAgent` by default. Printable ASCII, at most 256 bytes together with the contact. */
  readonly userAgent?: string | undefined
  /** How the operator of a node can reach you, such as a mail address. It must not contain `/`, `:`, `(` or `)` (BIP14). */
  readonly contact?: string | undefined
  /** "auto" by default: v2, and a second connection with v1 to a node that does not support v2. */
  readonly transport?: Transport | undefined
  /**
   * The time limits by network. The defaults for connect, handshake and answer are 3, 30 and 70 s for IPv4 and IPv6, 100, 40 and 90 s for
   * Tor, 30, 80 and 170 s for I2P, and 10, 30 and 70 s for CJDNS.
   */
  readonly timeouts?: { readonly [Network in NetworkName]?: Timeouts | undefined } | undefined
  /** The most addresses to take from a visit; 1,000 by default, the most that an honest node sends. */
  readonly addressesPerVisit?: number | undefined
}

/**
 * The options of a crawl.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends VisitOptions {
  /** Addresses to start from; a resumed crawl needs none. Unroutable ones are ignored without `allowUnroutable`. */
  readonly seeds?: ReadonlyArray<Address> | undefined
  /** Visits at a time, as one number for each network or by network; 64 each by default. With 0 a network is stored but not visited. */
  readonly concurrency?: number | { readonly [Network in NetworkName]?: number | undefined } | undefined
  /** Visits at a time in a /24 of IPv4 or a /64 of IPv6; 2 by default. */
  readonly perSubnet?: number | undefined
  /** Dials per second over all networks; 50 by default. After a delay, the dials of a tenth of a second are made at once. */
  readonly rate?: number | undefined
  /**
   * The time from the start of a visit to the next one of the same address; 1 hour by default, at least 10 minutes. It doubles with each
   * failure in a row, up to a day.
   */
  readonly revisit?: Duration.Input | undefined
  /**
   * Whether to visit each address once, those due at the start and those learnt, and then end; false by default, so that the crawl never
   * ends. An address whose visit an earlier crawl did not finish is visited when it is due.
   */
  readonly once?: boolean | undefined
  /**
   * The size of the frontier, in addresses of about 700 bytes; 500,000 by default. When it is full, a new address replaces one that was
   * never reached and failed at least `revisit` ago; if there is no such address, the new one is refused. At most 8 ports of a host are
   * kept, or 8 addresses of a /64 of IPv6.
   */
  readonly maximumAddresses?: number | undefined
  /** Whether to visit unroutable addresses, such as 127.0.0.1, that nodes send; for tests. False by default. */
  readonly allowUnroutable?: boolean | undefined
  /** Whether a host is banned: it is neither stored nor visited. Called before each visit. */
  readonly isBanned?: ((host: Host) => boolean) | undefined
}

// ---- options

const seconds = (connect: number, handshake: number, answer: number): Limits => ({
  connect: connect * 1000,
  handshake: handshake * 1000,
  answer: answer * 1000
})

const defaultLimits: { readonly [Network in NetworkName]: Limits } = {
  ipv4: seconds(3, 30, 70),
  ipv6: seconds(3, 30, 70),
  onion: seconds(100, 40, 90),
  i2p: seconds(30, 80, 170),
  cjdns: seconds(10, 30, 70),
  not_publicly_routable: seconds(3, 30, 70)
}
const networkNames = Object.keys(defaultLimits) as ReadonlyArray<NetworkName>

const minimumRevisit = 600_000
/** Finished visits that wait for the consumer of the stream. */
const maximumUnread = 64

/** The first wrong option ends the check: `checked` makes the exception a failure. */
const refuse = (option: string, problem: string): never => {
  throw badOption(option, problem)
}

const integerOf = (option: string, value: number, minimum: number): number =>
  Number.isSafeInteger(value) && value >= minimum
    ? value
    : refuse(option, `is ${value} instead of a whole number of at least ${minimum}`)

const millisOf = (option: string, value: Duration.Input, minimum: number, text: string): number => {
  const duration = Duration.fromInput(value)
  const millis = duration._tag === "None" ? NaN : Duration.toMillis(duration.value)
  return millis >= minimum ? millis : refuse(option, `must be a duration of at least ${text}`)
}

const byNetwork = <A>(of: (network: NetworkName) => A): { readonly [Network in NetworkName]: A } => ({
  ipv4: of("ipv4"),
  ipv6: of("ipv6"),
  onion: of("onion"),
  i2p: of("i2p"),
  cjdns: of("cjdns"),
  not_publicly_routable: of("not_publicly_routable")
})

const isPrintable = (text: string): boolean => /^[\x20-\x7e]*$/.test(text)

const visitSettings = (options: VisitOptions): VisitSettings => {
  const { addressesPerVisit = 1_000, contact, network = Network.mainnet, timeouts, transport = "auto" } = options
  const { userAgent = defaultUserAgent } = options
  if (!isPrintable(userAgent)) refuse("userAgent", "must be printable ASCII")
  if (contact !== undefined && !(isPrintable(contact) && /^[^/:()]+$/.test(contact))) {
    refuse("contact", "must be printable ASCII without / : ( and )")
  }
  // The contact is in parentheses.
  if (userAgent.length + (contact === undefined ? 0 : contact.length + 2) > maxUserAgentLength) {
    refuse(
      contact === undefined ? "userAgent" : "contact",
      `makes the user agent longer than ${maxUserAgentLength} bytes`
    )
  }
  const limitsOf = (network: NetworkName): Limits => {
    const given = timeouts?.[network]
    const limit = (part: keyof Limits): number =>
      given?.[part] === undefined
        ? defaultLimits[network][part]
        : millisOf(`timeouts.${network}.${part}`, given[part], 1, "a millisecond")
    return { connect: limit("connect"), handshake: limit("handshake"), answer: limit("answer") }
  }
  return {
    network,
    userAgent,
    userAgentComments: contact === undefined ? [] : [contact],
    transport,
    limits: byNetwork(limitsOf),
    addressesPerVisit: integerOf("addressesPerVisit", addressesPerVisit, 1)
  }
}

const frontierSettings = (options: Options, ways: ReadonlySet<NetworkName>): Settings => {
  const { concurrency = 64, maximumAddresses = 500_000, perSubnet = 2, rate = 50, revisit = "1 hour" } = options
  if (typeof concurrency === "object") {
    for (const name of Object.keys(concurrency)) {
      if (!networkNames.includes(name as NetworkName)) refuse("concurrency", `has the unknown network "${name}"`)
    }
  }
  const concurrencyOf = (network: NetworkName): number => {
    const given = typeof concurrency === "number" ? concurrency : (concurrency[network] ?? 64)
    const checked = integerOf(typeof concurrency === "number" ? "concurrency" : `concurrency.${network}`, given, 0)
    return ways.has(network) ? checked : 0
  }
  if (!(rate > 0 && Number.isFinite(rate))) refuse("rate", `is ${rate} instead of a number above 0`)
  return {
    maximumAddresses: integerOf("maximumAddresses", maximumAddresses, 1),
    concurrency: byNetwork(concurrencyOf),
    perSubnet: integerOf("perSubnet", perSubnet, 1),
    rate,
    revisit: millisOf("revisit", revisit, minimumRevisit, "10 minutes"),
    once: options.once ?? false,
    allowUnroutable: options.allowUnroutable ?? false,
    isBanned: options.isBanned ?? (() => false)
  }
}

const checked = <A>(read: () => A): Effect.Effect<A, CrawlError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(read())
    } catch (error) {
      return error instanceof CrawlError ? Effect.fail(error) : Effect.die(error)
    }
  })

// ---- the store

/**
 * The store of a frontier. Only one crawl at a time may use it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Frontier {
  /** The entries of an earlier crawl of this network, in the order of their last visits. */
  readonly load: (network: Network.Network) => Effect.Effect<ReadonlyArray<Entry>, CrawlError>
  /** Saves entries and deletes others, in one transaction. The crawl changes entries later: copy or encode them at once. */
  readonly save: (changed: ReadonlyArray<Entry>, removed: ReadonlyArray<Entry>) => Effect.Effect<void, CrawlError>
}

/**
 * The key of the service `Frontier` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Frontier: Context.Service<Frontier, Frontier> = Context.Service<Frontier>(
  "effect-bitcoin-peer/server/Crawler/Frontier"
)

/**
 * Keeps the frontier in memory, as long as the layer lives. The next crawl with it continues the last one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Frontier> = Layer.sync(Frontier, () => {
  const entries = new Map<string, Entry>()
  return {
    load: () =>
      Effect.sync(() =>
        Array.from(entries.values()).toSorted(
          (one, other) => one.visitedAt - other.visitedAt || one.addedAt - other.addedAt
        )
      ),
    save: (changed, removed) =>
      Effect.sync(() => {
        for (const entry of changed) entries.set(format(entry.address), { ...entry })
        for (const { address } of removed) entries.delete(format(address))
      })
  }
})

/**
 * Keeps the frontier in the tables `crawl_address` and `crawl_info` of a SQL database, and creates them if they are missing. Tables of
 * another network fail with `WrongStore`. A row that cannot be read is skipped. Other programs may read the tables: `due_at` and other
 * times are milliseconds since 1970.
 *
 * With Node's own SQLite: `Crawler.layerSql.pipe(Layer.provide(NodeSqlite.layer({ filename: "crawl.db" })))`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSql: Layer.Layer<Frontier, never, SqlClient> = Layer.effect(Frontier, makeSqlStore)

// ---- the crawl

/**
 * A running crawl. It ends with its scope, or, with the option `once`, when each address was visited.
 *
 * @category models
 * @since 0.1.0
 */
export interface Crawl {
  /**
   * The finished visits, each after its addresses were saved. For one consumer: when it stops pulling, the crawl pauses after 64 visits
   * and the running ones. Fails with `StoreFailed` if the frontier cannot be saved. Ends with the crawl.
   */
  readonly visits: Stream.Stream<Visit, CrawlError>
  /** The numbers of addresses by state. */
  readonly counts: Effect.Effect<Counts>
  /** A copy of all entries. */
  readonly entries: Effect.Effect<ReadonlyArray<Entry>>
  /** Adds addresses to visit. Returns how many were new. Fails with `StoreFailed`. */
  readonly add: (addresses: ReadonlyArray<Address>) => Effect.Effect<number, CrawlError>
}

const outcomeOf = (visit: Visit): Outcome => {
  if (visit._tag === "Failed") return { _tag: "Failed", problem: visit.problem }
  const { remoteProtocolVersion, services, startHeight, transport, userAgent } = visit.info
  return {
    _tag: "Reached",
    services,
    node: { protocolVersion: remoteProtocolVersion, userAgent, startHeight, transport }
  }
}

const toldOf = (addresses: ReadonlyArray<Address>, now: number) =>
  addresses.map((address) => ({ ...address, services: 0n, timestamp: Math.floor(now / 1000) }))

/**
 * Visits one address: connects, shakes hands, asks for addresses and ends. If there is no handshake it succeeds with `Failed`. Being
 * polite is left to the caller: there is no rate, and no pause since the last visit.
 *
 * Fails with `BadOption`, before anything is dialled.
 *
 * @category constructors
 * @since 0.1.0
 */
export const visit = (
  address: Address,
  options: VisitOptions & {
    /** The services of the node as other nodes sent them, if known. Without P2P_V2 among them, "auto" dials with v1 directly. */
    readonly remoteServices?: bigint | undefined
  } = {}
): Effect.Effect<Visit, CrawlError, Dialer | Nonce> =>
  Effect.flatMap(
    checked(() => visitSettings(options)),
    (settings) => visitWith(address, options.remoteServices ?? 0n, settings)
  )

/**
 * Starts a crawl in the scope of the caller. Fails with `BadOption`, `StoreFailed` and `WrongStore`.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Network } from "effect-bitcoin-peer"
 * import * as Crawler from "effect-bitcoin-peer/server/Crawler"
 *
 * export const program = Effect.gen(function*() {
 *   const crawl = yield* Crawler.make({ network: Network.signet, once: true, contact: "crawler@example.org" })
 *   yield* Stream.runDrain(crawl.visits)
 *   return Crawler.formatSnapshot(yield* crawl.entries, Date.now())
 * }).pipe(Effect.scoped, Effect.provide(Crawler.layerMemory))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Crawl, CrawlError, Frontier | Dialer | Nonce | Scope.Scope> {
  const store = yield* Frontier
  const { ways } = yield* Dialer
  const clock = yield* Clock.Clock
  const now = (): number => clock.currentTimeMillisUnsafe()
  const ofVisits = yield* checked(() => visitSettings(options))
  const frontier = new CrawlFrontier(yield* checked(() => frontierSettings(options, ways)))

  frontier.restore(yield* store.load(ofVisits.network), now())
  const wake = yield* Latch.make()
  const add = (addresses: ReadonlyArray<Address>): Effect.Effect<number, CrawlError> =>
    Effect.suspend(() => {
      const { added, removed } = frontier.add(toldOf(addresses, now()), now())
      wake.openUnsafe()
      return added.length === 0 ? Effect.succeed(0) : Effect.as(store.save(added, removed), added.length)
    })
  yield* add(options.seeds ?? [])

  const visits = yield* Queue.bounded<Visit, CrawlError | Cause.Done>(maximumUnread)
  const broken = yield* Deferred.make<never, CrawlError>()
  const fibers = yield* FiberSet.make()

  const attend = (entry: Tracked) =>
    visitWith(entry.address, entry.services, ofVisits, () => frontier.countDial(now())).pipe(
      Effect.flatMap((visit) => {
        frontier.record(entry, outcomeOf(visit))
        const { added, removed } =
          visit._tag === "Reached" ? frontier.add(visit.learnt, now()) : { added: [], removed: [] }
        if (added.length > 0) wake.openUnsafe()
        return Effect.andThen(store.save([entry, ...added], removed), Queue.offer(visits, visit))
      }),
      Effect.tap(() =>
        Effect.sync(() => {
          frontier.release(entry)
          wake.openUnsafe()
        })
      ),
      Effect.onError((cause) => Deferred.failCause(broken, cause))
    )

  const step = Effect.suspend(() => {
    wake.closeUnsafe()
    const claimed = frontier.claim(now())
    if (claimed.length > 0) {
      return Effect.andThen(
        // Saved before the dial, so that a crawl that is killed now does not visit these again too soon.
        store.save(claimed, []),
        Effect.forEach(claimed, (entry) => FiberSet.run(fibers, attend(entry)), { discard: true })
      )
    }
    const wait = frontier.wakeAt() - now()
    // A timer cannot wait longer than 24 days.
    return Effect.raceFirst(wake.await, wait < 2 ** 31 ? Effect.sleep(Math.max(1, Math.ceil(wait))) : Effect.never)
  })

  yield* Effect.whileLoop({ while: () => !frontier.isOver, body: () => step, step: () => {} }).pipe(
    Effect.raceFirst(Deferred.await(broken)),
    Effect.onExit((exit) =>
      Effect.andThen(
        FiberSet.clear(fibers),
        Exit.isSuccess(exit)
          ? Queue.end(visits)
          : Cause.hasInterruptsOnly(exit.cause)
            ? Queue.shutdown(visits)
            : Queue.failCause(visits, exit.cause)
      )
    ),
    Effect.forkScoped({ startImmediately: true })
  )

  return {
    visits: Stream.fromQueue(visits),
    counts: Effect.sync(() => frontier.counts),
    entries: Effect.sync(() => Array.from(frontier.all(), (entry) => ({ ...entry }))),
    add
  }
})

/**
 * A crawl as the stream of its visits. It runs as long as the stream does. Fails as `make` does.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Address, Network } from "effect-bitcoin-peer"
 * import * as Crawler from "effect-bitcoin-peer/server/Crawler"
 *
 * export const crawl = Crawler.run({ network: Network.mainnet, concurrency: { ipv4: 500, onion: 50 } }).pipe(
 *   Stream.runForEach((visit) =>
 *     visit._tag === "Reached"
 *       ? Effect.log(`${Address.format(visit.address)} knows ${visit.learnt.length} addresses`)
 *       : Effect.logDebug(visit.error.message)
 *   ),
 *   Effect.provide(Crawler.layerMemory)
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = (options: Options = {}): Stream.Stream<Visit, CrawlError, Frontier | Dialer | Nonce> =>
  Stream.unwrap(Effect.map(make(options), ({ visits }) => visits))

// ---- export

/**
 * The nodes that were reached in their last visit, as JSON in the form of bitnodes' snapshots: for each address the protocol version, the
 * user agent, since when it is reachable (Unix seconds), the services, the height, and null for the eight fields about location and owner.
 * `now` is milliseconds since 1970.
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatSnapshot = (entries: Iterable<Entry>, now: number): string => snapshotOf(entries, now)

/**
 * The nodes that were ever reached, as the `dnsseed.dump` of sipa's bitcoin-seeder, which Bitcoin Core's `makeseeds.py` reads. A node is
 * "good" if it is routable, offers NETWORK, has the default port, and is as reliable as the seeder requires.
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatSeedDump = (entries: Iterable<Entry>, network: Network.Network): string =>
  seedDumpOf(entries, network)
