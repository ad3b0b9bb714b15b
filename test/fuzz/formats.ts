/** Fuzz targets for v2 packets, captures, filters, blocks, proofs, addresses, raw transactions and proxy answers. */
import assert from "node:assert/strict"
import * as Result from "effect/Result"
import { isDeepStrictEqual } from "node:util"
import { deriveSecrets } from "../../src/transport/bip324Cipher.ts"
import { makePacketParser, sealPackets } from "../../src/transport/bip324Packets.ts"
import * as KeyExchange from "../../src/transport/keyExchange.ts"
import { type Dialogue, ProxyError } from "../../src/connection/net/proxyDialogue.ts"
import { acceptStream, connectStream, createSession } from "../../src/connection/net/sam.ts"
import { socks5 } from "../../src/connection/net/socks5.ts"
import { sha256 } from "../../src/primitives/sha256.ts"
import * as Address from "../../src/Address.ts"
import * as Block from "../../src/Block.ts"
import * as BloomFilter from "../../src/BloomFilter.ts"
import * as Capture from "../../src/Capture.ts"
import * as CompactBlock from "../../src/CompactBlock.ts"
import * as CompactFilter from "../../src/CompactFilter.ts"
import * as MerkleBlock from "../../src/MerkleBlock.ts"
import * as Wire from "../../src/Wire.ts"
import { genesis, mineBlock } from "effect-bitcoin-peer/testing/RegtestChain"
import { type Dice, dice } from "../support/dice.ts"
import { encoded, plain } from "../support/generators.ts"
import { commandField, mutate, network, payloadOf, somePayload, u32 } from "./inputs.ts"
import { bounded, comparable, cut, hashOf, parseWith, type Target } from "./rules.ts"

const joined = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => new Uint8Array(Buffer.concat(parts))

interface Effort {
  /** Bytes of memory that any input may take. */
  readonly beside?: number
  /** Bytes of memory for each byte of the input. */
  readonly perByte?: number | undefined
}

/** Checks that one chunk and chunks of several sizes give the same result. */
const whateverTheChunks = <A>(
  input: Uint8Array,
  parse: (chunks: ReadonlyArray<Uint8Array>) => A,
  { beside = 0, perByte }: Effort = {}
): A => {
  const own = dice(hashOf(input))
  const size = input.length + beside
  const whole = bounded("parsing", size, () => parse([input]), perByte)
  for (const most of [...(input.length <= 2_000 ? [1] : []), 64, 5_000, 40_000]) {
    const chunks = cut(own, input, most)
    const parsed = bounded(`parsing in chunks of ${most}`, size, () => parse(chunks), perByte)
    assert.ok(isDeepStrictEqual(parsed, whole), `the result differs in chunks of up to ${most} bytes`)
  }
  return whole
}

// ---- v2 packets and the key exchange

const secretsOf = (seed: Uint8Array, initiator: boolean) => deriveSecrets(sha256(seed), network.magic, initiator)
const noSeed = new Uint8Array(32)

/** A packet in an input: a length, then the header byte and the contents. */
const packetOf = (header: number, contents: Uint8Array): Uint8Array =>
  joined(u32(contents.length + 1), Uint8Array.of(header), contents)

/** The sealed packets of an input, and the contents of those that are not decoys. */
const sealed = (input: Uint8Array) => {
  const { send } = secretsOf(noSeed, true)
  const packets: Array<Uint8Array> = []
  const messages: Array<Uint8Array> = []
  const view = new DataView(input.buffer, input.byteOffset, input.length)
  for (let offset = 0; input.length - offset >= 5;) {
    const end = Math.min(input.length, offset + 4 + Math.max(1, view.getUint32(offset, true)))
    const contents = input.subarray(offset + 5, end)
    const packet = new Uint8Array(3 + 1 + contents.length + 16)
    packet[3] = input[offset + 4]!
    packet.set(contents, 4)
    packets.push(packet)
    if ((input[offset + 4]! & 0x80) === 0) messages.push(contents)
    offset = end
  }
  return { bytes: packets.length === 0 ? new Uint8Array(0) : sealPackets(send, packets), messages }
}

