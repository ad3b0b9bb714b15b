/**
 * The crawl of `Crawler` on many machines: entities of Effect's cluster, with the frontier and the visits in PostgreSQL.
 *
 * The addresses are split into shards by their subnets. Each shard is an entity, which lives on one runner: it claims addresses that are
 * due with `FOR UPDATE SKIP LOCKED`, visits them, and saves what it learnt, for all shards. When a runner ends, another one takes its
 * shards over; what it was visiting is due again when it would have been anyway. A singleton wakes the shards.
 *
 * With the manners of `Crawler`: one visit at once in a /24 or a /64, at least 10 minutes between two visits of an address. The dial rate
 * is that of each runner.
 */
import * as Clock from "effect/Clock"
import { Entity, Singleton } from "effect/cluster"
import type { Sharding } from "effect/cluster/Sharding"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { Rpc } from "effect/rpc"
import type { SqlClient } from "effect/sql/SqlClient"
import * as Address from "effect-bitcoin-peer/Address"
import * as Network from "effect-bitcoin-peer/Network"
import type { Nonce } from "effect-bitcoin-peer/Nonce"
import * as Crawler from "effect-bitcoin-peer/server/Crawler"
import { Dialer } from "effect-bitcoin-peer/server/Dialer"
import { FleetError } from "./FleetError.ts"
import { type Claimed, makeTables, type Tables } from "./tables.ts"

export { FleetError } from "./FleetError.ts"

/**
 * The options of a runner. All runners of a fleet have the same `network`, `shards` and `revisit`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Crawler.VisitOptions {
  /** Where to start. */
  readonly seeds?: ReadonlyArray<Address.Address> | undefined
  /** Into how many shards the addresses are split; 16 by default: several for each runner. It cannot change later. */
  readonly shards?: number | undefined
  /** Visits at once in a shard; 16 by default. */
  readonly concurrency?: number | undefined
  /** Dials each second of this runner; 50 by default. */
  readonly rate?: number | undefined
  /** From the start of a visit to the start of the next one of the same address; 1 hour by default, at least 10 minutes. */
  readonly revisit?: Duration.Input | undefined
  /** How many addresses are kept, over all shards; 1,000,000 by default. It is checked every 10 s. */
  readonly maximumAddresses?: number | undefined
  /** Whether addresses such as 127.0.0.1 are visited; for tests. */
  readonly allowUnroutable?: boolean | undefined
  /** Hosts that are neither kept nor visited. */
  readonly isBanned?: ((host: Address.Host) => boolean) | undefined
  /** The name of this runner in `fleet_visit`. */
  readonly runner?: string | undefined
}

/** A shard that starts when it gets its first message. `keepAlive` lets it run on, and again after its runner has ended. */
const Shard = Entity.make("effect-bitcoin-peer/CrawlShard", [Rpc.make("Start")])

/** How long a shard waits that has nothing to do, or whose database fails. */
const idle = Duration.seconds(1)
/** How long a shard waits that may not dial now: its visits run, or other shards have used up the rate. */
const pause = Duration.millis(50)
/** How often the shards are woken, and the addresses counted. */
const supervision = Duration.seconds(10)
const minimumRevisit = 600_000

/** The dial rate of a runner: a dial takes a token. A tenth of a second of them may be taken at once. */
class Dials {
  private readonly perMillisecond: number
  private readonly most: number
  private tokens: number
  private at = -Infinity

  constructor(rate: number) {
    this.perMillisecond = rate / 1000
    this.most = Math.max(1, rate / 10)
    this.tokens = this.most
  }

  /** Takes as many tokens as there are, up to `wanted`. */
  take(wanted: number, now: number): number {
    this.tokens = Math.min(this.most, this.tokens + Math.max(0, now - this.at) * this.perMillisecond)
    this.at = now
    const taken = Math.min(wanted, Math.floor(this.tokens))
    this.tokens -= taken
    return taken
  }

  giveBack(count: number): void {
    this.tokens += count
  }
}

interface Runner {
  readonly tables: Tables
  readonly options: Options
  readonly networks: ReadonlyArray<string>
  readonly dials: Dials
  readonly isFull: () => boolean
}

const problemOf = (options: Options): string | undefined => {
  const { concurrency = 16, maximumAddresses = 1, rate = 50, revisit = "1 hour", shards = 16 } = options
  const counts = { concurrency, maximumAddresses, shards }
  for (const [name, value] of Object.entries(counts)) {
    if (!(Number.isSafeInteger(value) && value >= 1))
      return `the option ${name} is ${value} instead of a whole number of at least 1`
  }
  if (!(rate > 0 && Number.isFinite(rate))) return `the option rate is ${rate} instead of a number above 0`
  const duration = Duration.fromInput(revisit)
  return duration._tag === "Some" && Duration.toMillis(duration.value) >= minimumRevisit
    ? undefined
    : "the option revisit must be a duration of at least 10 minutes"
}

const attend = Effect.fnUntraced(function* (runner: Runner, { address: text, services }: Claimed) {
  const { isFull, options, tables } = runner
  const address = Address.parse(text)
  // A row that somebody changed costs itself only: it is not due before its hour is over.
  if (Result.isFailure(address) || options.isBanned?.(address.success) === true) return
  const remoteServices = /^[0-9a-f]{16}$/.test(services) ? BigInt(`0x${services}`) : undefined
  const visit = yield* Crawler.visit(address.success, { ...options, remoteServices })
  yield* tables.finish(text, visit, options.runner ?? "runner", !isFull())
})

