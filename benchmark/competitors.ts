/**
 * The competing libraries: for each message that a library supports, how to decode it and read every field, and how to encode
 * it again. They are installed in `benchmark/`; libraries that are not installed are left out.
 */
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as path from "node:path"

/** The functions of a library for one kind of payload. */
export interface Codec {
  /** Decodes the payload and reads every field: one byte of each hash, each number, the length of each byte array. */
  readonly read: (payload: Buffer) => number
  /** Decodes the payload; the returned function encodes the objects from their fields, not from kept bytes. */
  readonly encoder: (payload: Buffer) => () => Uint8Array
  /** Decodes a block and computes its txids. */
  readonly txids?: (payload: Buffer) => Array<Uint8Array>
}

export type Kind = "block" | "tx" | "inv" | "headers" | "addr"

export interface Library extends Partial<Record<Kind, Codec>> {
  /** Name and version, for the tables. */
  readonly name: string
  /** Parses chunks of frames of regtest and counts the messages. */
  readonly countFrames?: (chunks: ReadonlyArray<Buffer>) => number
  /** Whether it supports witnesses. */
  readonly witnesses: boolean
}

const require = createRequire(import.meta.url)

// Old libraries use APIs that Node warns about.
process.noDeprecation = true

const load = (name: string, make: (version: string) => Library): Library | undefined => {
  const manifest = path.join(import.meta.dirname, "node_modules", name, "package.json")
  if (!fs.existsSync(manifest)) {
    console.error(`${name} is not installed, its rows are left out: npm ci --ignore-scripts --prefix benchmark`)
    return undefined
  }
  const { version } = JSON.parse(fs.readFileSync(manifest, "utf8")) as { readonly version: string }
  return make(version)
}

/** Values of hexadecimal digits by their code. */
const nibbles = Uint8Array.from({ length: 128 }, (_, code) => Number.parseInt(String.fromCharCode(code), 16) || 0)
/** The first byte of a hash in hexadecimal. */
const firstByte = (hex: string): number => nibbles[hex.charCodeAt(0)]! * 16 + nibbles[hex.charCodeAt(1)]!

// ---- bitcoinjs-lib

interface JsTransaction {
  readonly version: number
  readonly locktime: number
  readonly ins: ReadonlyArray<{
    readonly hash: Uint8Array
    readonly index: number
    readonly script: Uint8Array
    readonly sequence: number
    readonly witness: ReadonlyArray<Uint8Array>
  }>
  readonly outs: ReadonlyArray<{ readonly value: bigint; readonly script: Uint8Array }>
  readonly getHash: (forWitness?: boolean) => Uint8Array
  readonly toBuffer: () => Uint8Array
}

interface JsBlock {
  readonly version: number
  readonly prevHash: Uint8Array
  readonly merkleRoot: Uint8Array
  readonly timestamp: number
  readonly bits: number
  readonly nonce: number
  readonly transactions: ReadonlyArray<JsTransaction>
  readonly toBuffer: (headersOnly?: boolean) => Uint8Array
}

interface BitcoinJs {
  readonly Block: { readonly fromBuffer: (bytes: Uint8Array) => JsBlock }
  readonly Transaction: { readonly fromBuffer: (bytes: Uint8Array) => JsTransaction }
}

const bitcoinJs = (version: string): Library => {
  const { Block, Transaction } = require("bitcoinjs-lib") as BitcoinJs
  const readTransaction = ({ ins, locktime, outs, version }: JsTransaction): number => {
    let sum = version + locktime
    for (const { hash, index, script, sequence, witness } of ins) {
      sum += hash[0]! + index + script.length + sequence
      for (const item of witness) sum += item.length
    }
    for (const { script, value } of outs) sum += Number(value) + script.length
    return sum
  }
  const readHeader = ({ bits, merkleRoot, nonce, prevHash, timestamp, version }: JsBlock): number =>
    version + prevHash[0]! + merkleRoot[0]! + timestamp + bits + nonce
  return {
    name: `bitcoinjs-lib ${version}`,
    witnesses: true,
    block: {
      read: (payload) => {
        const block = Block.fromBuffer(payload)
        let sum = readHeader(block)
        for (const transaction of block.transactions) sum += readTransaction(transaction)
        return sum
      },
      encoder: (payload) => {
        const block = Block.fromBuffer(payload)
        return () => block.toBuffer()
      },
      txids: (payload) => Block.fromBuffer(payload).transactions.map((transaction) => transaction.getHash(false))
    },
    tx: {
      read: (payload) => readTransaction(Transaction.fromBuffer(payload)),
      encoder: (payload) => {
        const transaction = Transaction.fromBuffer(payload)
        return () => transaction.toBuffer()
      }
    },
    // It has no headers message: we split the payload into entries of 81 bytes for it, and join them again.
    headers: {
      read: (payload) => {
        let sum = 0
        for (let offset = 3; offset < payload.length; offset += 81) {
          sum += readHeader(Block.fromBuffer(payload.subarray(offset, offset + 80)))
        }
        return sum
      },
      encoder: (payload) => {
        const blocks: Array<JsBlock> = []
        for (let offset = 3; offset < payload.length; offset += 81) {
          blocks.push(Block.fromBuffer(payload.subarray(offset, offset + 80)))
        }
        const count = payload.subarray(0, 3)
        return () => {
          const bytes = new Uint8Array(count.length + blocks.length * 81)
          bytes.set(count)
          for (let i = 0; i < blocks.length; i++) bytes.set(blocks[i]!.toBuffer(true), 3 + i * 81)
          return bytes
        }
      }
    }
  }
}

