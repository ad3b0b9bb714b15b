/**
 * Banned subnets and discouraged hosts. The operator or a policy bans; misbehaving hosts are discouraged.
 *
 * A banned host is neither accepted nor dialled, and its address is not relayed. A discouraged host is not dialled. It is accepted while
 * slots are free, and is evicted first. Bans can be listed, expire, and are saved in `banlist.json`. Discouraged hosts are in a rolling
 * Bloom filter, which cannot be listed and is lost when the process ends.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { canonical, type Host, NetworkId } from "../Address.ts"
import { type Ban, decode, encode, type SkippedBan } from "./internal/banFile.ts"
import { Bans } from "./internal/bans.ts"
import { makeRandom } from "./internal/random.ts"
import { RollingFilter } from "./internal/rollingFilter.ts"
import { formatSubnet, parseSubnet, type Subnet, type SubnetError, subnetOf } from "./internal/subnetTrie.ts"

export { type Ban, type BanFile, decode, type SkippedBan } from "./internal/banFile.ts"
export { formatSubnet, parseSubnet, type Subnet, subnetContains, SubnetError, subnetOf } from "./internal/subnetTrie.ts"

/**
 * The duration of a ban without `for` and `until`, as in Bitcoin Core and btcd: 24 hours.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultDuration: Duration.Duration = Duration.hours(24)

/**
 * Why a ban was not made or removed. The numbers are the codes of Bitcoin Core's `setban`.
 *
 * @category errors
 * @since 0.1.0
 */
export type BanReason =
  /** The text is not a subnet (-30). */
  | { readonly _tag: "InvalidSubnet"; readonly error: SubnetError }
  /** The subnet is banned already; for a host (no prefix), a subnet that contains it is (-23). Remove that ban to change it. */
  | { readonly _tag: "AlreadyBanned"; readonly subnet: Subnet }
  /** There is no ban of exactly this subnet to remove (-30). */
  | { readonly _tag: "NotBanned"; readonly subnet: Subnet }
  /** `until`, in Unix seconds, has passed (-8). */
  | { readonly _tag: "TimeInThePast"; readonly until: number }

/**
 * A ban was not made or removed. The list did not change.
 *
 * @category errors
 * @since 0.1.0
 */
export class BanError extends Data.TaggedError("BanError")<{ readonly reason: BanReason }> {
  override get message(): string {
    const { reason } = this
    switch (reason._tag) {
      case "InvalidSubnet":
        return reason.error.message
      case "AlreadyBanned":
        return `${formatSubnet(reason.subnet)} is already banned`
      case "NotBanned":
        return `${formatSubnet(reason.subnet)} is not banned`
      case "TimeInThePast":
        return `the ban would end at ${reason.until}, which has passed`
    }
  }
}

/**
 * The duration and the reason of a ban.
 *
 * @category options
 * @since 0.1.0
 */
export interface BanOptions {
  /** The duration; `defaultDuration` by default, and for 0. */
  readonly for?: Duration.Input | undefined
  /** The end in Unix seconds, in place of `for`. 0 counts as not given. */
  readonly until?: number | undefined
  /** A note for the operator. It is saved under a key that Bitcoin Core ignores. */
  readonly reason?: string | undefined
}

/**
 * A ban as Bitcoin Core's `listbanned` prints it. Times are Unix seconds, durations are seconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListedBan {
  readonly address: string
  readonly ban_created: number
  readonly banned_until: number
  readonly ban_duration: number
  readonly time_remaining: number
  readonly reason?: string | undefined
}

/**
 * A change of the list.
 *
 * @category models
 * @since 0.1.0
 */
export type BanChange =
  /** A subnet was banned. A server ends the peers of the subnet and saves the list. */
  | { readonly _tag: "Banned"; readonly ban: Ban }
  | { readonly _tag: "Unbanned"; readonly ban: Ban }
  | { readonly _tag: "Cleared" }
  /** A ban has expired. */
  | { readonly _tag: "Expired"; readonly ban: Ban }
  /** The list was full, so the ban that would end soonest was dropped for a new one. A server warns the operator. */
  | { readonly _tag: "Dropped"; readonly ban: Ban }

/**
 * The result of loading a `banlist.json`.
 *
 * @category models
 * @since 0.1.0
 */
export interface LoadedBans {
  /** The number of bans in the file. Expired ones count, but are not added. */
  readonly count: number
  /** Entries that cannot be read. The next save loses them, so keep a copy of the file if there are any. */
  readonly skipped: ReadonlyArray<SkippedBan>
  /** The problem, if the file is damaged as a whole: then only its intact entries were read. Set the file aside. */
  readonly damage: string | undefined
}

