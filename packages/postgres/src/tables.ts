/**
 * The frontier and the visits of a fleet, as tables of PostgreSQL. All times are milliseconds since 1970 by the clock of the database:
 * the clocks of the machines do not matter.
 */
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import * as Address from "effect-bitcoin-peer/Address"
import type * as Network from "effect-bitcoin-peer/Network"
import type * as Crawler from "effect-bitcoin-peer/server/Crawler"
import { networkNameOf } from "effect-bitcoin-peer/server/Dialer"
import type * as Wire from "effect-bitcoin-peer/Wire"
import { FleetError } from "./FleetError.ts"

/** The version of the tables. */
const version = "1"

/**
 * A visit that began this long ago has ended, or its runner has: the subnet is free. Longer than the longest visit of IPv4 and IPv6,
 * with a second connection. Of other networks a subnet is one host.
 */
const visitMillis = 180_000

/** A failed address is visited after 1, 2, 4 … times `revisit`, up to this. */
const maximumBackoff = 86_400_000

/** How many addresses of a subnet are kept: a /64 of IPv6 is one customer's. */
const maximumPerSubnet = { 1: 2_048, 2: 8 } as const
/** Tor, I2P and CJDNS: the subnet is the host. */
const maximumPerHost = 8

/** A time that is further ahead is wrong, and becomes one of five days ago (Core). In seconds. */
const maximumAhead = 600
const wrongTimeAge = 5 * 86_400

/** An address that this runner has claimed. */
export interface Claimed {
  readonly address: string
  readonly services: string
}

/** The /24 of IPv4, the /64 of IPv6, the host of other networks. */
export const subnetOf = (host: Address.Host): string => {
  const { address, networkId } = Address.canonical(host)
  const bytes = networkId === Address.NetworkId.ipv4 ? 3 : networkId === Address.NetworkId.ipv6 ? 8 : address.length
  return `${networkId}:${Array.from(address.subarray(0, bytes), (byte) => byte.toString(16).padStart(2, "0")).join("")}`
}

/** The shard of a subnet: a subnet is in one shard, so that one machine at a time visits it. FNV-1a. */
export const shardOf = (subnet: string, shards: number): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < subnet.length; index++) {
    hash = Math.imul(hash ^ subnet.charCodeAt(index), 0x01000193)
  }
  return (hash >>> 0) % shards
}

export interface TableSettings {
  readonly network: Network.Network
  readonly shards: number
  /** Milliseconds. */
  readonly revisit: number
  readonly maximumAddresses: number
  readonly allowUnroutable: boolean
  readonly isBanned: (host: Address.Host) => boolean
}

const hex64 = (value: bigint): string => value.toString(16).padStart(16, "0")

/** PostgreSQL has no text with a zero byte; a user agent may have one. */
const clean = (text: string): string => text.replaceAll("\0", "\ufffd")

const failed = (operation: string) =>
  Effect.mapError((error: unknown) =>
    error instanceof FleetError ? error : new FleetError({ problem: `cannot ${operation}`, cause: error })
  )