// ---- bcoin

interface BcoinTransaction {
  readonly version: number
  readonly locktime: number
  readonly inputs: ReadonlyArray<{
    readonly prevout: { readonly hash: string; readonly index: number }
    readonly script: { readonly raw: Buffer }
    readonly sequence: number
    readonly witness: { readonly items: ReadonlyArray<Buffer> }
  }>
  readonly outputs: ReadonlyArray<{ readonly value: number; readonly script: { readonly raw: Buffer } }>
  readonly hash: () => Buffer
  /** Clears the bytes that bcoin keeps. */
  readonly refresh: () => void
  readonly toRaw: () => Buffer
}

interface BcoinHeader {
  readonly version: number
  readonly prevBlock: string
  readonly merkleRoot: string
  readonly time: number
  readonly bits: number
  readonly nonce: number
}

interface BcoinBlock extends BcoinHeader {
  readonly txs: ReadonlyArray<BcoinTransaction>
  readonly refresh: (all: boolean) => void
  readonly toRaw: () => Buffer
}

interface FromRaw<A> {
  readonly fromRaw: (bytes: Buffer) => A & { readonly toRaw: () => Buffer }
}

interface BcoinPackets {
  readonly InvPacket: FromRaw<{ readonly items: ReadonlyArray<{ readonly type: number; readonly hash: string }> }>
  readonly HeadersPacket: FromRaw<{ readonly items: ReadonlyArray<BcoinHeader> }>
  readonly AddrPacket: FromRaw<{
    readonly items: ReadonlyArray<{
      readonly time: number
      readonly services: number
      readonly raw: Buffer
      readonly port: number
    }>
  }>
}

interface BcoinParser {
  readonly feed: (chunk: Buffer) => void
  readonly on: (event: string, listener: (value: unknown) => void) => void
}

const encoderOf =
  <A>(packet: FromRaw<A>) =>
  (payload: Buffer): (() => Uint8Array) => {
    const decoded = packet.fromRaw(payload)
    return () => decoded.toRaw()
  }

const bcoin = (version: string): Library => {
  // bcoin's murmur3 needs a native add-on or the JavaScript backend. SHA-256 still is that of `node:crypto`, the faster one.
  process.env.NODE_BACKEND = "js"
  void require("mrmr")
  delete process.env.NODE_BACKEND
  const Block = require("bcoin/lib/primitives/block") as FromRaw<BcoinBlock>
  const Transaction = require("bcoin/lib/primitives/tx") as FromRaw<BcoinTransaction>
  const packets = require("bcoin/lib/net/packets") as BcoinPackets
  const Parser = require("bcoin/lib/net/parser") as new (network: string) => BcoinParser
  const readTransaction = ({ inputs, locktime, outputs, version }: BcoinTransaction): number => {
    let sum = version + locktime
    for (const { prevout, script, sequence, witness } of inputs) {
      sum += firstByte(prevout.hash) + prevout.index + script.raw.length + sequence
      for (const item of witness.items) sum += item.length
    }
    for (const { script, value } of outputs) sum += value + script.raw.length
    return sum
  }
  const readHeader = ({ bits, merkleRoot, nonce, prevBlock, time, version }: BcoinHeader): number =>
    version + firstByte(prevBlock) + firstByte(merkleRoot) + time + bits + nonce
  return {
    name: `bcoin ${version}`,
    witnesses: true,
    block: {
      read: (payload) => {
        const block = Block.fromRaw(payload)
        let sum = readHeader(block)
        for (const transaction of block.txs) sum += readTransaction(transaction)
        return sum
      },
      encoder: (payload) => {
        const block = Block.fromRaw(payload)
        return () => {
          block.refresh(true)
          return block.toRaw()
        }
      },
      txids: (payload) => Block.fromRaw(payload).txs.map((transaction) => transaction.hash())
    },
    tx: {
      read: (payload) => readTransaction(Transaction.fromRaw(payload)),
      encoder: (payload) => {
        const transaction = Transaction.fromRaw(payload)
        return () => {
          transaction.refresh()
          return transaction.toRaw()
        }
      }
    },
    inv: {
      read: (payload) => {
        let sum = 0
        for (const { hash, type } of packets.InvPacket.fromRaw(payload).items) sum += type + firstByte(hash)
        return sum
      },
      encoder: encoderOf(packets.InvPacket)
    },
    headers: {
      read: (payload) => {
        let sum = 0
        for (const header of packets.HeadersPacket.fromRaw(payload).items) sum += readHeader(header)
        return sum
      },
      encoder: encoderOf(packets.HeadersPacket)
    },
    addr: {
      read: (payload) => {
        let sum = 0
        for (const { port, raw, services, time } of packets.AddrPacket.fromRaw(payload).items) {
          sum += time + services + port + (raw.length > 0 ? 1 : 0)
        }
        return sum
      },
      encoder: encoderOf(packets.AddrPacket)
    },
    countFrames: (chunks) => {
      let count = 0
      const parser = new Parser("regtest")
      parser.on("packet", () => count++)
      parser.on("error", (error) => {
        throw error
      })
      for (const chunk of chunks) parser.feed(chunk)
      return count
    }
  }
}

