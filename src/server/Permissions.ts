/**
 * Permissions of peers by their address or by the address on which they arrive: Bitcoin Core's `-whitelist` and `-whitebind`, in the
 * same texts.
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import * as Address from "../Address.ts"
import { parseSubnet, type Subnet, subnetContains } from "./internal/subnetTrie.ts"

/**
 * A permission, by the name that Bitcoin Core prints.
 *
 * - `bloomfilter`: may set bloom filters (BIP37).
 * - `noban`: is never evicted, discouraged or banned, and connects although it is banned. Has `download`, too.
 * - `forcerelay`: its transactions are relayed even if we have them. Has `relay`, too.
 * - `relay`: its transactions are relayed by a node that relays only blocks.
 * - `mempool`: may ask for our mempool (BIP35).
 * - `download`: is served old blocks after the upload target, and headers during our initial sync.
 * - `addr`: its addresses are not limited, and its `getaddr` is not answered from the cache.
 *
 * @category models
 * @since 0.1.0
 */
export type Permission = "bloomfilter" | "noban" | "forcerelay" | "relay" | "mempool" | "download" | "addr"

/**
 * The permissions of a peer.
 *
 * @category models
 * @since 0.1.0
 */
export type Permissions = ReadonlySet<Permission>

/** In the order in which Core prints them. */
const names: ReadonlyArray<Permission> = ["bloomfilter", "noban", "forcerelay", "relay", "mempool", "download", "addr"]

const implied: { readonly [name in Permission]?: Permission } = { noban: "download", forcerelay: "relay" }

/**
 * Makes permissions with those that they imply, in the order in which Bitcoin Core prints them.
 *
 * @example
 * ```ts
 * import * as Permissions from "effect-bitcoin-peer/server/Permissions"
 *
 * console.log([...Permissions.of("relay", "noban")]) // [ 'noban', 'relay', 'download' ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const of = (...permissions: ReadonlyArray<Permission>): Permissions => {
  const all = new Set(permissions.flatMap((name) => [name, implied[name] ?? name]))
  return new Set(names.filter((name) => all.has(name)))
}

/**
 * No permissions.
 *
 * @category constants
 * @since 0.1.0
 */
export const none: Permissions = of()

/**
 * All permissions.
 *
 * @category constants
 * @since 0.1.0
 */
export const all: Permissions = of(...names)

/**
 * The permissions of a text that names no permission.
 *
 * @category models
 * @since 0.1.0
 */
export interface ImplicitOptions {
  /** Grants `relay`, as Core's `-whitelistrelay`. The default is true. */
  readonly relay?: boolean | undefined
  /** Grants `forcerelay`, as Core's `-whitelistforcerelay`. The default is false. */
  readonly forceRelay?: boolean | undefined
}

/**
 * The permissions of a text that names no permission: `noban`, `mempool` and, by default, `relay`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const implicit = (options: ImplicitOptions = {}): Permissions =>
  of(
    "mempool",
    "noban",
    ...(options.relay === false ? [] : (["relay"] as const)),
    ...(options.forceRelay === true ? (["forcerelay"] as const) : [])
  )

/**
 * Why a text is not an entry of a whitelist or a whitebind.
 *
 * @category errors
 * @since 0.1.0
 */
export type PermissionsReason =
  /** Only the names of `Permission`, `bloom`, `all`, `in` and `out` exist. */
  | { readonly _tag: "UnknownPermission"; readonly name: string }
  /** A direction without a permission grants nothing. */
  | { readonly _tag: "OnlyDirection" }
  /** A whitebind is about peers that arrive, so it has no "out". */
  | { readonly _tag: "OutOnBind" }
  /** A whitelist needs a subnet or a host after the `@`. */
  | { readonly _tag: "InvalidSubnet"; readonly subnet: string; readonly problem: string }
  /** A whitebind needs an address after the `@`, not a name. */
  | { readonly _tag: "InvalidAddress"; readonly address: string; readonly problem: string }
  /** A whitebind needs a port. */
  | { readonly _tag: "NoPort"; readonly address: string }

/**
 * The error of a text that is not an entry of a whitelist or a whitebind.
 *
 * @category errors
 * @since 0.1.0
 */
export class PermissionsError extends Data.TaggedError("PermissionsError")<{
  readonly text: string
  readonly reason: PermissionsReason
}> {
  override get message(): string {
    const { reason, text } = this
    switch (reason._tag) {
      case "UnknownPermission":
        return `"${text}": there is no permission "${reason.name}" (permissions: ${names.join(", ")}, all; directions: in, out)`
      case "OnlyDirection":
        return `"${text}" has a direction but no permission`
      case "OutOnBind":
        return `"${text}": a bind is for incoming connections only, "out" has no meaning there`
      case "InvalidSubnet":
        return `"${text}" does not end with a subnet: ${reason.problem}`
      case "InvalidAddress":
        return `"${text}" does not end with an address: ${reason.problem}`
      case "NoPort":
        return `"${text}" needs a port after ${reason.address}`
    }
  }
}

/**
 * Permissions for the peers of a subnet.
 *
 * @category models
 * @since 0.1.0
 */
