/** `Wire.decodeRawTransaction` and Bitcoin Core's `decoderawtransaction` decode the same bytes to the same transactions. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { Wire } from "../src/index.ts"
import { dice } from "../test/support/dice.ts"
import { mutate } from "../test/fuzz/inputs.ts"
import { readTransactions, readVectorText } from "../test/support/vectors.ts"
import * as Bitcoind from "./bitcoind.ts"

interface Decoded {
  readonly txid: string
  readonly hash: string
  readonly version: number
  readonly size: number
  readonly vin: ReadonlyArray<unknown>
  readonly vout: ReadonlyArray<unknown>
  readonly locktime: number
}

/** The fields that both decoders return. */
const ours = (bytes: Uint8Array): unknown => {
  const result = Wire.decodeRawTransaction(bytes)
  if (Result.isFailure(result)) return "cannot be read"
  const transaction = result.success
  return {
    txid: Wire.hashToHex(Wire.txid(transaction)),
    hash: Wire.hashToHex(Wire.wtxid(transaction)),
    version: transaction.version,
    size: Wire.transactionSize(transaction),
    vin: transaction.inputs.length,
    vout: transaction.outputs.length,
    locktime: transaction.lockTime
  }
}
const theirs = ({ hash, locktime, size, txid, version, vin, vout }: Decoded): unknown => ({
  txid,
  hash,
  version,
  size,
  vin: vin.length,
  vout: vout.length,
  locktime
})

describe.skipIf(Bitcoind.program === undefined)("Bitcoin Core and Wire.decodeRawTransaction", () => {
  it.live(
    "agree on the transactions of Core's tools, valid and invalid, and on 4,000 random changes of them",
    () =>
      Effect.gen(function* () {
        const node = yield* Bitcoind.start()
        const raw = JSON.parse(readVectorText("core/raw-transactions.json")) as Record<string, string>
        const written = Object.values(raw).map((hex) => Uint8Array.from(Buffer.from(hex, "hex")))
        const samples = [...written, ...readTransactions("tx_valid"), ...readTransactions("tx_invalid")]
        const random = dice(28)
        const changed = Array.from({ length: 4_000 }, () => mutate(random, random.pick(samples))).filter(
          ({ length }) => length > 0 && length < 20_000
        )
        let readable = 0
        for (const bytes of [...samples, ...changed]) {
          const expected = yield* Effect.match(node.rpc("decoderawtransaction", Buffer.from(bytes).toString("hex")), {
            onFailure: () => "cannot be read" as unknown,
            onSuccess: (answer) => theirs(answer as Decoded)
          })
          if (expected !== "cannot be read") readable++
          assert.deepStrictEqual(ours(bytes), expected, Buffer.from(bytes).toString("hex"))
        }
        assert.isAbove(readable, 600)
      }),
    120_000
  )
})