/** How long a runner that stops, or a shard that moves, waits for its database. */
const farewell = Duration.seconds(2)

/** The loop of a shard. It never ends: a database that fails is tried again. */
const crawlShard = Effect.fnUntraced(function* (runner: Runner, shard: number) {
  const { dials, options, tables } = runner
  const { concurrency = 16 } = options
  const fibers = yield* FiberSet.make()
  /** Open when a visit has ended: its subnet is free. */
  const freed = yield* Latch.make()
  const turn = Effect.gen(function* () {
    freed.closeUnsafe()
    const running = yield* FiberSet.size(fibers)
    // No more than can be dialled now: if this runner dies, a claimed address waits for its hour, dialled or not.
    const free = dials.take(concurrency - running, yield* Clock.currentTimeMillis)
    const claimed = free > 0 ? yield* tables.claim(shard, free, runner.networks) : []
    dials.giveBack(free - claimed.length)
    for (const claim of claimed) {
      yield* FiberSet.run(
        fibers,
        attend(runner, claim).pipe(
          Effect.onInterrupt(() => Effect.ignore(Effect.timeout(tables.abandon(claim.address), farewell))),
          Effect.ignoreCause({ log: "Warn", message: "a visit was not saved" }),
          Effect.ensuring(Effect.sync(() => freed.openUnsafe()))
        )
      )
    }
    if (free === 0) yield* Effect.sleep(pause)
    else if (claimed.length === 0) yield* Effect.raceFirst(freed.await, Effect.sleep(idle))
  })
  return yield* Effect.forever(
    Effect.catchCause(turn, (cause) =>
      Effect.andThen(Effect.logWarning("the shard waits for its database", cause), Effect.sleep(idle))
    )
  )
})

/**
 * A runner of the fleet: it crawls its part of the shards for as long as the layer lives. The cluster is that of the context, such as
 * `NodeClusterSocket.layer`; the database is that of `PgClient.layer`.
 *
 * Fails with `FleetError` if an option is wrong, or if the tables are those of another network or of another number of shards.
 *
 * @example
 * ```ts
 * import { NodeClusterSocket } from "@effect/platform-node"
 * import { PgClient } from "@effect/sql-pg"
 * import { Layer, Redacted } from "effect"
 * import * as FleetCrawler from "effect-bitcoin-peer-postgres/FleetCrawler"
 * import * as NodeDialer from "effect-bitcoin-peer/server/NodeDialer"
 * import * as Nonce from "effect-bitcoin-peer/Nonce"
 *
 * export const Runner = FleetCrawler.layer({ contact: "crawler@example.org" }).pipe(
 *   Layer.provide([NodeClusterSocket.layer({ storage: "sql" }), NodeDialer.layerDirect({ names: false }), Nonce.layer]),
 *   Layer.provide(PgClient.layer({ url: Redacted.make("postgres://localhost/crawl") }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, FleetError, Sharding | SqlClient | Dialer | Nonce> =>
  Layer.unwrap(
    Effect.gen(function* () {
      const problem = problemOf(options)
      if (problem !== undefined) return yield* new FleetError({ problem, cause: undefined })
      const { network = Network.mainnet, rate = 50, seeds = [], shards = 16 } = options
      const tables = yield* makeTables({
        network,
        shards,
        revisit: Duration.toMillis(options.revisit ?? "1 hour"),
        maximumAddresses: options.maximumAddresses ?? 1_000_000,
        allowUnroutable: options.allowUnroutable ?? false,
        isBanned: options.isBanned ?? (() => false)
      })
      const { ways } = yield* Dialer
      const clock = yield* Clock.Clock
      yield* tables.create
      const timestamp = Math.floor(clock.currentTimeMillisUnsafe() / 1000)
      yield* tables.add(seeds.map((seed) => Object.assign({ services: 0n, timestamp }, seed)))

      let full = false
      const runner: Runner = {
        tables,
        options,
        // An address that is not routable goes the way of its kind, and only if that is allowed it is in the table.
        networks: [...ways, "not_publicly_routable"],
        dials: new Dials(rate),
        isFull: () => full
      }
      const counting = Effect.forever(
        Effect.andThen(
          Effect.ignore(Effect.tap(tables.isFull, (isFull) => Effect.sync(() => void (full = isFull)))),
          Effect.sleep(supervision)
        )
      )
      const Shards = Shard.toLayer(
        Effect.gen(function* () {
          const { entityId } = yield* Entity.CurrentAddress
          yield* Effect.forkScoped(crawlShard(runner, Number(entityId)))
          yield* Entity.keepAlive(true)
          return Shard.of({ Start: () => Effect.void })
        }),
        { maxIdleTime: "1 minute" }
      )
      const Supervisor = Singleton.make(
        "effect-bitcoin-peer/CrawlSupervisor",
        Effect.gen(function* () {
          const client = yield* Shard.client
          const wake = Effect.forEach(
            Array.from({ length: shards }, (_, shard) => String(shard)),
            (shard) => Effect.ignore(Effect.timeout(client(shard).Start(), supervision)),
            { concurrency: "unbounded", discard: true }
          )
          yield* Effect.forever(Effect.andThen(wake, Effect.sleep(supervision)))
        })
      )
      return Layer.mergeAll(Shards, Supervisor, Layer.effectDiscard(Effect.forkScoped(counting)))
    })
  )
