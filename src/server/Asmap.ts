/**
 * Maps of the autonomous systems (AS) of IP addresses, in the format of Bitcoin Core's `-asmap`. One network operator has thousands of
 * /16 of IPv4: with a map, all of them are one group, and a server does not dial the same operator twice.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Address } from "effect-bitcoin-peer"
 * import { Asmap } from "effect-bitcoin-peer/server"
 *
 * // Every address belongs to AS 1: RETURN 1, then zeros up to the end of the byte.
 * const map = Result.getOrThrow(Asmap.parse(new Uint8Array(3)))
 * console.log(map.lookup(Result.getOrThrow(Address.parseHost("8.8.8.8")))) // 1
 * console.log(Result.isFailure(Asmap.parse(new Uint8Array(0)))) // true
 * ```
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import * as Address from "../Address.ts"
import { doubleSha256 } from "../primitives/sha256.ts"
import { flawOf, type Problem, walk } from "./internal/asmapWalk.ts"

export type { Problem } from "./internal/asmapWalk.ts"

const explanations: { readonly [Name in Problem]: string } = {
  Incomplete: "the file ends before the map does",
  JumpTooFar: "a jump leads beyond the end of the file",
  JumpsCross: "a jump leads out of the part that an earlier jump skips",
  JumpInside: "a jump leads into the middle of an instruction",
  Unreachable: "nothing leads to the instructions that follow",
  TooManyBits: "a path reads more than the 128 bits of an address",
  UselessDefault: "a default is replaced before it is used",
  SplitMatch: "two patterns should be one",
  BadPadding: "the end of the file is not at most 7 bits of 0"
}

/**
 * A map is damaged, or not a map, and was not used: an address could lead out of it. It fails the same checks in Bitcoin Core.
 *
 * @category errors
 * @since 0.1.0
 */
export class AsmapError extends Data.TaggedError("AsmapError")<{
  readonly problem: Problem
  /** The bit of the file at which the problem was found, from 0; the lowest bit of a byte is its first. */
  readonly bit: number
}> {
  override get message(): string {
    return `the map of autonomous systems is unusable: ${explanations[this.problem]} (bit ${this.bit})`
  }
}

/**
 * A checked map.
 *
 * @category models
 * @since 0.1.0
 */
export interface Asmap {
  /** The double SHA-256 of the file, 32 bytes. A peers.dat has it, because the buckets of an address depend on the map. */
  readonly version: Uint8Array
  /**
   * The number of the autonomous system of a host. `undefined` for an IP address that the map does not have, one that is not
   * routable, and hosts of other networks. The number of an IPv4 address counts also where it is tunnelled through IPv6 (6to4,
   * Teredo, NAT64, SIIT).
   */
  readonly lookup: (host: Address.Host) => number | undefined
}

/**
 * Reads a map and checks it. The bytes must not change afterwards, since the map is used where it is.
 *
 * @category decoding
 * @since 0.1.0
 */
export const parse = (bytes: Uint8Array): Result.Result<Asmap, AsmapError> => {
  const flaw = flawOf(bytes)
  if (flaw !== undefined) return Result.fail(new AsmapError(flaw))
  return Result.succeed({
    version: doubleSha256(bytes),
    lookup: (host) => {
      const address = addressOf(host)
      // AS 0 is reserved (RFC 7607): it stands for "not mapped".
      return address === undefined ? undefined : walk(bytes, address) || undefined
    }
  })
}

/** The 16 bytes by which a routable host is looked up. */
const addressOf = (host: Address.Host): Uint8Array | undefined => {
  if (!Address.isRoutable(host)) return undefined
  const ipv4 = Address.linkedIPv4(host)
  return Address.toBytes(ipv4 === undefined ? host : { networkId: Address.NetworkId.ipv4, address: ipv4 })
}

/** IPv4 and IPv6 have the same one, so that an autonomous system is one group. */
const mappedClass = 2

/**
 * The groups of a map, for an address book and for dialling: 2, then the number as a little-endian uint32. `undefined` for a host that
 * the map does not have, which keeps its group of `Address.group`.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Address } from "effect-bitcoin-peer"
 * import { Asmap } from "effect-bitcoin-peer/server"
 *
 * const groupOf = Asmap.groups(Result.getOrThrow(Asmap.parse(new Uint8Array(3))))
 * console.log(groupOf(Result.getOrThrow(Address.parseHost("8.8.8.8")))) // Uint8Array [2, 1, 0, 0, 0]
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const groups =
  (map: Asmap) =>
  (host: Address.Host): Uint8Array | undefined => {
    const system = map.lookup(host)
    return system === undefined
      ? undefined
      : Uint8Array.of(mappedClass, system, system >>> 8, system >>> 16, system >>> 24)
  }

/**
 * How well a map fits the addresses of a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Health {
  /** IP addresses with an autonomous system. */
  readonly mapped: number
  /** Routable IP addresses without one. Many of them mean that the map is old. */
  readonly unmapped: number
  /** Distinct autonomous systems. */
  readonly systems: number
}

/**
 * Counts how many of these hosts a map has. Hosts that are not routable, and hosts of networks other than IPv4 and IPv6, do not count.
 *
 * @category getters
 * @since 0.1.0
 */
export const health = (map: Asmap, hosts: Iterable<Address.Host>): Health => {
  const systems = new Set<number>()
  let mapped = 0
  let unmapped = 0
  for (const host of hosts) {
    if (addressOf(host) === undefined) continue
    const system = map.lookup(host)
    if (system === undefined) unmapped++
    else {
      mapped++
      systems.add(system)
    }
  }
  return { mapped, unmapped, systems: systems.size }
}
