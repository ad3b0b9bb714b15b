/** What the sending helpers decide, without sending: plain functions, the randomness passed in. */
import * as Result from "effect/Result"
import * as Address from "../Address.ts"
import * as Wire from "../Wire.ts"

/** No stop hash: as many as there are. */
export const noStop = new Uint8Array(32)

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

/** The form of an address that fits into an `addr` message; undefined for those that BIP155 is needed for. */
export const toAddr = (of: Wire.AddressV2): Wire.TimestampedAddress | undefined => {
  const address = Address.toBytes(of)
  const { port, services, timestamp } = of
  return address === undefined ? undefined : { timestamp, services, address, port }
}

/** An address of an `addr` message in the form of BIP155. */
export const fromAddr = ({ address, port, services, timestamp }: Wire.TimestampedAddress): Wire.AddressV2 => ({
  timestamp,
  services,
  ...Address.canonical({ networkId: Address.NetworkId.ipv6, address }),
  port
})

/** The part of the network a host belongs to, as Core has it; a name is its own. */
export const networkGroup = (host: string): string =>
  Result.match(Address.parseHost(host), { onFailure: () => host, onSuccess: Address.group })

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
