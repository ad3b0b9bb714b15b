/** How fast are payloads read and written, compared with bitcoinjs-lib and with a loop by hand? */
import assert from "node:assert/strict"
import { createHash, type Hash } from "node:crypto"
import * as Result from "effect/Result"
import { Wire } from "../src/index.ts"
import { type BitcoinJsBlock, loadBitcoinJs } from "./bitcoinjs.ts"
import { block1MB, block2MB, headers, inventory } from "./data.ts"
import { ask, type Competitor, printTable } from "./harness.ts"

const bitcoinjs = await loadBitcoinJs()
const us = "effect-bitcoin-peer"

const decodeAs = <Tag extends Wire.Message["_tag"]>(
  tag: Tag,
  payload: Uint8Array
): Extract<Wire.Message, { readonly _tag: Tag }> =>
  Result.getOrThrow(Wire.decode(tag, payload)) as Extract<Wire.Message, { readonly _tag: Tag }>

/** Reads every field: one byte of each hash, the number, or the length of the bytes. */
const readOurs = (payload: Uint8Array): number => {
  const { header, transactions } = decodeAs("block", payload).block
  let sum = header.version + header.previousBlock[0]! + header.merkleRoot[0]! + header.timestamp + header.nonce
  for (const transaction of transactions) {
    sum += transaction.version + transaction.lockTime
    for (const { previousOutput, script, sequence, witness } of transaction.inputs) {
      sum += previousOutput.txid[0]! + previousOutput.index + script.length + sequence
      for (const item of witness) sum += item.length
    }
    for (const { script, value } of transaction.outputs) sum += value + script.length
  }
  return sum
}

const readTheirs = (block: BitcoinJsBlock): number => {
  let sum = block.version + block.prevHash[0]! + block.merkleRoot[0]! + block.timestamp + block.nonce
  for (const transaction of block.transactions) {
    sum += transaction.version + transaction.locktime
    for (const { hash, index, script, sequence, witness } of transaction.ins) {
      sum += hash[0]! + index + script.length + sequence
      for (const item of witness) sum += item.length
    }
    for (const { script, value } of transaction.outs) sum += Number(value) + script.length
  }
  return sum
}

const add = (hash: Hash, ...fields: ReadonlyArray<Uint8Array | number | bigint>): void => {
  for (const field of fields) {
    if (typeof field === "object") hash.update(`${field.length}:`).update(field)
    else hash.update(`${field},`)
  }
}

/** Every byte of every field, to see that both read the same. */
const digestOurs = (payload: Uint8Array): string => {
  const hash = createHash("sha256")
  const { header, transactions } = decodeAs("block", payload).block
  add(hash, header.version, header.previousBlock, header.merkleRoot, header.timestamp, header.bits, header.nonce)
  for (const { inputs, lockTime, outputs, version } of transactions) {
    add(hash, version, inputs.length, outputs.length, lockTime)
    for (const { previousOutput, script, sequence, witness } of inputs) {
      add(hash, previousOutput.txid, previousOutput.index, script, sequence, witness.length, ...witness)
    }
    for (const { script, value } of outputs) add(hash, value, script)
  }
  return hash.digest("hex")
}

const digestTheirs = (block: BitcoinJsBlock): string => {
  const hash = createHash("sha256")
  add(hash, block.version, block.prevHash, block.merkleRoot, block.timestamp, block.bits, block.nonce)
  for (const { ins, locktime, outs, version } of block.transactions) {
    add(hash, version, ins.length, outs.length, locktime)
    for (const input of ins) {
      add(hash, input.hash, input.index, input.script, input.sequence, input.witness.length, ...input.witness)
    }
    for (const { script, value } of outs) add(hash, value, script)
  }
  return hash.digest("hex")
}

/** The same block as plain objects, as if somebody had made it. */
const plainBlock = (payload: Uint8Array): Wire.BlockMessage => {
  const { block } = decodeAs("block", payload)
  const transactions = Array.from(block.transactions, (transaction) => ({
    ...transaction,
    inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: Array.from(input.witness) })),
    outputs: Array.from(transaction.outputs)
  }))
  return { _tag: "block", block: { header: block.header, transactions } }
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

const theirTxids = function* (block: BitcoinJsBlock): Generator<Uint8Array> {
  for (const transaction of block.transactions) yield transaction.getHash(false)
}

const plain = (bytes: Uint8Array): Uint8Array => new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)