const opened = (bytes: Uint8Array, malformed: "drop" | "disconnect") =>
  whateverTheChunks(
    bytes,
    (chunks) => {
      const parser = makePacketParser({
        direction: secretsOf(noSeed, false).receive,
        garbage: new Uint8Array(0),
        malformed
      })
      return comparable(parseWith(parser, chunks, true))
      // Opening a packet of 20 bytes allocates buffers.
    },
    { perByte: 24 }
  ) as { readonly events: ReadonlyArray<Wire.ParserEvent>; readonly failure: Wire.WireReason | undefined }

const checkPackets = (input: Uint8Array): void => {
  const { bytes, messages } = sealed(input)
  const { events, failure } = opened(bytes, "drop")
  assert.equal(failure, undefined, "the parser fails on a sealed packet")
  // The first is the version packet.
  assert.equal(events.length, Math.max(0, messages.length - 1))
  opened(bytes, "disconnect")
  for (const [index, event] of events.entries()) {
    if (event._tag !== "Received") continue
    const contents = messages[index + 1]!
    const payload = contents.subarray(contents[0] === 0 ? 13 : 1)
    const decoded = Result.getOrThrow(Wire.decode(Wire.command(event.message), payload))
    assert.ok(isDeepStrictEqual(plain(decoded), plain(event.message)), "the message differs from that of a v1 frame")
  }
  if (bytes.length === 0) return
  const own = dice(hashOf(input))
  const broken = bytes.slice()
  broken[own.below(broken.length)]! ^= 1 << own.below(8)
  const after = opened(broken, "drop")
  assert.ok(after.events.length < Math.max(1, messages.length), "a changed bit is not detected")
  assert.ok(
    isDeepStrictEqual(after.events, events.slice(0, after.events.length)),
    "a changed bit changes a message before it"
  )
}

const packets: Target = {
  name: "packets",
  make: (dice) => {
    const parts = Array.from({ length: 1 + dice.below(5) }, (_, index) => {
      const header = dice.chance(0.2) ? dice.below(256) : 0
      if (index === 0 || dice.chance(0.1)) return packetOf(header, dice.bytes(dice.below(50)))
      const { command, payload } = somePayload(dice)
      const long = joined(Uint8Array.of(0), commandField(command), payload)
      const short = joined(Uint8Array.of(dice.below(40)), payload)
      const contents = dice.chance(0.5) ? long : short
      return packetOf(header, dice.chance(0.5) ? contents : mutate(dice, contents))
    })
    const whole = joined(...parts)
    return dice.chance(0.7) ? whole : mutate(dice, whole)
  },
  check: checkPackets
}

const ownKey = { privateKey: noSeed, publicKey: new Uint8Array(64).fill(7) }

/** The result of a key exchange. The shared secret is a hash of the key: nothing here depends on the mathematics. */
const exchanged = (role: "initiator" | "responder", chunks: ReadonlyArray<Uint8Array>): unknown => {
  const exchange = KeyExchange.make(role, network.magic)
  const left = [...chunks]
  let step = KeyExchange.next(exchange)
  while (true) {
    switch (step._tag) {
      case "NeedBytes": {
        const chunk = left.shift()
        if (chunk === undefined) return "more"
        step = KeyExchange.receive(exchange, chunk)
        continue
      }
      case "NeedKey":
        KeyExchange.offerKey(exchange, ownKey, new Uint8Array(3))
        break
      case "NeedSecrets":
        KeyExchange.agree(exchange, secretsOf(step.theirs, role === "initiator"), [5])
        break
      case "Done":
        return { garbage: step.garbage, rest: joined(step.rest, ...left) }
      case "Version1":
        return joined(step.bytes, ...left)
      default:
        return step
    }
    step = KeyExchange.next(exchange)
  }
}

const keyExchange: Target = {
  name: "keyexchange",
  make: (dice) => {
    if (dice.chance(0.2)) return mutate(dice, joined(network.magic, commandField("version"), dice.bytes(40)))
    const key = dice.bytes(64)
    const { receiveTerminator } = secretsOf(key, dice.chance(0.5))
    const whole = joined(key, dice.bytes(dice.below(dice.chance(0.3) ? 5_000 : 50)), receiveTerminator, dice.bytes(30))
    return dice.chance(0.5) ? whole : mutate(dice, whole)
  },
  check: (input) => {
    for (const role of ["initiator", "responder"] as const) {
      // Keys and ciphers take time in addition to the input.
      whateverTheChunks(input, (chunks) => exchanged(role, chunks), { beside: 8_192 })
    }
  }
}