export const makeTables = (settings: TableSettings) =>
  Effect.map(SqlClient.SqlClient, (sql) => {
    const { network, revisit, shards } = settings
    const now = sql.literal("(extract(epoch FROM clock_timestamp()) * 1000)::bigint")

    /** Makes the tables. Only one of several runners that start together does. */
    const create = sql
      .withTransaction(
        Effect.gen(function* () {
          yield* sql`SELECT pg_advisory_xact_lock(hashtext('effect-bitcoin-peer/fleet'))`
          yield* sql`CREATE TABLE IF NOT EXISTS fleet_info (name text PRIMARY KEY, value text NOT NULL)`
          yield* sql`CREATE TABLE IF NOT EXISTS fleet_address (
            address text PRIMARY KEY,
            network text NOT NULL,
            shard integer NOT NULL,
            subnet text NOT NULL,
            state text NOT NULL DEFAULT 'new',
            services text NOT NULL,
            seen_at bigint NOT NULL,
            added_at bigint NOT NULL,
            due_at bigint NOT NULL,
            visited_at bigint NOT NULL DEFAULT 0,
            reached_at bigint NOT NULL DEFAULT 0,
            visits integer NOT NULL DEFAULT 0,
            successes integer NOT NULL DEFAULT 0,
            failures integer NOT NULL DEFAULT 0,
            problem text,
            protocol_version bigint,
            user_agent text,
            start_height bigint,
            transport text
          )`
          yield* sql`CREATE INDEX IF NOT EXISTS fleet_address_due ON fleet_address (shard, due_at)`
          yield* sql`CREATE INDEX IF NOT EXISTS fleet_address_subnet ON fleet_address (subnet)`
          yield* sql`CREATE TABLE IF NOT EXISTS fleet_visit (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            address text NOT NULL,
            runner text NOT NULL,
            started_at bigint NOT NULL,
            ended_at bigint NOT NULL,
            reached boolean NOT NULL,
            problem text,
            learnt integer NOT NULL
          )`
          const about = { version, network: network.name, shards: String(shards) }
          for (const [name, value] of Object.entries(about)) {
            yield* sql`INSERT INTO fleet_info ${sql.insert({ name, value })} ON CONFLICT (name) DO NOTHING`
          }
          const rows = yield* sql<{ readonly name: string; readonly value: string }>`SELECT name, value FROM fleet_info`
          for (const { name, value } of rows) {
            const ours = about[name as keyof typeof about]
            if (ours !== undefined && ours !== value) {
              return yield* new FleetError({
                problem: `the tables of this database have the ${name} ${value}, and this runner ${ours}`,
                cause: undefined
              })
            }
          }
        })
      )
      .pipe(failed("make the tables"))

    const isWanted = (address: Address.Address): boolean =>
      (address.port !== 0 || address.networkId === Address.NetworkId.i2p) &&
      (settings.allowUnroutable ? Address.isValid(address) : Address.isRoutable(address)) &&
      !settings.isBanned(address)

    /** Adds addresses. Those that are known stay as they are. */
    const add = (told: ReadonlyArray<Wire.AddressV2>) =>
      Effect.gen(function* () {
        const rows = told.filter(isWanted).map((entry) => {
          const subnet = subnetOf(entry)
          return {
            address: Address.format(entry),
            network: networkNameOf(entry),
            shard: shardOf(subnet, shards),
            subnet,
            services: hex64(entry.services),
            seen_at: entry.timestamp,
            most: maximumPerSubnet[entry.networkId as 1 | 2] ?? maximumPerHost
          }
        })
        if (rows.length === 0) return
        yield* sql`INSERT INTO fleet_address (address, network, shard, subnet, services, seen_at, added_at, due_at)
          SELECT address, network, shard, subnet, services,
            CASE WHEN seen_at > ${now} / 1000 + ${maximumAhead} THEN ${now} / 1000 - ${wrongTimeAge} ELSE seen_at END,
            ${now}, ${now}
          FROM jsonb_to_recordset(${JSON.stringify(rows)}::text::jsonb) AS told
            (address text, network text, shard integer, subnet text, services text, seen_at bigint, most integer)
          WHERE (SELECT count(*) FROM fleet_address AS kept WHERE kept.subnet = told.subnet) < most
          ORDER BY address
          ON CONFLICT (address) DO NOTHING`
      })

    /**
     * Claims addresses of a shard that are due, one of a subnet. The time of the next visit is fixed with the claim: if this runner dies
     * now, nobody visits the address before. Runners that both believe to have the shard, for the moment in which it moves, skip the
     * rows of each other.
     */
    const claim = (shard: number, limit: number, networks: ReadonlyArray<string>) =>
      sql<Claimed>`WITH due AS (
          SELECT address, subnet, due_at FROM fleet_address AS waiting
          WHERE shard = ${shard} AND due_at <= ${now} AND ${sql.in("network", networks)}
            AND NOT EXISTS (
              SELECT 1 FROM fleet_address AS busy
              WHERE busy.subnet = waiting.subnet AND busy.state = 'visiting' AND busy.visited_at > ${now} - ${visitMillis}
            )
          ORDER BY due_at
          LIMIT ${limit * 8}
          FOR UPDATE SKIP LOCKED
        ), first AS (
          SELECT address, row_number() OVER (PARTITION BY subnet ORDER BY due_at) AS nth FROM due
        )
        UPDATE fleet_address SET state = 'visiting', visited_at = ${now}, due_at = ${now} + ${revisit}
        WHERE address IN (SELECT address FROM first WHERE nth = 1 LIMIT ${limit})
        RETURNING address, services`.pipe(failed("claim addresses"))

    /** Saves what a visit found, all of it or nothing. */
    const finish = (address: string, visit: Crawler.Visit, runner: string, learn: boolean) => {
      const learnt = visit._tag === "Reached" && learn ? visit.learnt : []
      const outcome =
        visit._tag === "Reached"
          ? sql`UPDATE fleet_address SET ${sql.update({
              state: "reached",
              failures: 0,
              problem: null,
              services: hex64(visit.info.services),
              protocol_version: visit.info.remoteProtocolVersion,
              user_agent: clean(visit.info.userAgent),
              start_height: visit.info.startHeight,
              transport: visit.info.transport
            })}, reached_at = visited_at, visits = visits + 1, successes = successes + 1 WHERE address = ${address}`
          : sql`UPDATE fleet_address SET ${sql.update({ state: "failed", problem: visit.problem })},
              failures = failures + 1, visits = visits + 1,
              due_at = visited_at + LEAST(${revisit} * 2 ^ LEAST(failures, 20), ${Math.max(revisit, maximumBackoff)})::bigint
              WHERE address = ${address}`
      const log = sql`INSERT INTO fleet_visit (address, runner, started_at, ended_at, reached, problem, learnt)
        SELECT address, ${runner}, visited_at, ${now}, ${visit._tag === "Reached"},
          ${visit._tag === "Failed" ? visit.problem : null}, ${visit._tag === "Reached" ? visit.learnt.length : 0}
        FROM fleet_address WHERE address = ${address}`
      return sql
        .withTransaction(Effect.andThen(outcome, Effect.andThen(log, add(learnt))))
        .pipe(Effect.asVoid, failed("save a visit"))
    }

    /** Ends a visit that was cut short, so that its subnet is free. The address is due when it would have been anyway. */
    const abandon = (address: string) =>
      sql`UPDATE fleet_address
        SET state = CASE WHEN failures > 0 THEN 'failed' WHEN reached_at > 0 THEN 'reached' ELSE 'new' END
        WHERE address = ${address} AND state = 'visiting'`.pipe(Effect.asVoid, failed("give up a visit"))

    /** Whether there is no room for more addresses. */
    const isFull = sql<{
      readonly full: boolean
    }>`SELECT count(*) >= ${settings.maximumAddresses} AS full FROM fleet_address`.pipe(
      Effect.map(([row]) => row?.full === true),
      failed("count the addresses")
    )

    return {
      create,
      add: (told: ReadonlyArray<Wire.AddressV2>) => add(told).pipe(failed("add addresses")),
      claim,
      finish,
      abandon,
      isFull
    }
  })

export type Tables = Effect.Success<ReturnType<typeof makeTables>>
