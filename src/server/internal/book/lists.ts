/** Lists of addresses in the formats that programs exchange. */
import * as Result from "effect/Result"
import * as Address from "../../../Address.ts"
import type { Network } from "../../../Network.ts"
import { type AddressV2, Service } from "../../../Wire.ts"
import { AddressBookError, type AddressBookReason, type Format, type List } from "./models.ts"
import * as PeersDat from "./peersDat.ts"
import * as Text from "./text.ts"

/** In seconds. Bitcoin Core takes this age for addresses with a time that cannot be. */
const ageWithoutTime = 5 * 24 * 3_600

export const encodeText = (text: string): Uint8Array => new TextEncoder().encode(text)

export const fail = (format: Format | "anchors.dat", reason: AddressBookReason): AddressBookError =>
  new AddressBookError({ format, reason })

/** Why a `peers.dat` has nothing to read, as an error. */
export const unreadable = (found: PeersDat.Unreadable): AddressBookError => {
  switch (found._tag) {
    case "NotPeersDat":
      return fail("peers.dat", { _tag: "Unreadable", problem: found.problem })
    case "OtherNetwork":
      return fail("peers.dat", found)
    case "OtherFormat":
      return fail("peers.dat", { _tag: found.isNewer ? "NewerFormat" : "OlderFormat", version: found.format })
  }
}

/** Reads a list; `now` is in milliseconds. */
export const readList = (
  bytes: Uint8Array,
  format: Format,
  network: Network,
  now: number
): Result.Result<List, AddressBookError> => {
  if (format === "peers.dat") {
    const contents = PeersDat.read(bytes, network.magic)
    if ("_tag" in contents) return Result.fail(unreadable(contents))
    const { damage: problem, entries: found, unknown: skipped } = contents
    return Result.succeed({ found, skipped, problem })
  }
  const text = new TextDecoder().decode(bytes)
  const time = Math.max(0, Math.floor(now / 1_000) - ageWithoutTime)
  const defaults: Text.Defaults = { port: network.port, services: Service.network | Service.witness, time }
  if (format === "lines") return Result.succeed(Text.readLines(text, defaults))
  const json = Result.try({ try: (): unknown => JSON.parse(text), catch: () => "is not JSON" })
  const list = Result.isFailure(json)
    ? json.failure
    : format === "json"
      ? Text.readJson(json.success, defaults)
      : Text.readPeersJson(json.success, defaults)
  return typeof list === "string"
    ? Result.fail(fail(format, { _tag: "Unreadable", problem: list }))
    : Result.succeed(list)
}

/** Writes a list as JSON, or one address in each line. */
export const encodeList = (addresses: ReadonlyArray<AddressV2>, format: "json" | "lines"): Uint8Array =>
  encodeText(
    format === "json"
      ? `${JSON.stringify(addresses.map(Text.nodeAddress), undefined, 2)}\n`
      : addresses.map((address) => `${Address.format(address)}\n`).join("")
  )