// ---- captures

const checkCapture = (input: Uint8Array): void => {
  const { end, records } = whateverTheChunks(input, (chunks) => {
    const reader = Capture.makeReader()
    const records = chunks.flatMap((chunk) => reader.push(chunk))
    const end = reader.end()
    if (reader.failure !== undefined) assert.equal(reader.buffered, 0)
    return { records, end: end?.reason }
  })
  const size = records.reduce((sum, { payload }) => sum + 24 + payload.length, 0)
  const bytes = joined(...records.map((record) => Result.getOrThrow(Capture.encode(record))))
  assert.deepEqual(bytes, input.slice(0, size), "encoding gives other bytes")
  if (end === undefined) assert.equal(size, input.length)
  else assert.ok(end._tag !== "FileFailed" && end.offset === size, "the error is at the wrong offset")
}

const capture: Target = {
  name: "capture",
  make: (dice) => {
    const records = Array.from({ length: 1 + dice.below(6) }, () => {
      const { command, payload } = somePayload(dice)
      return joined(u32(dice.below(2 ** 32)), u32(0x5e0b0), commandField(command), u32(payload.length), payload)
    })
    const whole = joined(...records)
    return dice.chance(0.2) ? whole : mutate(dice, whole)
  },
  check: checkCapture
}

// ---- compact blocks and filtered blocks

const zeros = new Uint8Array(32)

/** A block with a coinbase and random transactions. */
const blockOf = (dice: Dice): Wire.Block => {
  const coinbase: Wire.Transaction = {
    version: 1,
    inputs: [{ previousOutput: { txid: zeros, index: 0xffffffff }, script: dice.bytes(4), sequence: 0, witness: [] }],
    outputs: [{ value: 5, script: dice.bytes(dice.below(30)) }],
    lockTime: 0
  }
  const others = Array.from({ length: dice.below(12) }, (_, lockTime): Wire.Transaction => ({
    version: 2,
    inputs: [{ previousOutput: { txid: dice.bytes(32), index: 0 }, script: dice.bytes(3), sequence: 0, witness: [] }],
    outputs: [{ value: 1, script: dice.bytes(dice.below(40)) }],
    lockTime
  }))
  const transactions = [coinbase, ...others]
  const merkleRoot = Wire.merkleRoot(transactions.map(Wire.txid))
  const header = { version: 1, previousBlock: zeros, merkleRoot, timestamp: 1, bits: 0x207fffff, nonce: 0 }
  return { header, transactions }
}

const isCommittedTo = ({ header, transactions }: Wire.Block): boolean =>
  Buffer.compare(Wire.merkleRoot(Array.from(transactions, Wire.txid)), header.merkleRoot) === 0

/** The first four bytes seed the block whose transactions are the pool, so that some are found. */
const checkCompactBlock = (input: Uint8Array): void => {
  const payload = input.subarray(4)
  const message = Wire.decode("cmpctblock", payload)
  if (Result.isFailure(message) || message.success._tag !== "cmpctblock") return
  const compact = message.success
  const own = dice(hashOf(input.subarray(0, 4)))
  const block = blockOf(own)
  const pool = Array.from(block.transactions).filter(() => own.chance(0.8))
  const result = bounded("rebuilding", payload.length + 2_000, () => CompactBlock.rebuild(compact, pool))
  if (Result.isFailure(result)) return assert.ok(result.failure instanceof CompactBlock.CompactBlockError)
  const count = compact.shortIds.length + compact.prefilled.length
  const isWhole = (rebuilt: Wire.Block): void => {
    assert.equal(rebuilt.transactions.length, count)
    assert.ok(isCommittedTo(rebuilt), "the header commits to other transactions")
  }
  if (result.success._tag === "Complete") return isWhole(result.success.block)
  const incomplete = result.success
  const asked = Array.from(incomplete.request.indexes)
  assert.deepEqual(
    asked,
    incomplete.found.flatMap((found, index) => (found === undefined ? [index] : []))
  )
  const answer = asked.flatMap((index) => block.transactions.at(index) ?? [])
  const completed = CompactBlock.complete(incomplete, {
    _tag: "blocktxn",
    blockHash: incomplete.request.blockHash,
    transactions: answer
  })
  if (Result.isSuccess(completed)) isWhole(completed.success)
  else assert.ok(completed.failure.misbehaved === (answer.length !== asked.length))
}

