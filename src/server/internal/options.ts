/** The options of a server with their defaults, checked before it starts. */
import { SecureRandom } from "effect/crypto"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Address from "../../Address.ts"
import * as Network from "../../Network.ts"
import type * as Peer from "../../Peer.ts"
import { parseWhitelist, parseWhitebind, type Permissions, type WhitelistEntry } from "../Permissions.ts"
import type { Target } from "../Dialer.ts"
import { type Bind, type Options, ServerError } from "./model.ts"
import { publicNetworks } from "./networkNames.ts"
import { inboundPools, PoolsError } from "./pools.ts"
import type { Pool } from "./running.ts"
import { parseTarget } from "./targets.ts"

const bad = (problem: string): ServerError => new ServerError({ reason: { _tag: "BadOptions", problem } })

const networkNames: ReadonlySet<unknown> = new Set(publicNetworks)

/** A bind and its share of the inbound slots. */
export interface CheckedBind extends Pool {
  readonly bind: Bind
}

export interface Checked {
  readonly network: Network.Network
  readonly added: ReadonlyArray<Target>
  readonly whitelist: ReadonlyArray<WhitelistEntry>
  readonly binds: ReadonlyArray<CheckedBind>
  readonly external: ReadonlyArray<Address.Address>
  readonly randomKey: Uint8Array
  /** Only the added nodes are dialled. */
  readonly isConnectOnly: boolean
  readonly isFleet: boolean
  readonly dialRate: { readonly perSecond: number; readonly burst: number }
  readonly fullRelay: number
  readonly blockRelay: number
  readonly maxManual: number
  readonly maxInbound: number
  readonly maxPending: number
  readonly pendingDials: number
}

const bindNetworks = { clearnet: "ipv4", onion: "onion", i2p: "i2p" } as const

type Check = (value: unknown) => boolean

const isRecord = (value: unknown): value is { readonly [key: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value)
const isBoolean: Check = (value) => typeof value === "boolean"
const isFunction: Check = (value) => typeof value === "function"
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check)
const isText: Check = (value) => typeof value === "string"

/** What callers without TypeScript may pass in place of the right thing. */
const shapes: { readonly [name in keyof Options]?: readonly [Check, string] } = {
  network: [(value) => isRecord(value) && value["magic"] instanceof Uint8Array, "a Network such as Network.regtest"],
  added: [listOf(isText), "an array of texts"],
  connect: [listOf(isText), "an array of texts"],
  seedNodes: [listOf(isText), "an array of texts"],
  whitelist: [listOf(isText), "an array of texts"],
  external: [listOf(isText), "an array of texts"],
  onlyNetworks: [listOf(isText), "an array of texts"],
  fixedSeeds: [isBoolean, "true or false"],
  feelers: [isBoolean, "true or false"],
  allowUnroutable: [isBoolean, "true or false"],
  fleet: [isBoolean, "true or false"],
  discover: [isBoolean, "true or false"],
  requiredServices: [listOf((value) => typeof value === "bigint" && value > 0n), "an array of bigints above 0"],
  binds: [
    listOf((value) => isRecord(value) && Effect.isEffect(value["listen"])),
    "an array of objects, each with an Effect as `listen`"
  ],
  reputation: [(value) => isRecord(value) && isText(value["_tag"]), "a Policy such as Reputation.core"],
  asmap: [(value) => isRecord(value) && isFunction(value["lookup"]), "a map of Asmap"],
  handlers: [isRecord, "an object"],
  peer: [isRecord, "an object"],
  onPeer: [isFunction, "a function"],
  dialRate: [isRecord, "an object"]
}

