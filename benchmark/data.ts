/** The data of the benchmarks: real blocks of test/vectors, and generated messages that are the same in each run. */
import * as Result from "effect/Result"
import { Network, Wire } from "../src/index.ts"
import { readBlock } from "../test/support/vectors.ts"

export const network = Network.regtest

export const frames = (...messages: ReadonlyArray<Wire.Message>): Uint8Array =>
  Result.getOrThrow(Wire.encodeFrames(network.magic, messages))

/** Pseudo-random bytes, the same in each run, from a linear congruential generator. */
export const filled = (size: number, seed: number): Uint8Array => {
  const bytes = new Uint8Array(size)
  let state = (seed * 2_654_435_761 + 1) >>> 0
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

const concat = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => new Uint8Array(Buffer.concat(parts))

/** A valid witness program (version 0), because some libraries parse scripts. */
const payToHash = Uint8Array.of(0, 20)

/** A transaction with two outputs. Each input has a script or a witness of 107 bytes. */
export const transaction = (seed: number, witness: boolean, inputs = 2): Wire.Transaction => ({
  version: 2,
  inputs: Array.from({ length: inputs }, (_, input) => ({
    previousOutput: { txid: filled(32, seed * 2 + input), index: input },
    script: witness
      ? new Uint8Array(0)
      : concat(Uint8Array.of(72), filled(72, seed), Uint8Array.of(33), filled(33, seed)),
    sequence: 0xffffffff,
    witness: witness ? [filled(72, seed), filled(33, seed)] : []
  })),
  outputs: [0, 1].map((output) => ({
    value: seed * 1_000 + output,
    script: concat(payToHash, filled(20, seed + output))
  })),
  lockTime: 0
})

/** Mainnet block 426,884, without witnesses: 996,444 bytes. */
export const block1MB = (): Uint8Array => readBlock("block426884")

/** Mainnet block 0000…21868c2c…, with witnesses: 2,259,447 bytes. */
export const block2MB = (): Uint8Array => readBlock("21868c2c")

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

/** Four of five addresses are IPv4. Service bits are below 2^32, because bcoin does not read higher ones. */
export const addresses = (count: number): Array<Wire.TimestampedAddress> =>
  Array.from({ length: count }, (_, i) => ({
    timestamp: 1_700_000_000 + i,
    services: 1_033n,
    address:
      i % 5 === 0
        ? concat(Uint8Array.of(0x20, 1), filled(14, i))
        : concat(new Uint8Array(10), Uint8Array.of(0xff, 0xff), filled(4, i)),
    port: 8_333 + (i % 100)
  }))

/** Addresses of every network except Tor v2, which no longer exists. */
export const addressesV2 = (count: number): Array<Wire.AddressV2> =>
  Array.from({ length: count }, (_, i) => {
    const networkId = i % 2 === 0 ? 1 : [2, 4, 5, 6][(i >> 1) % 4]!
    const size = { 1: 4, 2: 16, 4: 32, 5: 32, 6: 16 }[networkId]!
    const address = concat(Uint8Array.of(networkId === 6 ? 0xfc : 0x20), filled(size - 1, i))
    return { timestamp: 1_700_000_000 + i, services: 1_033n, networkId, address, port: networkId === 5 ? 0 : 8_333 }
  })