const compactBlock: Target = {
  name: "compactblock",
  make: (own) => {
    const seed = own.bytes(4)
    const block = blockOf(dice(hashOf(seed)))
    const prefilled = block.transactions.length > 1 && own.chance(0.3) ? [1] : []
    const made = Result.getOrThrow(CompactBlock.make(block, { nonce: 7n, prefilled }))
    const payload = own.chance(0.2) ? payloadOf(own, "cmpctblock") : encoded(made)
    return joined(seed, own.chance(0.4) ? payload : mutate(own, payload))
  },
  check: checkCompactBlock
}

/** A block that is not mutated has its merkle root, a coinbase, and a coinbase that commits to its witnesses if it has any. */
const checkMutation = (input: Uint8Array): void => {
  const message = Wire.decode("block", input)
  if (Result.isFailure(message) || message.success._tag !== "block") return
  const { block } = message.success
  for (const segwitHeight of [undefined, 0, 1_000_000]) {
    const mutation = bounded("checking a block", input.length, () => Block.mutation(block, { segwitHeight }), 16)
    assert.equal(Block.isMutated(block, { segwitHeight }), mutation !== undefined)
    const bare = Array.from(block.transactions, (transaction) => ({
      ...transaction,
      inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: [] }))
    }))
    const cut = Block.mutation({ ...block, transactions: bare }, { segwitHeight })
    if (mutation === "NoCoinbase" || mutation === "OtherTransactions" || mutation === "RepeatedTransactions") {
      // These mutations do not depend on witnesses.
      assert.equal(cut, mutation)
    } else {
      assert.ok(isCommittedTo(block) && Wire.isCoinbase(block.transactions.at(0)!))
      assert.ok(cut === undefined || cut === "NoReservedValue")
    }
  }
}

const mutatedBlock: Target = {
  name: "mutation",
  make: (dice) => {
    const payload = dice.chance(0.3)
      ? payloadOf(dice, "block")
      : encoded({
          _tag: "block",
          block: mineBlock(
            { blocks: [genesis], hashes: [Wire.blockHash(genesis.header)] },
            { timestamp: 1_700_000_000, transactions: Array.from(blockOf(dice).transactions).slice(1) }
          )
        })
    return dice.chance(0.3) ? payload : mutate(dice, payload)
  },
  check: checkMutation
}

const rawTransaction: Target = {
  name: "rawtransaction",
  make: (dice) => {
    const payload = payloadOf(dice, "tx")
    // Without its inputs: version, the count of outputs and what follows.
    return dice.chance(0.8) ? payload : mutate(dice, joined(payload.subarray(0, 4), Uint8Array.of(0), dice.bytes(60)))
  },
  check: (input) => {
    const result = bounded("reading a transaction", input.length, () => Wire.decodeRawTransaction(input))
    const strict = Wire.decodeTransaction(input)
    if (Result.isFailure(result)) return assert.ok(Result.isFailure(strict), "only the strict decoder accepts it")
    const transaction = result.success
    assert.equal(Wire.transactionSize(transaction), input.length)
    assert.equal(Wire.txid(transaction).length, 32)
    const again = Wire.encodeTransaction(transaction)
    const isUnwritable = transaction.inputs.length === 0 && transaction.outputs.length > 0
    assert.equal(
      Result.isFailure(again),
      isUnwritable,
      "a transaction that would not decode again is encoded, or one that would is not"
    )
    if (Result.isSuccess(again)) assert.deepEqual(again.success, input)
  }
}