/** Fails with the first wrong option. */
export const checked = <H extends Peer.Handlers<unknown>, R>(
  options: Options<H, R>
): Effect.Effect<Checked, ServerError> =>
  Effect.gen(function* () {
    const given: unknown = options
    if (!isRecord(given)) return yield* bad("the options must be an object")
    for (const [name, [check, expected]] of Object.entries(shapes)) {
      const value = given[name]
      if (value !== undefined && !check(value)) return yield* bad(`${name} must be ${expected}`)
    }
    const network = options.network ?? Network.mainnet
    for (const option of [
      "fullRelay",
      "blockRelay",
      "maxManual",
      "maxInbound",
      "maxPending",
      "pendingDials"
    ] as const) {
      const value: unknown = options[option]
      if (value === undefined || (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 1_000_000))
        continue
      return yield* bad(`${option} must be a whole number from 0 to 1,000,000`)
    }
    for (const name of options.onlyNetworks ?? []) {
      if (!networkNames.has(name)) return yield* bad(`onlyNetworks: there is no network "${name}"`)
    }
    const isFleet = options.fleet ?? false
    const isConnectOnly = isFleet || options.connect !== undefined
    const dialRate = options.dialRate ?? (isFleet ? { perSecond: 100, burst: 200 } : { perSecond: 4, burst: 8 })
    if (
      !(Number.isFinite(dialRate.perSecond) && dialRate.perSecond > 0) ||
      !(Number.isFinite(dialRate.burst) && dialRate.burst >= 1)
    ) {
      return yield* bad("dialRate must have numbers: a perSecond above 0 and a burst of at least 1")
    }
    const targets = Effect.fnUntraced(function* (option: "added" | "connect" | "seedNodes") {
      const found: Array<Target> = []
      for (const text of options[option] ?? []) {
        const target = parseTarget(text, network.port)
        if (Result.isFailure(target)) return yield* bad(`${option}: ${target.failure}`)
        found.push(target.success)
      }
      return found
    })
    const whitelist: Array<WhitelistEntry> = []
    for (const text of options.whitelist ?? []) {
      const entry = parseWhitelist(text)
      if (Result.isFailure(entry)) return yield* bad(`whitelist: ${entry.failure.message}`)
      whitelist.push(entry.success)
    }
    const external: Array<Address.Address> = []
    for (const text of options.external ?? []) {
      const address = Address.parse(text, network.port)
      if (Result.isFailure(address)) return yield* bad(`external: ${address.failure.message}`)
      external.push(address.success)
    }
    const secure = yield* Effect.serviceOption(SecureRandom.SecureRandom)
    const randomKey: unknown =
      options.randomKey ??
      (Option.isSome(secure) ? yield* secure.value.randomBytes(16) : crypto.getRandomValues(new Uint8Array(16)))
    if (!(randomKey instanceof Uint8Array && randomKey.length === 16)) return yield* bad("randomKey must be 16 bytes")

    const maxInbound = options.maxInbound ?? (isFleet ? 1_000_000 : 189)
    const binds = options.binds ?? []
    const names = binds.map((_, index) => `binds[${index}]`)
    const shares = Object.fromEntries(binds.map(({ slots }, index) => [names[index]!, slots]))
    const pools = inboundPools(maxInbound, names, shares)
    if (pools instanceof PoolsError) return yield* bad(pools.message)
    const pooled: Array<CheckedBind> = []
    for (const [index, bind] of binds.entries()) {
      const kind: unknown = bind.kind ?? "clearnet"
      if (typeof kind !== "string" || !Object.hasOwn(bindNetworks, kind)) {
        return yield* bad(`${names[index]!}: there is no kind "${String(kind)}" of bind`)
      }
      let bindPermissions: Permissions | "implicit" | undefined
      if (bind.permissions !== undefined) {
        // The address is of no matter: the listener has its own.
        const entry = parseWhitebind(`${bind.permissions}@127.0.0.1:1`)
        if (Result.isFailure(entry)) return yield* bad(`${names[index]!}: ${entry.failure.message}`)
        bindPermissions = entry.success.permissions
      }
      pooled.push({
        bind,
        network: bindNetworks[bind.kind ?? "clearnet"],
        slots: pools.get(names[index]!)!,
        bindPermissions
      })
    }
    // Only checked here: their texts are read again when it is their turn.
    yield* targets("seedNodes")
    return {
      network,
      added: [...(yield* targets("connect")), ...(yield* targets("added"))],
      whitelist,
      binds: pooled,
      external,
      randomKey,
      isConnectOnly,
      isFleet,
      dialRate,
      fullRelay: isConnectOnly ? 0 : (options.fullRelay ?? 8),
      blockRelay: isConnectOnly ? 0 : (options.blockRelay ?? 2),
      maxManual: isConnectOnly ? Number.POSITIVE_INFINITY : (options.maxManual ?? 8),
      maxInbound,
      maxPending: options.maxPending ?? 128,
      pendingDials: options.pendingDials ?? 4
    }
  })
