/**
 * Messages above a limit of the protocol: complete, and truncated at places that show whether a message is read completely
 * before its limits are checked. The decoder, our peer and Bitcoin Core are tested with them.
 */
import type * as Wire from "../../src/Wire.ts"
import { concat } from "./generators.ts"

export interface Limit {
  readonly command: Wire.KnownMessage["_tag"]
  /** The field that is above its limit or has an invalid value. */
  readonly field: string
  readonly reason: "TooMany" | "BadValue"
  /** The complete message. It ends the peer if `ends`, else it is dropped. */
  readonly whole: { readonly payload: Uint8Array; readonly ends: boolean }
  /** Truncated messages: they are dropped, and the peer stays connected. */
  readonly cut: ReadonlyArray<Uint8Array>
  /** Whether Bitcoin Core checks this message at all. */
  readonly core: boolean
}

const compactSize = (value: number): ReadonlyArray<number> =>
  value < 0xfd ? [value] : [0xfd, value & 0xff, value >> 8]

interface Shape {
  /** Bytes before the count. */
  readonly before?: number
  readonly count: number
  readonly element: Uint8Array
  /** Bytes after the last element. */
  readonly after?: number
}

/** The complete list, and lists without the last byte, the bytes after it, the last element, all elements. */
const listed = ({ after = 0, before = 0, count, element }: Shape) => {
  const start = concat(new Uint8Array(before), compactSize(count))
  const payload = new Uint8Array(start.length + count * element.length + after)
  payload.set(start)
  for (let i = 0; i < count; i++) payload.set(element, start.length + i * element.length)
  const end = payload.length - after
  return {
    payload,
    cut: [payload.length - 1, end - element.length, start.length, ...(after > 0 ? [end] : [])].map((size) =>
      payload.slice(0, size)
    )
  }
}

const limit = (
  command: Limit["command"],
  field: string,
  shape: Shape,
  { core = true, ends = true }: { readonly core?: boolean; readonly ends?: boolean } = {}
): Limit => {
  const { cut, payload } = listed(shape)
  return { command, field, reason: "TooMany", whole: { payload, ends }, cut, core }
}

const zeros = (size: number): Uint8Array => new Uint8Array(size)
/** An IPv4 address in `addrv2`. */
const addressV2 = Uint8Array.of(1, 0, 0, 0, 1, 1, 4, 1, 2, 3, 4, 0x20, 0x8d)

const tooManyFunctions = concat([1, 0], [51, 0, 0, 0], zeros(5))
const badAnnounce = concat([2], zeros(8))

export const limits: ReadonlyArray<Limit> = [
  limit("inv", "items", { count: 50_001, element: zeros(36) }),
  limit("getdata", "items", { count: 50_001, element: zeros(36) }),
  limit("notfound", "items", { count: 50_001, element: zeros(36) }, { ends: false }),
  limit("getheaders", "locator", { before: 4, count: 102, element: zeros(32), after: 32 }),
  limit("getblocks", "locator", { before: 4, count: 102, element: zeros(32), after: 32 }),
  limit("addr", "addresses", { count: 1_001, element: zeros(30) }),
  limit("addrv2", "addresses", { count: 1_001, element: addressV2 }),
  limit("filterload", "filter", { count: 36_001, element: zeros(1), after: 9 }),
  {
    command: "filterload",
    field: "hashFunctions",
    reason: "TooMany",
    whole: { payload: tooManyFunctions, ends: true },
    cut: [tooManyFunctions.slice(0, -1), tooManyFunctions.slice(0, 6)],
    core: true
  },
  limit("filteradd", "data", { count: 521, element: zeros(1) }),
  {
    command: "sendcmpct",
    field: "announce",
    reason: "BadValue",
    whole: { payload: badAnnounce, ends: true },
    cut: [zeros(0), Uint8Array.of(0xfd), badAnnounce.slice(0, -1)],
    core: true
  },
  limit("cfheaders", "filterHashes", { before: 65, count: 2_001, element: zeros(32) }, { core: false }),
  limit("getpkgtxns", "wtxids", { count: 101, element: zeros(32) }, { core: false })
]

/** `headers` is checked by its count alone, as in Core, which reads no header above the limit. */
export const tooManyHeaders = listed({ count: 2_001, element: zeros(81) })