export interface WhitelistEntry {
  readonly subnet: Subnet
  /** "implicit" if the text names none: see `implicit`. */
  readonly permissions: Permissions | "implicit"
  /** Whether they hold for peers that connect to us. */
  readonly in: boolean
  /** Whether they hold for peers that the operator made us connect to. */
  readonly out: boolean
}

/**
 * Permissions for the peers that arrive on an address of ours.
 *
 * @category models
 * @since 0.1.0
 */
export interface WhitebindEntry {
  readonly address: Address.Address
  /** "implicit" if the text names none: see `implicit`. */
  readonly permissions: Permissions | "implicit"
}

interface Parsed {
  readonly permissions: Permissions | "implicit"
  readonly in: boolean
  readonly out: boolean
  /** What follows the `@`, or the whole text without one. */
  readonly rest: string
}

const isPermission = (name: string): name is Permission => names.some((known) => known === name)

const parse = (text: string): Result.Result<Parsed, PermissionsError> => {
  const at = text.indexOf("@")
  if (at < 0) return Result.succeed({ permissions: "implicit", in: true, out: false, rest: text })
  const parts = text.slice(0, at).split(",")
  const permissions: Array<Permission> = []
  for (const part of parts) {
    if (isPermission(part)) permissions.push(part)
    else if (part === "bloom") permissions.push("bloomfilter")
    else if (part === "all") permissions.push(...names)
    else if (part !== "in" && part !== "out" && part !== "") {
      return Result.fail(new PermissionsError({ text, reason: { _tag: "UnknownPermission", name: part } }))
    }
  }
  const out = parts.includes("out")
  const directed = out || parts.includes("in")
  if (directed && permissions.length === 0) {
    return Result.fail(new PermissionsError({ text, reason: { _tag: "OnlyDirection" } }))
  }
  return Result.succeed({
    permissions: of(...permissions),
    in: !out || parts.includes("in"),
    out,
    rest: text.slice(at + 1)
  })
}

/**
 * Reads `[permissions@]subnet`. Permissions and the directions "in" and "out" are separated by commas; without a direction they hold
 * for peers that connect to us.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import * as Permissions from "effect-bitcoin-peer/server/Permissions"
 *
 * const entry = Result.getOrThrow(Permissions.parseWhitelist("noban,in,out@192.168.0.0/16"))
 * console.log(entry.permissions, entry.in, entry.out) // Set(2) { 'noban', 'download' } true true
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const parseWhitelist = (text: string): Result.Result<WhitelistEntry, PermissionsError> =>
  Result.flatMap(parse(text), ({ rest, ...entry }) =>
    Result.mapBoth(parseSubnet(rest), {
      onSuccess: (subnet) => ({ ...entry, subnet }),
      onFailure: ({ problem }) =>
        new PermissionsError({ text, reason: { _tag: "InvalidSubnet", subnet: rest, problem } })
    })
  )

/**
 * Reads `[permissions@]address:port`.
 *
 * @category decoding
 * @since 0.1.0
 */
export const parseWhitebind = (text: string): Result.Result<WhitebindEntry, PermissionsError> => {
  const failed = (reason: PermissionsReason) => Result.fail(new PermissionsError({ text, reason }))
  return Result.flatMap(parse(text), ({ out, permissions, rest }): Result.Result<WhitebindEntry, PermissionsError> => {
    if (out) return failed({ _tag: "OutOnBind" })
    const address = Address.parse(rest)
    if (Result.isFailure(address)) {
      return failed({ _tag: "InvalidAddress", address: rest, problem: address.failure.message })
    }
    return address.success.port === 0
      ? failed({ _tag: "NoPort", address: rest })
      : Result.succeed({ address: address.success, permissions })
  })
}

const union = (
  granted: ReadonlyArray<Permissions | "implicit" | undefined>,
  options: ImplicitOptions | undefined
): Permissions =>
  granted.length === 0
    ? none
    : of(...granted.flatMap((one) => [...(one === "implicit" ? implicit(options) : (one ?? none))]))

/**
 * The permissions of a peer that connected to us: those of the address on which it arrived and those of its own address.
 *
 * A peer that arrives on the bind of an onion service has only those of the bind, because its own address is not known.
 *
 * @category getters
 * @since 0.1.0
 */
export const forInbound = (
  host: Address.Host,
  rules: {
    readonly whitelist: ReadonlyArray<WhitelistEntry>
    /** The permissions of the whitebind, if it arrived on one. */
    readonly bind?: Permissions | "implicit" | undefined
    readonly isOnionBind?: boolean | undefined
    readonly implicit?: ImplicitOptions | undefined
  }
): Permissions =>
  union(
    [
      rules.bind,
      ...rules.whitelist
        .filter((entry) => rules.isOnionBind !== true && entry.in && subnetContains(entry.subnet, host))
        .map(({ permissions }) => permissions)
    ],
    rules.implicit
  )

/**
 * The permissions of a peer that the operator made us connect to. Other outbound peers have none.
 *
 * @category getters
 * @since 0.1.0
 */
export const forManual = (host: Address.Host, whitelist: ReadonlyArray<WhitelistEntry>): Permissions =>
  union(
    whitelist.filter((entry) => entry.out && subnetContains(entry.subnet, host)).map(({ permissions }) => permissions),
    undefined
  )