for (const [size, payload] of [
  ["1 MB", block1MB()],
  ["2.2 MB", block2MB()]
] as const) {
  if (bitcoinjs !== undefined) {
    const block = bitcoinjs.Block.fromBuffer(payload)
    assert.equal(digestTheirs(block), digestOurs(payload))
    assert.deepEqual([...theirTxids(block)].map(plain), [...ourTxids(payload)])
    // Both notice that the last byte is missing.
    const cut = payload.subarray(0, -1)
    assert.throws(() => bitcoinjs.Block.fromBuffer(cut))
    assert.ok(Result.isFailure(Wire.decode("block", cut)))
  }
  const theirs = (run: (block: BitcoinJsBlock) => unknown): Competitor | undefined =>
    bitcoinjs && { name: bitcoinjs.name, run: () => run(bitcoinjs.Block.fromBuffer(payload)) }
  const targets = { [bitcoinjs?.name ?? ""]: 3 }
  const amount = { count: payload.length / 1e6, unit: "MB" }

  await ask({
    title: `decode a block of ${size}, all fields read`,
    competitors: [{ name: us, run: () => readOurs(payload) }, theirs(readTheirs)],
    amount,
    targets
  })
  await ask({
    title: `decode a block of ${size}, all txids`,
    competitors: [
      { name: us, run: () => foldHashes(ourTxids(payload)) },
      theirs((block) => foldHashes(theirTxids(block)))
    ],
    amount
  })

  const decoded = decodeAs("block", payload)
  const objects = plainBlock(payload)
  const theirBlock = bitcoinjs?.Block.fromBuffer(payload)
  const encoded: Competitor | undefined = bitcoinjs &&
    theirBlock && { name: bitcoinjs.name, run: () => plain(theirBlock.toBuffer()) }
  await ask({
    title: `encode a decoded block of ${size}`,
    competitors: [{ name: us, run: () => Result.getOrThrow(Wire.encode(decoded)) }, encoded],
    amount
  })
  await ask({
    title: `encode a block of ${size} made of plain objects`,
    competitors: [{ name: us, run: () => Result.getOrThrow(Wire.encode(objects)) }, encoded],
    amount
  })
}

/** What one writes without a library: an object an item, the same checks. */
const inventoryByHand = (payload: Uint8Array): Array<Wire.InventoryItem> => {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length)
  const first = payload[0]!
  const start = first < 0xfd ? 1 : 3
  const count = first < 0xfd ? first : view.getUint16(1, true)
  if (first > 0xfd || (first === 0xfd && count < 0xfd)) throw new Error("bad count")
  if (count > 50_000 || start + count * 36 > payload.length) throw new Error("too many")
  const items: Array<Wire.InventoryItem> = []
  for (let i = 0, offset = start; i < count; i++, offset += 36) {
    items.push({ type: view.getUint32(offset, true), hash: payload.subarray(offset + 4, offset + 36) })
  }
  return items
}

const foldItems = (items: Iterable<Wire.InventoryItem>): number => {
  let sum = 0
  for (const { hash, type } of items) sum += type + hash[0]!
  return sum
}

for (const count of [1_000, 50_000]) {
  const items = inventory(count)
  const payload = Result.getOrThrow(Wire.encode({ _tag: "inv", items }))
  assert.deepEqual(Array.from(decodeAs("inv", payload).items), items)
  assert.deepEqual(inventoryByHand(payload), items)
  await ask({
    title: `decode an inv of ${count.toLocaleString("en-US")}, all items read`,
    competitors: [
      { name: us, run: () => foldItems(decodeAs("inv", payload).items) },
      { name: "loop by hand, eager", run: () => foldItems(inventoryByHand(payload)) }
    ],
    amount: { count, unit: "items" }
  })
}

{
  const list = headers(2_000)
  const payload = Result.getOrThrow(Wire.encode({ _tag: "headers", headers: list }))
  assert.deepEqual(Array.from(decodeAs("headers", payload).headers), list)
  await ask({
    title: "decode headers of 2,000, all fields read",
    competitors: [
      {
        name: us,
        run: () => {
          let sum = 0
          for (const header of decodeAs("headers", payload).headers) {
            sum += header.version + header.previousBlock[0]! + header.merkleRoot[0]! + header.timestamp
            sum += header.bits + header.nonce
          }
          return sum
        }
      },
      bitcoinjs && {
        name: bitcoinjs.name,
        run: () => {
          let sum = 0
          // It has no headers message: the entries, 81 bytes each, are found for it.
          for (let offset = 3; offset < payload.length; offset += 81) {
            const header = bitcoinjs.Block.fromBuffer(payload.subarray(offset, offset + 80))
            sum += header.version + header.prevHash[0]! + header.merkleRoot[0]! + header.timestamp
            sum += header.bits + header.nonce
          }
          return sum
        }
      }
    ],
    amount: { count: 2_000, unit: "headers" },
    targets: { [bitcoinjs?.name ?? ""]: 3 }
  })
}

printTable("codec: payloads")
