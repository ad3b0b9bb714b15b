/** The helpers of a peer that send something only where it makes sense: addresses, questions without repeats, rejects. */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Result from "effect/Result"
import type { Negotiated } from "../Handshake.ts"
import type { Policy } from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { versionOf } from "./handshake.ts"
import { choose, makeRepeatFilter, noStop, toAddr } from "./helpers.ts"
import type { Outgoing } from "./link.ts"
import type { Outbox } from "./outbox.ts"
import type { PeerError } from "./peerError.ts"

export interface SenderOptions {
  readonly negotiated: Negotiated
  readonly policy: Policy
  readonly outbox: Outbox<PeerError>
  readonly encode: (message: Wire.Message) => Result.Result<Outgoing, PeerError>
}

export const makeSenders = ({ encode, negotiated, outbox, policy }: SenderOptions) => {
  const sendAddresses = Effect.fnUntraced(function* (
    addresses: ReadonlyArray<Wire.AddressV2>
  ): Effect.fn.Return<ReadonlyArray<Wire.AddressV2>, PeerError> {
    const sendable = negotiated.addrV2 ? addresses : addresses.filter((address) => toAddr(address) !== undefined)
    const random = yield* Random.Random
    const chosen = choose(sendable, Wire.maxAddresses, (bound) => Math.floor(random.nextDoubleUnsafe() * bound))
    if (chosen.length === 0) return chosen
    const message: Wire.Message = negotiated.addrV2
      ? { _tag: "addrv2", addresses: chosen }
      : { _tag: "addr", addresses: chosen.flatMap((address) => toAddr(address) ?? []) }
    yield* outbox.offer(() => encode(message))
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
      yield* outbox.offer(() => encode({ _tag: tag, protocolVersion, locator, stopHash }))
      filter.asked(locator, stopHash)
      return true
    })
  }

  const sendReject = Effect.fnUntraced(function* (
    reject: Omit<Wire.Reject, "_tag">
  ): Effect.fn.Return<boolean, PeerError> {
    if (!policy.sendReject || negotiated.remoteProtocolVersion < versionOf.reject) return false
    yield* outbox.offer(() => encode({ _tag: "reject", ...reject }))
    return true
  })

  return {
    sendAddresses,
    sendGetHeaders: asking("getheaders"),
    sendGetBlocks: asking("getblocks"),
    sendReject
  }
}