/**
 * The bans and the discouraged hosts of a server. The server asks for each connection, so the functions that decide are synchronous and
 * take `now` in milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export interface BanList {
  /**
   * Bans a subnet for the operator, as Bitcoin Core's `setban` with "add". Fails with `BanError`: a ban in force is not changed.
   */
  readonly ban: (subnet: string | Subnet, options?: BanOptions) => Effect.Effect<Ban, BanError>
  /** Removes the ban of exactly this subnet, and returns it. Fails with `BanError` if there is none. */
  readonly unban: (subnet: string | Subnet) => Effect.Effect<Ban, BanError>
  /** Removes all bans. */
  readonly clear: Effect.Effect<void>
  /** The bans in force, sorted by subnet. */
  readonly entries: Effect.Effect<ReadonlyArray<ListedBan>>
  /** Whether a host is banned. */
  readonly has: (host: Host, now: number) => boolean
  /**
   * Bans a host for a policy. A ban of this host that ends later is kept. Returns the ban in force, or `undefined` for a host of an
   * unknown network.
   */
  readonly banHost: (
    host: Host,
    options: { readonly for: Duration.Input; readonly reason?: string | undefined },
    now: number
  ) => Ban | undefined
  /** Discourages a host that misbehaved. For IPv6 its /64, because one customer has at least that many addresses. */
  readonly discourage: (host: Host) => void
  /** Whether a host was discouraged. The filter has false positives: one host in a million. */
  readonly isDiscouraged: (host: Host) => boolean
  /** Removes expired bans, and returns them. */
  readonly sweep: (now: number) => ReadonlyArray<Ban>
  /** The bans in force as `banlist.json`. */
  readonly encode: (now: number) => Uint8Array
  /** Adds the bans of a `banlist.json`. Never throws: an entry that cannot be read is skipped. */
  readonly load: (bytes: Uint8Array, now: number) => LoadedBans
  /** Calls the listener synchronously at every change. Returns a function that removes it. */
  readonly onChange: (listener: (change: BanChange) => void) => () => void
}

/**
 * The key of the service `BanList` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const BanList: Context.Service<BanList, BanList> = Context.Service<BanList>("effect-bitcoin-peer/server/BanList")

/**
 * The options of a ban list.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The largest number of bans; 100,000 by default. A further one drops the ban that ends soonest. */
  readonly capacity?: number | undefined
  /** Whether to discourage single IPv6 addresses, as Bitcoin Core does, instead of their /64; false by default. */
  readonly exact?: boolean | undefined
}

const defaultCapacity = 100_000

/** Bitcoin Core's sizes of the filter of discouraged hosts. */
const discouraged = { elements: 50_000, falsePositives: 1e-6 }

/** Bytes of the prefix of an IPv6 address that is discouraged: a /64. */
const discouragedPrefix = 8

const seconds = (now: number): number => Math.floor(now / 1_000)

const endOf = (created: number, length: Duration.Input): number => {
  const given = Duration.fromInputUnsafe(length)
  const chosen = Duration.isPositive(given) ? given : defaultDuration
  return Math.min(Number.MAX_SAFE_INTEGER, created + Math.ceil(Duration.toSeconds(chosen)))
}

const listed = ({ created, reason, subnet, until }: Ban, now: number): ListedBan => ({
  address: formatSubnet(subnet),
  ban_created: created,
  banned_until: until,
  ban_duration: until - created,
  time_remaining: until - now,
  ...(reason === undefined ? undefined : { reason })
})

const failed = (reason: BanReason) => Effect.fail(new BanError({ reason }))

const withSubnet = <A>(
  subnet: string | Subnet,
  f: (subnet: Subnet) => Effect.Effect<A, BanError>
): Effect.Effect<A, BanError> => {
  if (typeof subnet !== "string") return f(subnet)
  const parsed = parseSubnet(subnet)
  return Result.isFailure(parsed) ? failed({ _tag: "InvalidSubnet", error: parsed.failure }) : f(parsed.success)
}