// ---- bitcore-lib and bitcore-p2p

interface BitcoreTransaction {
  readonly version: number
  readonly nLockTime: number
  readonly inputs: ReadonlyArray<{
    /** Reversed, as a hash is displayed. */
    readonly prevTxId: Buffer
    readonly outputIndex: number
    readonly _scriptBuffer: Buffer
    readonly sequenceNumber: number
    /** Undefined if no input of the transaction has a witness. */
    readonly getWitnesses: () => ReadonlyArray<Buffer> | undefined
  }>
  readonly outputs: ReadonlyArray<{ readonly satoshis: number; readonly _scriptBuffer: Buffer }>
  readonly _getHash: () => Buffer
  readonly toBuffer: () => Buffer
}

interface BitcoreHeader {
  readonly version: number
  readonly prevHash: Buffer
  readonly merkleRoot: Buffer
  readonly time: number
  readonly bits: number
  readonly nonce: number
}

interface BitcoreBlock {
  readonly header: BitcoreHeader
  readonly transactions: ReadonlyArray<BitcoreTransaction>
  readonly toBuffer: () => Buffer
}

const none: ReadonlyArray<Buffer> = []

interface BitcoreLib {
  readonly Block: { readonly fromBuffer: (bytes: Buffer) => BitcoreBlock }
  readonly Transaction: new () => { readonly fromBuffer: (bytes: Buffer) => BitcoreTransaction }
}

interface BitcoreCommand<A> {
  readonly fromBuffer: (payload: Buffer) => A & { readonly getPayload: () => Buffer }
}

interface BitcoreMessages {
  readonly builder: {
    readonly commands: {
      readonly inv: BitcoreCommand<{
        readonly inventory: ReadonlyArray<{ readonly type: number; readonly hash: Buffer }>
      }>
      readonly headers: BitcoreCommand<{ readonly headers: ReadonlyArray<BitcoreHeader> }>
      readonly addr: BitcoreCommand<{
        readonly addresses: ReadonlyArray<{
          readonly time: Date
          readonly services: { readonly toNumber: () => number }
          readonly ip: { readonly v6: string }
          readonly port: number
        }>
      }>
    }
  }
}

const bitcore = (version: string): Library => {
  const { Block, Transaction } = require("bitcore-lib") as BitcoreLib
  const { Messages } = require("bitcore-p2p") as {
    readonly Messages: new () => BitcoreMessages
  }
  const { commands } = new Messages().builder
  const readTransaction = ({ inputs, nLockTime, outputs, version }: BitcoreTransaction): number => {
    let sum = version + nLockTime
    for (const input of inputs) {
      sum += input.prevTxId[31]! + input.outputIndex + input._scriptBuffer.length + input.sequenceNumber
      for (const item of input.getWitnesses() ?? none) sum += item.length
    }
    for (const { _scriptBuffer, satoshis } of outputs) sum += satoshis + _scriptBuffer.length
    return sum
  }
  const readHeader = ({ bits, merkleRoot, nonce, prevHash, time, version }: BitcoreHeader): number =>
    version + prevHash[0]! + merkleRoot[0]! + time + bits + nonce
  const encoderOf =
    <A>(command: BitcoreCommand<A>) =>
    (payload: Buffer): (() => Uint8Array) => {
      const decoded = command.fromBuffer(payload)
      return () => decoded.getPayload()
    }
  return {
    name: `bitcore ${version}`,
    witnesses: true,
    block: {
      read: (payload) => {
        const { header, transactions } = Block.fromBuffer(payload)
        let sum = readHeader(header)
        for (const transaction of transactions) sum += readTransaction(transaction)
        return sum
      },
      encoder: (payload) => {
        const block = Block.fromBuffer(payload)
        return () => block.toBuffer()
      },
      txids: (payload) => Block.fromBuffer(payload).transactions.map((transaction) => transaction._getHash())
    },
    tx: {
      read: (payload) => readTransaction(new Transaction().fromBuffer(payload)),
      encoder: (payload) => {
        const transaction = new Transaction().fromBuffer(payload)
        return () => transaction.toBuffer()
      }
    },
    inv: {
      read: (payload) => {
        let sum = 0
        for (const { hash, type } of commands.inv.fromBuffer(payload).inventory) sum += type + hash[0]!
        return sum
      },
      encoder: encoderOf(commands.inv)
    },
    headers: {
      read: (payload) => {
        let sum = 0
        for (const header of commands.headers.fromBuffer(payload).headers) sum += readHeader(header)
        return sum
      },
      encoder: encoderOf(commands.headers)
    },
    addr: {
      read: (payload) => {
        let sum = 0
        for (const { ip, port, services, time } of commands.addr.fromBuffer(payload).addresses) {
          sum += time.getTime() / 1_000 + services.toNumber() + port + (ip.v6.length > 0 ? 1 : 0)
        }
        return sum
      },
      encoder: encoderOf(commands.addr)
    }
  }
}