const checkMerkleBlock = (input: Uint8Array): void => {
  const message = Wire.decode("merkleblock", input)
  if (Result.isFailure(message) || message.success._tag !== "merkleblock") return
  const proof = message.success
  const result = bounded("verifying", input.length, () => MerkleBlock.verify(proof))
  if (Result.isFailure(result)) return assert.ok(result.failure.message !== "")
  let last = -1
  for (const { index, txid } of result.success) {
    assert.ok(index > last && index < proof.transactionCount, "an index outside the block, or out of order")
    last = index
    assert.ok(Array.from(proof.hashes).some((hash) => Buffer.compare(hash, txid) === 0))
  }
}

const merkleBlock: Target = {
  name: "merkleblock",
  make: (dice) => {
    const made = MerkleBlock.make(blockOf(dice), () => dice.chance(0.3))
    const payload = dice.chance(0.3) ? payloadOf(dice, "merkleblock") : encoded(made.merkleBlock)
    return dice.chance(0.2) ? payload : mutate(dice, payload)
  },
  check: checkMerkleBlock
}

// ---- filters

/** 32 bytes of the hash of a block, then the filter. */
const checkCompactFilter = (input: Uint8Array): void => {
  const blockHash = input.slice(0, 32)
  const bytes = input.subarray(32)
  const result = bounded("decoding", input.length, () => CompactFilter.decode(blockHash, bytes))
  const scripts = Array.from({ length: 20 }, (_, index) => bytes.subarray(index, index * 2))
  if (Result.isSuccess(result)) {
    const filter = result.success
    const any = bounded("matching", input.length, () => CompactFilter.matchesAny(filter, scripts))
    assert.equal(
      any,
      scripts.some((script) => CompactFilter.matches(filter, script)),
      "matchesAny and matches differ"
    )
  }
  if (blockHash.length < 32) return
  const elements = scripts.filter(({ length }) => length > 0)
  const made = Result.getOrThrow(CompactFilter.decode(blockHash, CompactFilter.encode(blockHash, elements)))
  for (const element of elements)
    assert.ok(CompactFilter.matches(made, element), "a filter does not match its own element")
}

const compactFilter: Target = {
  name: "compactfilter",
  make: (dice) => {
    const blockHash = dice.bytes(32)
    const elements = Array.from({ length: dice.below(dice.chance(0.1) ? 400 : 20) }, () => dice.bytes(dice.below(40)))
    const filter = CompactFilter.encode(blockHash, elements)
    return joined(blockHash, dice.chance(0.3) ? filter : mutate(dice, filter))
  },
  check: checkCompactFilter
}

/** A uint16 with the length of a filterload, the filterload, and a transaction. */
const checkBloom = (input: Uint8Array): void => {
  const size = (input[0] ?? 0) | ((input[1] ?? 0) << 8)
  const load = Wire.decode("filterload", input.subarray(2, 2 + size))
  const tx = Wire.decode("tx", input.subarray(2 + size))
  if (Result.isFailure(load) || load.success._tag !== "filterload") return
  const message = load.success
  const filter = BloomFilter.fromFilterLoad(message)
  const before = message.filter.slice()
  const element = input.subarray(0, 20)
  BloomFilter.insert(filter, element)
  assert.ok(BloomFilter.contains(filter, element), "the filter does not contain an inserted element")
  if (Result.isSuccess(tx) && tx.success._tag === "tx") {
    const { transaction } = tx.success
    // Up to 50 hash functions for each push, and a push can be one byte.
    const found = bounded("matching", input.length * 50, () => BloomFilter.matches(filter, transaction))
    if (found) assert.ok(BloomFilter.matches(filter, transaction), "a second match of the same transaction fails")
    BloomFilter.insert(filter, Wire.txid(transaction))
    assert.ok(BloomFilter.matches(filter, transaction), "a transaction does not match after its txid was inserted")
  }
  assert.deepEqual(message.filter, before, "the message was written to")
  const again = BloomFilter.fromFilterLoad(BloomFilter.toFilterLoad(filter))
  assert.deepEqual(again, filter)
}

const bloom: Target = {
  name: "bloom",
  make: (dice) => {
    const load = payloadOf(dice, "filterload").subarray(0, 0xffff)
    return joined(Uint8Array.of(load.length & 0xff, load.length >> 8), load, payloadOf(dice, "tx"))
  },
  check: checkBloom
}