/**
 * Makes a list without bans, with the `SecureRandom` of the context for the key of the filter of discouraged hosts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options?: Options
): Effect.fn.Return<BanList, never, SecureRandom.SecureRandom> {
  const key = yield* (yield* SecureRandom.SecureRandom).randomBytes(16)
  const bans = new Bans(options?.capacity ?? defaultCapacity)
  const filter = new RollingFilter(discouraged.elements, discouraged.falsePositives, makeRandom(key))
  const listeners = new Set<(change: BanChange) => void>()

  const changed = (change: BanChange): void => {
    for (const listener of listeners) listener(change)
  }
  const sweep = (now: number): ReadonlyArray<Ban> => {
    const ended = bans.sweep(seconds(now))
    for (const ban of ended) changed({ _tag: "Expired", ban })
    return ended
  }
  const add = (ban: Ban): Ban => {
    const { ban: holds, dropped, isNew } = bans.add(ban)
    if (dropped !== undefined) changed({ _tag: "Dropped", ban: dropped })
    if (isNew) changed({ _tag: "Banned", ban })
    return holds
  }
  const addNow = (ban: Ban, now: number): Ban => {
    sweep(now)
    return add(ban)
  }

  const ban = (given: string | Subnet, options: BanOptions = {}): Effect.Effect<Ban, BanError> =>
    withSubnet(given, (subnet) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const created = seconds(now)
        const isHost = typeof given === "string" && !given.includes("/")
        // As in Core: a host in a banned subnet counts as banned, a smaller subnet in it does not.
        const isBanned = isHost ? bans.has(subnet, created) : bans.hasSubnet(subnet, created)
        if (isBanned) return failed({ _tag: "AlreadyBanned", subnet })
        const { reason, until = 0 } = options
        if (until !== 0 && !(until >= created)) return failed({ _tag: "TimeInThePast", until })
        const end =
          until === 0
            ? endOf(created, options.for ?? defaultDuration)
            : Math.min(Number.MAX_SAFE_INTEGER, Math.floor(until))
        return Effect.sync(() => addNow({ subnet, created, until: end, reason }, now))
      })
    )
  const unban = (subnet: string | Subnet): Effect.Effect<Ban, BanError> =>
    withSubnet(subnet, (subnet) =>
      Effect.suspend(() => {
        const ban = bans.remove(subnet)
        if (ban === undefined) return failed({ _tag: "NotBanned", subnet })
        changed({ _tag: "Unbanned", ban })
        return Effect.succeed(ban)
      })
    )

  const keyOf = (of: Host): Uint8Array => {
    const { address, networkId } = canonical(of)
    const length = networkId === NetworkId.ipv6 && options?.exact !== true ? discouragedPrefix : address.length
    const key = new Uint8Array(1 + length)
    key[0] = networkId
    key.set(address.subarray(0, length), 1)
    return key
  }

  return {
    ban,
    unban,
    clear: Effect.sync(() => {
      bans.clear()
      changed({ _tag: "Cleared" })
    }),
    entries: Effect.map(Clock.currentTimeMillis, (now) => {
      sweep(now)
      return bans.all().map((ban) => listed(ban, seconds(now)))
    }),
    has: (host, now) => bans.has(host, seconds(now)),
    banHost: (host, { for: length, reason }, now) => {
      const subnet = subnetOf(host)
      if (subnet === undefined) return undefined
      const created = seconds(now)
      return addNow({ subnet, created, until: endOf(created, length), reason }, now)
    },
    discourage: (host) => filter.add(keyOf(host)),
    isDiscouraged: (host) => filter.has(keyOf(host)),
    sweep,
    encode: (now) => {
      sweep(now)
      return encode(bans.all())
    },
    load: (bytes, now) => {
      const file = decode(bytes)
      sweep(now)
      for (const ban of file.bans) if (ban.until >= seconds(now)) add(ban)
      return { count: file.bans.length, skipped: file.skipped, damage: file.damage }
    },
    onChange: (listener) => {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    }
  }
})

/**
 * An empty list, with a `SecureRandom` that the caller provides.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNoDeps = (options?: Options): Layer.Layer<BanList, never, SecureRandom.SecureRandom> =>
  Layer.effect(BanList, make(options))

/**
 * An empty list in memory. `Server.layer` loads its bans from the store, and saves changes there.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as BanList from "effect-bitcoin-peer/server/BanList"
 *
 * const program = Effect.gen(function*() {
 *   const bans = yield* BanList.BanList
 *   yield* bans.ban("192.0.2.0/24", { for: "7 days", reason: "floods" })
 *   const [ban] = yield* bans.entries
 *   console.log(ban?.address, ban?.ban_duration) // 192.0.2.0/24 604800
 *   const error = yield* Effect.flip(bans.ban("192.0.2.1"))
 *   console.log(error.message) // 192.0.2.1/32 is already banned
 * }).pipe(Effect.provide(BanList.layer))
 *
 * Effect.runPromise(program)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<BanList> = Layer.provide(layerNoDeps(), SecureRandom.layerWebCrypto)
