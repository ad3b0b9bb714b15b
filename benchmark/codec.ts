/** Speed of decoding and encoding blocks and transactions, compared with other libraries. */
import assert from "node:assert/strict"
import * as Result from "effect/Result"
import { Wire } from "../src/index.ts"
import { checksum, doubleSha256 } from "../src/primitives/sha256.ts"
import { loadLibraries } from "./competitors.ts"
import { block1MB, block2MB, frames, network, transaction } from "./data.ts"
import { ask, type Competitor, duration, measure, printTable, quantile, row, verdict, wanted } from "./harness.ts"
import { buffer, compare, decodeAs, targetsOf, us } from "./shared.ts"

const libraries = loadLibraries()

const readTransaction = ({ inputs, lockTime, outputs, version }: Wire.Transaction): number => {
  let sum = version + lockTime
  for (const { previousOutput, script, sequence, witness } of inputs) {
    sum += previousOutput.txid[0]! + previousOutput.index + script.length + sequence
    for (const item of witness) sum += item.length
  }
  for (const { script, value } of outputs) sum += value + script.length
  return sum
}

/** Reads every field: one byte of each hash, the number, or the length of the bytes. */
const readBlock = (payload: Uint8Array): number => {
  const { header, transactions } = decodeAs("block", payload).block
  let sum = header.version + header.previousBlock[0]! + header.merkleRoot[0]!
  sum += header.timestamp + header.bits + header.nonce
  for (const transaction of transactions) sum += readTransaction(transaction)
  return sum
}

const plainTransaction = (transaction: Wire.Transaction): Wire.Transaction => ({
  ...transaction,
  inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: Array.from(input.witness) })),
  outputs: Array.from(transaction.outputs)
})

/** The same block as plain objects, as a caller would make it. */
const plainBlock = (payload: Uint8Array): Wire.BlockMessage => {
  const { header, transactions } = decodeAs("block", payload).block
  return { _tag: "block", block: { header, transactions: Array.from(transactions, plainTransaction) } }
}

/** One byte of each hash. */
const foldHashes = (hashes: Iterable<Uint8Array>): number => {
  let sum = 0
  for (const hash of hashes) sum = (Math.imul(sum, 31) + hash[0]!) | 0
  return sum
}

const ourTxids = function* (payload: Uint8Array): Generator<Uint8Array> {
  for (const transaction of decodeAs("block", payload).block.transactions) yield Wire.txid(transaction)
}

/** The preimage of a txid. */
const withoutWitness = (transaction: Wire.Transaction): Uint8Array =>
  Result.getOrThrow(
    Wire.encodeTransaction({
      ...transaction,
      inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: [] }))
    })
  )

/** Measures the way from a frame to the header and the bytes of its block, without decoding transactions. */
const askHandOut = async (size: string, message: Wire.BlockMessage): Promise<void> => {
  const title = `hand out header and bytes of a block of ${size}`
  if (!wanted(title)) return
  const frame = frames(message)
  const payload = frame.subarray(24)
  const { nonce } = message.block.header
  const [whole, alone] = await measure(title, [
    {
      name: us,
      run: () => {
        const [event] = Wire.makeParser({ magic: network.magic, undecoded: ["block"] }).push(frame)
        if (event?._tag !== "Received" || event.message._tag !== "Unknown") throw new Error("no block")
        const { payload } = event.message
        return Result.getOrThrow(Wire.decodeBlockHeader(payload)).nonce + payload.length
      }
    },
    { name: "the checksum alone", run: () => (checksum(payload) >= 0 ? nonce + payload.length : 0) }
  ])
  const beside = whole!.map((took, round) => (took - alone![round]!) * 1_000)
  const [low, middle, high] = [0.25, 0.5, 0.75].map((q) => quantile(beside, q).toFixed(1))
  row(
    title,
    us,
    duration(quantile(whole!, 0.5)),
    "",
    `${middle} µs more than the checksum (${low}–${high})`,
    // A difference below the noise counts as reached.
    verdict(Math.max(0.1, quantile(beside, 0.5)), 2, "≤ 2 µs", true)
  )
  row("", "the checksum alone", duration(quantile(alone!, 0.5)), "", "", "")
}

