/** The summary of a message in a few plain values, for people and for programs. */
import * as Result from "effect/Result"
import * as Address from "effect-bitcoin-peer/Address"
import * as BloomFilter from "effect-bitcoin-peer/BloomFilter"
import * as MerkleBlock from "effect-bitcoin-peer/MerkleBlock"
import * as Wire from "effect-bitcoin-peer/Wire"
import type { Network } from "effect-bitcoin-peer/Network"
import type { Message, Summary } from "./events.ts"
import { rawTransaction } from "./rawTransaction.ts"
import { hex } from "./text.ts"

type SummaryOf<Tag extends string> = Extract<Summary, { readonly command: Tag }>

const nonce = (value: bigint): string => value.toString(16).padStart(16, "0")

const typeNames = new Map<number, string>([
  [Wire.InventoryType.tx, "tx"],
  [Wire.InventoryType.block, "block"],
  [Wire.InventoryType.filteredBlock, "filteredBlock"],
  [Wire.InventoryType.compactBlock, "compactBlock"],
  [Wire.InventoryType.wtx, "wtx"],
  [Wire.InventoryType.packageTransactions, "packageTransactions"],
  [Wire.InventoryType.ancestorPackageInfo, "ancestorPackageInfo"],
  [Wire.InventoryType.tx | Wire.InventoryType.witnessFlag, "witnessTx"],
  [Wire.InventoryType.block | Wire.InventoryType.witnessFlag, "witnessBlock"]
])

/** Counts by name. Numbers without a name share one, so that a peer cannot make more of them. */
const tally = <A>(list: Wire.List<A>, name: (element: A) => string): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const element of list) {
    const key = name(element)
    counts[key] = (counts[key] ?? 0) + 1
  }
  return counts
}

const first = (list: Wire.List<Uint8Array>): { readonly first?: string } => {
  const hash = list.at(0)
  return hash === undefined ? {} : { first: Wire.hashToHex(hash) }
}

const items = ({ items }: Wire.Inv | Wire.GetData | Wire.NotFound) => {
  const item = items.at(0)
  return {
    count: items.length,
    types: tally(items, ({ type }) => typeNames.get(type) ?? "other"),
    ...(item !== undefined && { first: Wire.hashToHex(item.hash) })
  }
}

const locator = (message: Wire.GetHeaders | Wire.GetBlocks) => ({
  count: message.locator.length,
  ...first(message.locator),
  ...(message.stopHash.some((byte) => byte !== 0) && { stop: Wire.hashToHex(message.stopHash) })
})

const networkNames = ["other", "ipv4", "ipv6", "torv2", "torv3", "i2p", "cjdns"]

const addresses = <A extends Wire.NetworkAddress | Wire.AddressV2>(
  list: Wire.List<A>,
  network: (address: A) => string
) => {
  const address = list.at(0)
  return {
    count: list.length,
    networks: tally(list, network),
    ...(address !== undefined && { first: Wire.formatAddress(address) })
  }
}

const transaction = (of: Wire.Transaction): SummaryOf<"tx"> => {
  let value = 0
  for (const output of of.outputs) value += output.value
  return {
    command: "tx",
    txid: Wire.hashToHex(Wire.txid(of)),
    wtxid: Wire.hashToHex(Wire.wtxid(of)),
    version: of.version,
    inputs: of.inputs.length,
    outputs: of.outputs.length,
    value,
    lockTime: of.lockTime,
    coinbase: Wire.isCoinbase(of)
  }
}

const header = (of: Wire.BlockHeader) => ({
  hash: Wire.hashToHex(Wire.blockHash(of)),
  previous: Wire.hashToHex(of.previousBlock),
  version: of.version,
  timestamp: of.timestamp
})

const merkleBlock = (message: Wire.MerkleBlock): SummaryOf<"merkleblock"> => {
  const matches = MerkleBlock.verify(message)
  return {
    command: "merkleblock",
    ...header(message.header),
    transactions: message.transactionCount,
    ...(Result.isSuccess(matches)
      ? { matches: matches.success.length, ...first(matches.success.map(({ txid }) => txid)) }
      : { invalid: matches.failure.reason._tag })
  }
}

const headers = ({ headers }: Wire.Headers) => {
  const [from, to] = [headers.at(0), headers.at(-1)]
  return {
    count: headers.length,
    ...(from !== undefined && { first: Wire.hashToHex(Wire.blockHash(from)) }),
    ...(to !== undefined && { last: Wire.hashToHex(Wire.blockHash(to)) })
  }
}