// ---- bitcoin-protocol

interface ProtocolHeader {
  readonly version: number
  readonly prevHash: Buffer
  readonly merkleRoot: Buffer
  readonly timestamp: number
  readonly bits: number
  readonly nonce: number
}

interface ProtocolTransaction {
  readonly version: number
  readonly locktime: number
  readonly ins: ReadonlyArray<{
    readonly hash: Buffer
    readonly index: number
    readonly script: Buffer
    readonly sequence: number
  }>
  readonly outs: ReadonlyArray<{ readonly value: number; readonly script: Buffer }>
}

interface Struct<A> {
  readonly decode: (bytes: Buffer) => A
  readonly encode: (value: A) => Buffer
}

interface ProtocolMessages {
  readonly block: Struct<{
    readonly header: ProtocolHeader
    readonly transactions: ReadonlyArray<ProtocolTransaction>
  }>
  readonly tx: Struct<ProtocolTransaction>
  readonly inv: Struct<ReadonlyArray<{ readonly type: number; readonly hash: Buffer }>>
  readonly headers: Struct<ReadonlyArray<{ readonly header: ProtocolHeader }>>
  readonly addr: Struct<
    ReadonlyArray<{
      readonly time: number
      readonly services: Buffer
      readonly address: string
      readonly port: number
    }>
  >
}

const structCodec = <A>(struct: Struct<A>, read: (value: A) => number): Codec => ({
  read: (payload) => read(struct.decode(payload)),
  encoder: (payload) => {
    const decoded = struct.decode(payload)
    return () => struct.encode(decoded)
  }
})

const bitcoinProtocol = (version: string): Library => {
  const { defaultMessages } = require("bitcoin-protocol/src/messages.js") as {
    readonly defaultMessages: ProtocolMessages
  }
  const { addr, block, headers, inv, tx } = defaultMessages
  const readTransaction = ({ ins, locktime, outs, version }: ProtocolTransaction): number => {
    let sum = version + locktime
    for (const { hash, index, script, sequence } of ins) sum += hash[0]! + index + script.length + sequence
    for (const { script, value } of outs) sum += value + script.length
    return sum
  }
  const readHeader = ({ bits, merkleRoot, nonce, prevHash, timestamp, version }: ProtocolHeader): number =>
    version + prevHash[0]! + merkleRoot[0]! + timestamp + bits + nonce
  return {
    name: `bitcoin-protocol ${version}`,
    witnesses: false,
    block: structCodec(block, ({ header, transactions }) => {
      let sum = readHeader(header)
      for (const transaction of transactions) sum += readTransaction(transaction)
      return sum
    }),
    tx: structCodec(tx, readTransaction),
    inv: structCodec(inv, (items) => {
      let sum = 0
      for (const { hash, type } of items) sum += type + hash[0]!
      return sum
    }),
    headers: structCodec(headers, (entries) => {
      let sum = 0
      for (const { header } of entries) sum += readHeader(header)
      return sum
    }),
    addr: structCodec(addr, (entries) => {
      let sum = 0
      for (const { address, port, services, time } of entries) {
        sum += time + services.readUInt32LE(0) + port + (address.length > 0 ? 1 : 0)
      }
      return sum
    })
  }
}

export const loadLibraries = (): ReadonlyArray<Library> =>
  [
    load("bitcoinjs-lib", bitcoinJs),
    load("bcoin", bcoin),
    load("bitcore-p2p", bitcore),
    load("bitcoin-protocol", bitcoinProtocol)
  ].filter((library) => library !== undefined)
