/** A small block, and the JSON lines of events. */
import * as Schema from "effect/Schema"
import * as Wire from "effect-bitcoin-peer/Wire"
import * as Events from "../../src/events.ts"

export const decodeLine = Schema.decodeUnknownSync(Events.FromLine)

export const hash = (byte: number): Uint8Array => new Uint8Array(32).fill(byte)

export const header: Wire.BlockHeader = {
  version: 4,
  previousBlock: hash(1),
  merkleRoot: hash(2),
  timestamp: 1_700_000_000,
  bits: 0x207fffff,
  nonce: 7
}

export const transaction: Wire.Transaction = {
  version: 2,
  inputs: [{ previousOutput: { txid: hash(3), index: 1 }, script: new Uint8Array(0), sequence: 0, witness: [hash(4)] }],
  outputs: [
    { value: 150_000_000, script: Uint8Array.of(0x51) },
    { value: 1, script: Uint8Array.of(0x51) }
  ],
  lockTime: 0
}

export const txid = Wire.hashToHex(Wire.txid(transaction))