// ---- addresses as text

const texts = [
  "127.0.0.1:8333",
  "[2001:db8::1]:18444",
  "::ffff:1.2.3.4",
  "fc00::1",
  "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid.onion:8333",
  "udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna.b32.i2p",
  "fe80::1%eth0",
  "[fe80::1%32]:8333",
  "0x7f.1",
  "[::1"
]

const address: Target = {
  name: "address",
  make: (dice) => {
    const text = Uint8Array.from(Buffer.from(dice.pick(texts)))
    return dice.chance(0.1) ? text : mutate(dice, text).subarray(0, 1_000)
  },
  check: (input) => {
    const text = Buffer.from(input).toString("latin1")
    const result = bounded("reading an address", input.length, () => Address.parse(text, 1))
    if (Result.isFailure(result)) return assert.ok(result.failure instanceof Address.AddressError)
    const parsed = result.success
    const written = Address.format(parsed)
    assert.deepEqual(Result.getOrThrow(Address.parse(written)), parsed, "formatting and parsing give another address")
    assert.equal(Address.format(Result.getOrThrow(Address.parse(written))), written)
    for (const about of [Address.isValid, Address.isLocal, Address.isRoutable, Address.group, Address.formatHost]) {
      about(parsed)
    }
  }
}

// ---- answers of proxies

/** Runs a dialogue on the input as far as it goes. It must end, or fail with its own error. */
const talk = (dialogue: Dialogue<unknown>, input: Uint8Array): void => {
  try {
    let offset = 0
    for (let step = dialogue.next(); step.done !== true;) {
      const { read } = step.value
      const index = read === "line" ? input.indexOf(10, offset) : offset + read
      if (index < 0 || index > input.length) return
      const given = input.subarray(offset, index)
      if (read !== "line") assert.ok(given.length > 0, "the dialogue reads 0 bytes")
      offset = read === "line" ? index + 1 : index
      step = dialogue.next(given)
    }
  } catch (error) {
    assert.ok(error instanceof ProxyError, String(error))
    // oxlint-disable-next-line no-control-regex
    assert.doesNotMatch(error.message, /[\x00-\x1f\x7f-\x9f]/, "the error message contains a control character")
    assert.ok(error.message.length <= 300, "the error message is too long")
  }
}

const proxyWords = [
  Uint8Array.of(5, 0),
  Uint8Array.of(5, 2),
  Uint8Array.of(1, 0),
  Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0),
  Uint8Array.of(5, 0, 0, 3, 2, 0x61, 0x62, 0, 0),
  Uint8Array.of(5, 0xf0, 0, 4),
  ...[
    "HELLO REPLY RESULT=OK VERSION=3.1\n",
    "SESSION STATUS RESULT=OK DESTINATION=",
    `${Buffer.alloc(391).toString("base64").replaceAll("+", "-").replaceAll("/", "~")}\n`,
    "NAMING REPLY RESULT=OK NAME=x VALUE=",
    "STREAM STATUS RESULT=OK\n",
    "STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\x1b[1m\n"
  ].map((text) => Uint8Array.from(Buffer.from(text)))
]

const proxy: Target = {
  name: "proxy",
  make: (dice) => {
    const whole = joined(...Array.from({ length: 1 + dice.below(6) }, () => dice.pick(proxyWords)))
    return dice.chance(0.4) ? whole : mutate(dice, whole)
  },
  check: (input) => {
    const target = { host: "example.onion", port: 8333 }
    const dialogues: ReadonlyArray<() => Dialogue<unknown>> = [
      () => socks5(target, undefined),
      () => socks5(target, { user: "u", password: "p" }),
      () => createSession("id", undefined),
      () => connectStream("id", "x.b32.i2p"),
      () => acceptStream("id")
    ]
    for (const make of dialogues) bounded("talking", input.length, () => talk(make(), input))
  }
}

export const formats: ReadonlyArray<Target> = [
  packets,
  keyExchange,
  capture,
  compactBlock,
  mutatedBlock,
  rawTransaction,
  merkleBlock,
  compactFilter,
  bloom,
  address,
  proxy
]