for (const [size, payload, witnesses] of [
  ["1 MB", block1MB(), false],
  ["2.2 MB", block2MB(), true]
] as const) {
  const able = libraries.filter((library) => library.block !== undefined && (library.witnesses || !witnesses))
  const bytes = buffer(payload)
  const objects = plainBlock(payload)
  const decoded = decodeAs("block", payload)
  const expected = [...ourTxids(payload)].map(buffer)
  compare(payload, Result.getOrThrow(Wire.encode(objects)))
  // Every library must refuse a block without its last byte.
  assert.ok(Result.isFailure(Wire.decode("block", payload.subarray(0, -1))))
  for (const { block, name } of able) {
    compare(payload, block!.encoder(bytes)(), name)
    assert.throws(() => block!.read(bytes.subarray(0, -1)), name)
    if (block!.txids !== undefined) assert.deepEqual(block!.txids(bytes).map(buffer), expected, name)
  }
  const amount = { count: payload.length / 1e6, unit: "MB" }

  await ask({
    title: `decode a block of ${size}, all fields read`,
    competitors: [
      { name: us, run: () => readBlock(payload) },
      ...able.map(({ block, name }): Competitor => ({ name, run: () => block!.read(bytes) }))
    ],
    amount,
    targets: targetsOf(able)
  })

  const parts = Array.from(decoded.block.transactions, withoutWitness)
  const alone = "hashing alone"
  await ask({
    title: `decode a block of ${size}, all txids`,
    competitors: [
      { name: us, run: () => foldHashes(ourTxids(payload)) },
      {
        name: alone,
        run: () => {
          let sum = 0
          for (const part of parts) sum = (Math.imul(sum, 31) + doubleSha256(part)[0]!) | 0
          return sum
        }
      },
      ...able.map(
        ({ block, name }): Competitor | undefined =>
          block?.txids && { name, run: () => foldHashes(block.txids!(bytes)) }
      )
    ],
    amount,
    // The target: at most 1.5 times the time of hashing alone.
    targets: { [alone]: 0.667, ...targetsOf(able) }
  })

  const encoders = able.map(({ block, name }): Competitor => {
    const encode = block!.encoder(bytes)
    return { name, run: () => encode().length }
  })
  await ask({
    title: `encode a decoded block of ${size}`,
    competitors: [{ name: us, run: () => Result.getOrThrow(Wire.encode(decoded)).length }],
    amount,
    targetRate: 1_000
  })
  await ask({
    title: `encode a block of ${size} made of plain objects`,
    competitors: [{ name: us, run: () => Result.getOrThrow(Wire.encode(objects)).length }, ...encoders],
    amount,
    targets: targetsOf(able)
  })

  await askHandOut(size, decoded)
}

// ---- one transaction

for (const [kind, witnesses] of [
  ["legacy", false],
  ["segwit", true]
] as const) {
  const made: Wire.Tx = { _tag: "tx", transaction: transaction(1, witnesses, 1) }
  const payload = Result.getOrThrow(Wire.encode(made))
  const bytes = buffer(payload)
  const able = libraries.filter((library) => library.tx !== undefined && (library.witnesses || !witnesses))
  for (const { name, tx } of able) compare(payload, tx!.encoder(bytes)(), name)
  const amount = { count: 1, unit: "tx" }
  await ask({
    title: `decode a ${kind} transaction, 1 input, 2 outputs, all fields read`,
    competitors: [
      { name: us, run: () => readTransaction(decodeAs("tx", payload).transaction) },
      ...able.map(({ name, tx }): Competitor => ({ name, run: () => tx!.read(bytes) }))
    ],
    amount,
    targets: targetsOf(able)
  })
  await ask({
    title: `encode a ${kind} transaction, 1 input, 2 outputs, made of plain objects`,
    competitors: [
      { name: us, run: () => Result.getOrThrow(Wire.encode(made)).length },
      ...able.map(({ name, tx }): Competitor => {
        const encode = tx!.encoder(bytes)
        return { name, run: () => encode().length }
      })
    ],
    amount,
    targets: targetsOf(able)
  })
}

printTable("codec: blocks and transactions")
