/** Reads the test vectors, made by other software. test/vectors/README.md has their origins and formats. */
import * as fs from "node:fs"
import * as path from "node:path"
import { brotliDecompressSync } from "node:zlib"

const directory = path.resolve(import.meta.dirname, "../vectors")

/** The path of a vector that is stored uncompressed (all except the blocks). */
export const vectorPath = (file: string): string => path.join(directory, file)

export const readVector = (file: string): Uint8Array => {
  const compressed = vectorPath(`${file}.br`)
  return new Uint8Array(
    fs.existsSync(compressed) ? brotliDecompressSync(fs.readFileSync(compressed)) : fs.readFileSync(vectorPath(file))
  )
}

export const readVectorText = (file: string): string => fs.readFileSync(vectorPath(file), "utf8")

/** The single blocks with their hashes. The last two are of testnet3, the others of mainnet. */
export const blocks = [
  { file: "block300025", hash: "0000000000000000821c4e0acc40f88bedbce3b73ba2358b5ade58a9022cc78c", witness: false },
  { file: "block426884", hash: "00000000000000000431d0ead6e0bd9f90ff0d469e9b05d51e3d04971f472973", witness: false },
  { file: "block482683", hash: "000000000000000000c238240ef6dcb26c37e75e16514e6ffc0aef7eee73e747", witness: true },
  { file: "21868c2c", hash: "00000000000000000021868c2cefc52a480d173c849412fe81c4e5ab806f94ab", witness: true },
  { file: "block898352", hash: "00000000c269ad542ed9ac684cb5fa6df340d5feee0e040590225c7332b98fca", witness: false },
  { file: "block928816", hash: "00000000000001c4b87edf974ddc601d88dda332265b9849a944a5ff0141a378", witness: true }
] as const

export const readBlock = (file: string): Uint8Array => readVector(`blocks/${file}.raw`)

/** Mainnet blocks 1 to 255 (the name of the file says 256). Each one follows the magic and its length. */
export const readChain = (): Array<Uint8Array> => {
  const bytes = readVector("blocks/mainnet-1-256.dat")
  const view = new DataView(bytes.buffer)
  const found: Array<Uint8Array> = []
  for (let offset = 0; offset < bytes.length;) {
    const length = view.getUint32(offset + 4, true)
    found.push(bytes.subarray(offset + 8, offset + 8 + length))
    offset += 8 + length
  }
  return found
}

export const captures = [
  "block-relay-received",
  "block-relay-sent",
  "legacy-addr-received",
  "legacy-addr-sent",
  "light-client-received",
  "light-client-sent"
] as const

/** The messages of a recorded connection. */
export const readCapture = (name: string): Array<{ readonly command: string; readonly payload: Uint8Array }> => {
  const bytes = readVector(`captures/${name}.dat`)
  const view = new DataView(bytes.buffer)
  const found: Array<{ readonly command: string; readonly payload: Uint8Array }> = []
  for (let offset = 0; offset < bytes.length;) {
    const command = String.fromCharCode(...bytes.subarray(offset + 8, offset + 20)).replace(/\0+$/, "")
    const length = view.getUint32(offset + 20, true)
    found.push({ command, payload: bytes.subarray(offset + 24, offset + 24 + length) })
    offset += 24 + length
  }
  return found
}

/** The transactions of one of Core's files: the second item of each entry of three items. */
export const readTransactions = (file: "tx_valid" | "tx_invalid"): Array<Uint8Array> =>
  (JSON.parse(readVectorText(`transactions/${file}.json`)) as Array<Array<unknown>>)
    .filter((entry) => entry.length === 3)
    .map((entry) => Uint8Array.from(Buffer.from(entry[1] as string, "hex")))
