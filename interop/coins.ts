/** Transactions that spend the coins mined by the nodes, which anyone can spend. */
import { createHash } from "node:crypto"
import { Effect, Result, Schema } from "effect"
import { Wire } from "../src/index.ts"
import { expecting, type InteropError, type InteropNode } from "./InteropNode.ts"

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"))

const opTrue = Uint8Array.of(0x51)
/** OP_HASH160 <hash160 of OP_TRUE> OP_EQUAL, the script to which the nodes mine. */
export const payToScriptHash = hex("a914da1745e9b549bd0bfa1a569971c77eba30cd5a4b87")
/** OP_0 <sha256 of OP_TRUE> (BIP141): spent with a witness only. */
const payToWitnessScriptHash = Uint8Array.of(0, 32, ...createHash("sha256").update(opTrue).digest())

const fee = 10_000

/** A transaction without a witness that pays a mature coinbase of `value` satoshi to a witness script. */
const lock = (coinbase: Uint8Array, value: number): Wire.Transaction => ({
  version: 2,
  inputs: [
    {
      previousOutput: { txid: coinbase, index: 0 },
      script: Uint8Array.of(1, 0x51),
      sequence: 0xffff_ffff,
      witness: []
    }
  ],
  outputs: [{ value: value - fee, script: payToWitnessScriptHash }],
  lockTime: 0
})

/** A transaction that spends that output with a witness, so that its txid and wtxid differ. */
const unlock = (locked: Wire.Transaction): Wire.Transaction => ({
  version: 2,
  inputs: [
    {
      previousOutput: { txid: Wire.txid(locked), index: 0 },
      script: new Uint8Array(0),
      sequence: 0xffff_fffe,
      witness: [opTrue]
    }
  ],
  outputs: [
    { value: 1_000_000, script: payToWitnessScriptHash },
    { value: locked.outputs.at(0)!.value - 1_000_000 - fee, script: payToScriptHash }
  ],
  lockTime: 0
})

const Block = Schema.Struct({ tx: Schema.NonEmptyArray(Schema.String) })
const Output = Schema.Struct({ value: Schema.Number })

/**
 * Two transactions: the first spends the mature coinbase of a block mined by this node, without a witness; the second spends
 * the first, with a witness. The second is valid if segwit is active: with bcoin from block 432 on.
 */
export const makePair = Effect.fnUntraced(function* (
  node: InteropNode,
  blockHash: string
): Effect.fn.Return<readonly [plain: Wire.Transaction, witness: Wire.Transaction], InteropError> {
  const [coinbase] = (yield* node.rpc("getblock", blockHash).pipe(expecting(Block))).tx
  const { value } = yield* node.rpc("gettxout", coinbase, 0).pipe(expecting(Output))
  const plain = lock(Wire.hashFromHex(coinbase), Math.round(value * 1e8))
  return [plain, unlock(plain)]
})

/** The bytes of a transaction in hex, as in the nodes' RPC. */
export const toHex = (transaction: Wire.Transaction): string =>
  Buffer.from(Result.getOrThrow(Wire.encodeTransaction(transaction))).toString("hex")

/** The same transaction made of plain arrays. A decoded one consists of views, whose bytes the encoder copies. */
export const rebuilt = (transaction: Wire.Transaction): Wire.Transaction => ({
  ...transaction,
  inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: Array.from(input.witness) })),
  outputs: Array.from(transaction.outputs)
})

const isCommitment = ({ script }: Wire.TransactionOutput): boolean =>
  script.length >= 38 && Buffer.from(script.subarray(0, 6)).toString("hex") === "6a24aa21a9ed"

/** Whether a block has a witness commitment (BIP141) that matches its witnesses. */
export const witnessesAreCommitted = (transactions: ReadonlyArray<Wire.Transaction>): boolean => {
  const [coinbase, ...others] = transactions
  // If there are several commitments, the last one counts.
  const commitment = Array.from(coinbase?.outputs ?? [])
    .findLast(isCommitment)
    ?.script.subarray(6, 38)
  const reserved = coinbase?.inputs.at(0)?.witness.at(0)
  if (commitment === undefined || reserved === undefined) return false
  const root = Wire.merkleRoot([new Uint8Array(32), ...others.map(Wire.wtxid)])
  const once = createHash("sha256").update(root).update(reserved).digest()
  return createHash("sha256").update(once).digest().equals(commitment)
}
