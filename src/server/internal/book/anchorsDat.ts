/** `anchors.dat` of Bitcoin Core: the magic, CompactSize number of addresses, the addresses, the double SHA-256 of all that. */
import { doubleSha256 } from "../../../primitives/sha256.ts"
import { type DiskAddress, DiskReader, DiskWriter } from "./disk.ts"

export const write = (addresses: ReadonlyArray<DiskAddress>, magic: Uint8Array): Uint8Array => {
  const writer = new DiskWriter(128)
  writer.raw(magic)
  writer.compact(BigInt(addresses.length))
  for (const address of addresses) writer.address(address)
  writer.raw(doubleSha256(writer.bytes.subarray(0, writer.offset)))
  return writer.written()
}

/** The addresses of a file, or what is wrong with it. */
export const read = (bytes: Uint8Array, magic: Uint8Array | undefined): Array<DiskAddress> | string => {
  const reader = new DiskReader(bytes)
  const found = reader.view(4)
  if (magic !== undefined && found.some((byte, at) => byte !== magic[at])) return "is of another network"
  const count = reader.compact()
  const addresses: Array<DiskAddress> = []
  for (let i = 0n; i < count && !reader.failed; i++) {
    const address = reader.address()
    if (address !== undefined) addresses.push(address)
  }
  const end = reader.offset
  const checksum = reader.view(32)
  if (reader.failed) return "is cut off or damaged"
  if (doubleSha256(bytes.subarray(0, end)).some((byte, at) => byte !== checksum[at])) return "has a wrong checksum"
  return addresses
}