/** The summary of a message. */
export const summarise = (message: Wire.Message): Summary => {
  switch (message._tag) {
    case "version":
      return {
        command: "version",
        protocolVersion: message.protocolVersion,
        services: Wire.serviceNames(message.services),
        userAgent: message.userAgent,
        startHeight: message.startHeight,
        relay: message.relay,
        timestamp: message.timestamp,
        receiver: Wire.formatAddress(message.receiver),
        nonce: nonce(message.nonce)
      }
    case "sendcmpct":
      return { command: "sendcmpct", announce: message.announce, version: Number(message.version) }
    case "feature":
      return { command: "feature", id: message.id, data: hex(message.data) }
    case "ping":
      return { command: "ping", ...(message.nonce !== undefined && { nonce: nonce(message.nonce) }) }
    case "pong":
      return { command: "pong", nonce: nonce(message.nonce) }
    case "addr": {
      const network = ({ address }: Wire.NetworkAddress) =>
        networkNames[Address.fromBytes(address)?.networkId ?? Address.NetworkId.ipv6]!
      return { command: "addr", ...addresses(message.addresses, network) }
    }
    case "addrv2": {
      const network = ({ networkId }: Wire.AddressV2) => networkNames[networkId] ?? "other"
      return { command: "addrv2", ...addresses(message.addresses, network) }
    }
    case "inv":
    case "getdata":
    case "notfound":
      return { command: message._tag, ...items(message) }
    case "getheaders":
    case "getblocks":
      return { command: message._tag, ...locator(message) }
    case "headers":
      return { command: "headers", ...headers(message) }
    case "feefilter":
      return { command: "feefilter", feeRate: message.feeRate }
    case "tx":
      return transaction(message.transaction)
    case "block":
      return {
        command: "block",
        ...header(message.block.header),
        transactions: message.block.transactions.length
      }
    case "filterload":
      return {
        command: "filterload",
        size: message.filter.length,
        hashFunctions: message.hashFunctions,
        tweak: message.tweak,
        update: BloomFilter.fromFilterLoad(message).update
      }
    case "filteradd":
      return { command: "filteradd", data: hex(message.data) }
    case "merkleblock":
      return merkleBlock(message)
    case "cmpctblock":
      return {
        command: "cmpctblock",
        ...header(message.header),
        transactions: message.shortIds.length + message.prefilled.length,
        prefilled: message.prefilled.length,
        nonce: nonce(message.nonce)
      }
    case "getblocktxn":
      return { command: "getblocktxn", hash: Wire.hashToHex(message.blockHash), transactions: message.indexes.length }
    case "blocktxn":
      return {
        command: "blocktxn",
        hash: Wire.hashToHex(message.blockHash),
        transactions: message.transactions.length
      }
    case "reject":
      return {
        command: "reject",
        rejected: message.rejected,
        code: message.code,
        reason: message.reason,
        ...(message.hash !== undefined && { hash: Wire.hashToHex(message.hash) })
      }
    case "getcfilters":
    case "getcfheaders":
      return {
        command: message._tag,
        filterType: message.filterType,
        startHeight: message.startHeight,
        stop: Wire.hashToHex(message.stopHash)
      }
    case "cfilter":
      return {
        command: "cfilter",
        filterType: message.filterType,
        block: Wire.hashToHex(message.blockHash),
        size: message.filter.length
      }
    case "cfheaders":
      return {
        command: "cfheaders",
        filterType: message.filterType,
        count: message.filterHashes.length,
        previous: Wire.hashToHex(message.previousFilterHeader),
        stop: Wire.hashToHex(message.stopHash)
      }
    case "getcfcheckpt":
      return { command: "getcfcheckpt", filterType: message.filterType, stop: Wire.hashToHex(message.stopHash) }
    case "cfcheckpt":
      return {
        command: "cfcheckpt",
        filterType: message.filterType,
        count: message.filterHeaders.length,
        stop: Wire.hashToHex(message.stopHash)
      }
    case "sendtxrcncl":
      return { command: "sendtxrcncl", version: message.version, salt: nonce(message.salt) }
    case "sendpackages":
      return { command: "sendpackages", versions: nonce(message.versions) }
    case "ancpkginfo":
    case "getpkgtxns":
      return { command: message._tag, count: message.wtxids.length, ...first(message.wtxids) }
    case "pkgtxns": {
      const one = message.transactions.at(0)
      const count = message.transactions.length
      return { command: "pkgtxns", count, ...(one !== undefined && { first: Wire.hashToHex(Wire.wtxid(one)) }) }
    }
    case "alert": {
      const { comment, expiration, id, statusBar } = message
      return { command: "alert", id, expiration, statusBar, comment }
    }
    case "Unknown":
      return { command: message.command, unknown: true }
    default:
      return { command: message._tag }
  }
}

/** The fields of a message event that come from the message. */
export type Content = Summary & Pick<Message, "content" | "transaction">

/** The form of printed events: lines for people, or JSON with a summary of each message, or with all of it. */
export type Format = "text" | "summary" | "full"

/** The summary of a message and, in the format "full", the message. Addresses of outputs are those of `network`. */
export const contentOf = (message: Wire.Message, format: Format, network: Network): Content => ({
  ...summarise(message),
  ...(format === "full" && {
    content: message,
    ...(message._tag === "tx" && { transaction: rawTransaction(message.transaction, network) })
  })
})
