/** A transaction with the fields of Bitcoin Core's `decoderawtransaction`. */
import type { Network } from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"
import type { RawTransaction } from "./events.ts"
import { addressOf, assembly, scriptType } from "./script.ts"
import { hex } from "./text.ts"

type RawInput = RawTransaction["vin"][number]
type RawOutput = RawTransaction["vout"][number]

const rawInput = (input: Wire.TransactionInput, isCoinbase: boolean): RawInput => ({
  ...(isCoinbase
    ? { coinbase: hex(input.script) }
    : {
        txid: Wire.hashToHex(input.previousOutput.txid),
        vout: input.previousOutput.index,
        scriptSig: { asm: assembly(input.script, true), hex: hex(input.script) }
      }),
  ...(input.witness.length > 0 && { txinwitness: Array.from(input.witness, hex) }),
  sequence: input.sequence
})

const rawOutput = ({ script, value }: Wire.TransactionOutput, n: number, network: Network): RawOutput => {
  const address = addressOf(script, network)
  return {
    // Exact: the nearest number to an amount of at most 2^53 satoshi prints as its eight decimals.
    value: value / 1e8,
    n,
    scriptPubKey: {
      asm: assembly(script),
      hex: hex(script),
      ...(address !== undefined && { address }),
      type: scriptType(script)
    }
  }
}

/** The addresses of outputs are those of `network`. */
export const rawTransaction = (transaction: Wire.Transaction, network: Network): RawTransaction => {
  const size = Wire.transactionSize(transaction)
  const inputs = Array.from(transaction.inputs)
  const stripped = Wire.transactionSize({
    ...transaction,
    inputs: inputs.map((input) => ({ ...input, witness: [] }))
  })
  const weight = stripped * 3 + size
  const isCoinbase = Wire.isCoinbase(transaction)
  return {
    txid: Wire.hashToHex(Wire.txid(transaction)),
    hash: Wire.hashToHex(Wire.wtxid(transaction)),
    version: transaction.version,
    size,
    vsize: Math.ceil(weight / 4),
    weight,
    locktime: transaction.lockTime,
    vin: inputs.map((input) => rawInput(input, isCoinbase)),
    vout: Array.from(transaction.outputs, (output, n) => rawOutput(output, n, network))
  }
}
