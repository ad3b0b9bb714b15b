/** Helpers that send only where the protocol allows it: addresses, getheaders and getblocks without repeats, rejects. */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Address from "../Address.ts"
import type { Negotiated } from "../Handshake.ts"
import type { Policy } from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { ProtocolVersion } from "../wire/protocolVersion.ts"
import type { SendQueue } from "./sendQueue.ts"
import { notSendable, type PeerError } from "../PeerError.ts"
import { isRecord, notA } from "../primitives/types.ts"

/** The stop hash that asks for as many as there are. */
export const noStop = new Uint8Array(32)

/** `count` elements chosen at random, in random order; the list itself when it is not longer than `count`. */
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

/** The address in the form of an `addr` message; undefined where only an `addrv2` can hold it (BIP155). */
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

/** The network group of a host, as in Core; a name is a group of its own. */
export const networkGroup = (host: string): string =>
  Result.match(Address.parseHost(host), { onFailure: () => host, onSuccess: Address.group })

const isHost = (value: unknown): boolean => isRecord(value) && value["address"] instanceof Uint8Array

/** The error of addresses that a caller without TypeScript gives; `encode` checks the fields of those of an `addrv2`. */
const badAddresses = (addresses: unknown): PeerError | undefined => {
  const problem = !Array.isArray(addresses)
    ? notA(addresses, "an array")
    : addresses.every(isHost)
      ? undefined
      : "has an element that is not an address"
  if (problem === undefined) return undefined
  const reason = { _tag: "BadValue", field: "addresses", problem } as const
  return notSendable(new Wire.WireError({ command: "addrv2", reason }))
}

const isSame = (one: Uint8Array | undefined, other: Uint8Array | undefined): boolean =>
  one === other || (one !== undefined && other !== undefined && Wire.hashEquals(one, other))

/** Remembers the last request. The same first locator hash and the same stop hash again are a repeat (btcd). */
export const makeRepeatFilter = () => {
  let last: { readonly first: Uint8Array | undefined; readonly stop: Uint8Array } | undefined
  return {
    isRepeat: (locator: Wire.List<Uint8Array>, stop: Uint8Array): boolean =>
      last !== undefined && isSame(last.first, locator.at(0)) && isSame(last.stop, stop),
    asked: (locator: Wire.List<Uint8Array>, stop: Uint8Array): void => {
      last = { first: locator.at(0)?.slice(), stop: stop.slice() }
    }
  }
}

export interface SenderOptions {
  readonly negotiated: Negotiated
  readonly policy: Policy
  readonly sendQueue: SendQueue<PeerError>
}

export const makeSenders = ({ negotiated, policy, sendQueue }: SenderOptions) => {
  const sendAddresses = Effect.fnUntraced(function* (
    addresses: ReadonlyArray<Wire.AddressV2>
  ): Effect.fn.Return<ReadonlyArray<Wire.AddressV2>, PeerError> {
    const error = badAddresses(addresses)
    if (error !== undefined) return yield* error
    const sendable = negotiated.addrV2 ? addresses : addresses.filter((address) => toAddr(address) !== undefined)
    const random = yield* Random.Random
    const chosen = choose(sendable, Wire.maxAddresses, (bound) => Math.floor(random.nextDoubleUnsafe() * bound))
    if (chosen.length === 0) return chosen
    const message: Wire.Message = negotiated.addrV2
      ? { _tag: "addrv2", addresses: chosen }
      : { _tag: "addr", addresses: chosen.flatMap((address) => toAddr(address) ?? []) }
    yield* sendQueue.offer(message)
    return chosen
  })

  const asking = (tag: "getheaders" | "getblocks") => {
    const filter = makeRepeatFilter()
    return Effect.fnUntraced(function* (
      locator: Wire.List<Uint8Array>,
      stopHash: Uint8Array = noStop
    ): Effect.fn.Return<boolean, PeerError> {
      if (filter.isRepeat(locator, stopHash)) return false
      const { protocolVersion } = negotiated
      yield* sendQueue.offer({ _tag: tag, protocolVersion, locator, stopHash })
      filter.asked(locator, stopHash)
      return true
    })
  }

  const sendReject = Effect.fnUntraced(function* (
    reject: Omit<Wire.Reject, "_tag">
  ): Effect.fn.Return<boolean, PeerError> {
    if (!policy.sendReject || negotiated.remoteProtocolVersion < ProtocolVersion.reject) return false
    yield* sendQueue.offer({ _tag: "reject", ...reject })
    return true
  })

  return {
    sendAddresses,
    sendGetHeaders: asking("getheaders"),
    sendGetBlocks: asking("getblocks"),
    sendReject
  }
}
