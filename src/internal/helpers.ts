/** What the sending helpers decide, without sending: plain functions, the randomness passed in. */
import { NetAddress } from "effect/net"
import * as Result from "effect/Result"
import * as Wire from "../Wire.ts"

/** `count` elements chosen at random, in random order; all of them, in their order, when there are no more. */
export const choose = <A>(
  elements: ReadonlyArray<A>,
  count: number,
  random: (bound: number) => number
): ReadonlyArray<A> => {
  if (elements.length <= count) return elements
  const chosen = elements.slice()
  for (let index = 0; index < count; index++) {
    const other = index + random(chosen.length - index)
    const element = chosen[index]!
    chosen[index] = chosen[other]!
    chosen[other] = element
  }
  return chosen.slice(0, count)
}

const ipv4 = 1
const ipv6 = 2

/** The form of an address that fits into an `addr` message; undefined for those that BIP155 is needed for. */
export const toAddr = ({
  address,
  networkId,
  port,
  services,
  timestamp
}: Wire.AddressV2): Wire.TimestampedAddress | undefined => {
  if (networkId === ipv6) return { timestamp, services, address, port }
  if (networkId !== ipv4) return undefined
  const mapped = new Uint8Array(16)
  mapped.fill(0xff, 10, 12)
  mapped.set(address, 12)
  return { timestamp, services, address: mapped, port }
}

const isMapped = (address: Uint8Array): boolean =>
  address[10] === 0xff && address[11] === 0xff && address.subarray(0, 10).every((byte) => byte === 0)

/** An address of an `addr` message in the form of BIP155. */
export const fromAddr = ({ address, port, services, timestamp }: Wire.TimestampedAddress): Wire.AddressV2 =>
  isMapped(address)
    ? { timestamp, services, networkId: ipv4, address: address.subarray(12), port }
    : { timestamp, services, networkId: ipv6, address, port }

/** The part of the network a host belongs to, as Core has it: /16 of IPv4, /32 of IPv6; anything else is its own. */
export const networkGroup = (host: string): string => {
  const ip = NetAddress.ipFromString(host)
  if (Result.isFailure(ip)) return host
  return NetAddress.isIpv4Address(ip.success)
    ? NetAddress.ipv4ToOctets(ip.success).slice(0, 2).join(".")
    : NetAddress.ipv6ToSegments(ip.success).slice(0, 2).join(":")
}

const sameBytes = (one: Uint8Array | undefined, other: Uint8Array | undefined): boolean =>
  one === other ||
  (one !== undefined &&
    other !== undefined &&
    one.length === other.length &&
    one.every((byte, index) => byte === other[index]))

/** Remembers the last question; the same again, by its first locator hash and its stop hash, is a repeat [btcd]. */
export const makeRepeatFilter = () => {
  let last: { readonly first: Uint8Array | undefined; readonly stop: Uint8Array } | undefined
  return {
    isRepeat: (locator: Wire.List<Uint8Array>, stop: Uint8Array): boolean =>
      last !== undefined && sameBytes(last.first, locator.at(0)) && sameBytes(last.stop, stop),
    asked: (locator: Wire.List<Uint8Array>, stop: Uint8Array): void => {
      last = { first: locator.at(0)?.slice(), stop: stop.slice() }
    }
  }
}
