/** What is measured with: real blocks from `../shared/vectors` where present, else blocks of the same shape, self-made. */
import * as fs from "node:fs"
import * as path from "node:path"
import * as Result from "effect/Result"
import { Network, Wire } from "../src/index.ts"

const directory = path.resolve(import.meta.dirname, "../../shared/vectors/blocks")

export const network = Network.regtest

export const frames = (...messages: ReadonlyArray<Wire.Message>): Uint8Array =>
  Result.getOrThrow(Wire.encodeFrames(network.magic, messages))

/** The same bytes in each run: a linear congruence is random enough for scripts and hashes. */
export const filled = (size: number, seed: number): Uint8Array => {
  const bytes = new Uint8Array(size)
  let state = (seed * 2_654_435_761 + 1) >>> 0
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

/** Like most transactions: two inputs, two outputs; a script of 107 bytes each, or that much witness. */
const transaction = (seed: number, witness: boolean): Wire.Transaction => ({
  version: 2,
  inputs: [0, 1].map((input) => ({
    previousOutput: { txid: filled(32, seed * 2 + input), index: input },
    script: witness ? new Uint8Array(0) : filled(107, seed),
    sequence: 0xffffffff,
    witness: witness ? [filled(72, seed), filled(33, seed)] : []
  })),
  outputs: [0, 1].map((output) => ({ value: seed * 1_000 + output, script: filled(25, seed + output) })),
  lockTime: 0
})

const selfMade = (size: number, witness: boolean): Uint8Array => {
  const each = Result.getOrThrow(Wire.encodeTransaction(transaction(1, witness))).length
  return Result.getOrThrow(
    Wire.encode({
      _tag: "block",
      block: {
        header: {
          version: 4,
          previousBlock: filled(32, 1),
          merkleRoot: filled(32, 2),
          timestamp: 1_700_000_000,
          bits: 0x1d00ffff,
          nonce: 7
        },
        transactions: Array.from({ length: Math.floor(size / each) }, (_, seed) => transaction(seed, witness))
      }
    })
  )
}

const block = (file: string, size: number, witness: boolean): Uint8Array => {
  const name = path.join(directory, file)
  return fs.existsSync(name) ? new Uint8Array(fs.readFileSync(name)) : selfMade(size, witness)
}

/** Of mainnet, from before segregated witness: 996,444 bytes. */
export const block1MB = (): Uint8Array => block("block426884.raw", 996_444, false)

/** Of mainnet, with witnesses: 2,259,447 bytes. */
export const block2MB = (): Uint8Array => block("21868c2c.raw", 2_259_447, true)

export const inventory = (count: number): Array<Wire.InventoryItem> =>
  Array.from({ length: count }, (_, i) => ({ type: Wire.InventoryType.wtx, hash: filled(32, i) }))

export const headers = (count: number): Array<Wire.BlockHeader> =>
  Array.from({ length: count }, (_, i) => ({
    version: 0x20000000,
    previousBlock: filled(32, i),
    merkleRoot: filled(32, i + count),
    timestamp: 1_700_000_000 + i,
    bits: 0x1d00ffff,
    nonce: i
  }))
