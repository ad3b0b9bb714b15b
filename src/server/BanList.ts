/**
 * Who may not connect: banned subnets, by hand or by a policy, and discouraged hosts, which misbehaved.
 *
 * A banned host is neither accepted nor dialled, and its address is not relayed. A discouraged one is accepted while slots are free
 * and is the first to be evicted. Bans are listed, end, and are kept in `banlist.json`; discouragement is a filter that cannot be
 * listed and ends with the process.
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
 * The length of a ban without `for` and `until`, as in Bitcoin Core and btcd.
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
  /** This subnet is banned, or a subnet that contains this host, which is given without a prefix (-23). Remove that ban to change it. */
  | { readonly _tag: "AlreadyBanned"; readonly subnet: Subnet }
  /** The ban to remove does not exist (-30). A subnet is only removed by itself, not by a part of it. */
  | { readonly _tag: "NotBanned"; readonly subnet: Subnet }
  /** `until` has passed (-8). */
  | { readonly _tag: "TimeInThePast"; readonly until: number }

/**
 * The error of a ban that was not made or removed. The list did not change.
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
 * How long and why a subnet is banned.
 *
 * @category models
 * @since 0.1.0
 */
export interface BanOptions {
  /** The default is 24 hours, also for 0. */
  readonly for?: Duration.Input | undefined
  /** The end in seconds since 1970, in place of `for`. 0 is the default, too. */
  readonly until?: number | undefined
  /** Kept in the file, under a key that Bitcoin Core ignores. */
  readonly reason?: string | undefined
}

/**
 * A ban in the form of Bitcoin Core's `listbanned`. Times are seconds.
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
  /** End all peers of the subnet, and save the list. */
  | { readonly _tag: "Banned"; readonly ban: Ban }
  | { readonly _tag: "Unbanned"; readonly ban: Ban }
  | { readonly _tag: "Cleared" }
  /** A ban has ended. */
  | { readonly _tag: "Expired"; readonly ban: Ban }
  /** The list was full: the ban that ended soonest was given up for another. Warn the operator. */
  | { readonly _tag: "Dropped"; readonly ban: Ban }

/**
 * What was read of a file.
 *
 * @category models
 * @since 0.1.0
 */
export interface LoadedBans {
  /** Bans that were read, whether or not they have ended by now. */
  readonly count: number
  /** Entries that were left out. Keep a copy of the file if there are any: it is written without them. */
  readonly skipped: ReadonlyArray<SkippedBan>
  /** Why the file as a whole cannot be read, if so: then only entries that are whole were read. Set the file aside. */
  readonly damage: string | undefined
}

/**
 * The bans and the discouraged hosts of a server. Functions that take `now`, in milliseconds since 1970, are synchronous, because
 * they decide about connections that are about to be made.
 *
 * @category models
 * @since 0.1.0
 */
export interface BanList {
  /**
   * Bans a subnet by hand, as Bitcoin Core's `setban` with "add". Fails with `AlreadyBanned` instead of changing a ban that holds.
   */
  readonly ban: (subnet: string | Subnet, options?: BanOptions) => Effect.Effect<Ban, BanError>
  /** Removes the ban of exactly this subnet, and returns it. */
  readonly unban: (subnet: string | Subnet) => Effect.Effect<Ban, BanError>
  /** Removes all bans. */
  readonly clear: Effect.Effect<void>
  /** The bans, sorted by subnet. Those that have ended are removed first. */
  readonly entries: Effect.Effect<ReadonlyArray<ListedBan>>
  /** Whether a host is banned. */
  readonly has: (host: Host, now: number) => boolean
  /**
   * Bans a host by a policy. It replaces an older ban of this host only if it ends later. Returns the ban that holds; `undefined` for a
   * host of an unknown network.
   */
  readonly banHost: (
    host: Host,
    options: { readonly for: Duration.Input; readonly reason?: string | undefined },
    now: number
  ) => Ban | undefined
  /** Marks a host that misbehaved. Of IPv6 its /64 is marked, because one customer has at least that many addresses. */
  readonly discourage: (host: Host) => void
  /** Whether a host was discouraged; one in a million is found by mistake. */
  readonly isDiscouraged: (host: Host) => boolean
  /** Removes the bans that have ended, and returns them. */
  readonly sweep: (now: number) => ReadonlyArray<Ban>
  /** The bytes of `banlist.json`. Bans that have ended are removed first. */
  readonly encode: (now: number) => Uint8Array
  /** Adds the bans of a `banlist.json`. It never throws: a bad entry costs itself only. */
  readonly load: (bytes: Uint8Array, now: number) => LoadedBans
  /** Calls a function at every change, before the function that changed the list returns. Returns a function that stops this. */
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
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The highest number of bans, by default 100,000. One more drops the one that ends soonest. */
  readonly capacity?: number | undefined
  /** Discourages single IPv6 addresses, as Bitcoin Core does, instead of their /64. */
  readonly exact?: boolean | undefined
}

const defaultCapacity = 100_000

/** Bitcoin Core's sizes of the filter of discouraged hosts. */
const discouraged = { elements: 50_000, falsePositives: 1e-6 }

/** Bytes of an IPv6 address that are discouraged together. */
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
        // As in Core a host in a banned subnet is banned, and a subnet in one is not.
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
 * An empty list that keeps nothing. `Server.layer` fills it from its store, and saves its changes there.
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
