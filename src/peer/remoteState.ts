/**
 * What the remote has told since the handshake, as far as the peer itself goes by it: the hashes that the remote knows, which
 * blocks it sent and announced, and which announcements it wants.
 *
 * `observe` reads each received message once. It makes each hash at most once and returns those that the tracker of requests
 * needs too.
 */
import type { Known } from "../Inventory.ts"
import * as Wire from "../Wire.ts"
import { visitItems } from "../wire/messages/inventory.ts"

/** Every hash pushes out an older one, and making it costs two SHA-256: of a long list only the end is looked at. */
const headersRemembered = 8
/** Blocks are announced alone, or 500 at a time in answer to getblocks. */
const itemsSearchedForBlock = 500
/** All the money there is, in satoshi: no fee rate is above it. */
const maximumMoney = 21e14

/** What the peer knows of its remote. */
export interface RemoteState {
  /** Hashes that are not announced to the remote again, because it announced, sent, requested or received them. */
  readonly known: Known
  /** How many hashes `known` holds at most. */
  readonly knownLimit: number
  /** Whether `known` holds wtxids instead of txids (BIP339). */
  readonly wtxidRelay: boolean
  /** Whether the remote wants transactions announced. */
  relay: boolean
  /** In satoshi per 1,000 virtual bytes. Transactions below are not announced (BIP133). */
  feeFilter: number
  /** Whether the remote wants blocks announced by their headers (BIP130). */
  wantsHeaders: boolean
  lastBlockReceived: Uint8Array | undefined
  lastBlockAnnounced: Uint8Array | undefined
}

/** The hashes of a message that were made while it was observed, each 32 bytes in wire order. */
export interface MessageHashes {
  /** Of the header in a `block`, `merkleblock` or `cmpctblock`. */
  readonly blockHash?: Uint8Array | undefined
  /** Of a `tx`, where the two sides announce by txid. */
  readonly txid?: Uint8Array | undefined
  /** Of a `tx`, where the two sides announce by wtxid. */
  readonly wtxid?: Uint8Array | undefined
}

export interface RemoteStateOptions {
  readonly known: Known
  readonly knownLimit: number
  readonly wtxidRelay: boolean
  readonly relay: boolean
  readonly wantsHeaders: boolean
}

export const make = ({ known, knownLimit, relay, wantsHeaders, wtxidRelay }: RemoteStateOptions): RemoteState => ({
  known,
  knownLimit,
  wtxidRelay,
  relay,
  feeFilter: 0,
  wantsHeaders,
  lastBlockReceived: undefined,
  lastBlockAnnounced: undefined
})

/** Shared by all messages without a hash. */
const noHashes: MessageHashes = {}

/** Remembers the last items of a list; returns a copy of the hash of the last block among them. */
const rememberItems = (state: RemoteState, items: Wire.List<Wire.InventoryItem>): Uint8Array | undefined => {
  let block: Uint8Array | undefined
  let blockOffset = 0
  const looked = Math.max(state.knownLimit, itemsSearchedForBlock)
  visitItems(items, Math.max(0, items.length - looked), (type, bytes, offset) => {
    state.known.addAt(bytes, offset)
    if (type === Wire.InventoryType.block) {
      block = bytes
      blockOffset = offset
    }
  })
  // A view would keep the whole message alive.
  return block?.slice(blockOffset, blockOffset + 32)
}

/** Remembers the last headers of a list; returns the hash of the last one. */
const rememberHeaders = (state: RemoteState, headers: Wire.List<Wire.BlockHeader>): Uint8Array | undefined => {
  let hash: Uint8Array | undefined
  const length = headers.length
  for (let index = Math.max(0, length - headersRemembered); index < length; index++) {
    hash = Wire.blockHash(headers.at(index)!)
    state.known.add(hash)
  }
  return hash
}

const rememberHeader = (state: RemoteState, header: Wire.BlockHeader): Uint8Array => {
  const hash = Wire.blockHash(header)
  state.known.add(hash)
  return hash
}

const rememberTransaction = (state: RemoteState, transaction: Wire.Transaction): MessageHashes => {
  if (state.wtxidRelay) {
    const wtxid = Wire.wtxid(transaction)
    state.known.add(wtxid)
    return { wtxid }
  }
  const txid = Wire.txid(transaction)
  state.known.add(txid)
  return { txid }
}

/** To be called for each message that was received. Returns the hashes that it made. */
export const observe = (state: RemoteState, message: Wire.Message): MessageHashes => {
  switch (message._tag) {
    case "inv": {
      const hash = rememberItems(state, message.items)
      if (hash !== undefined) state.lastBlockAnnounced = hash
      return noHashes
    }
    case "getdata":
      rememberItems(state, message.items)
      return noHashes
    case "tx":
      return rememberTransaction(state, message.transaction)
    case "block": {
      const blockHash = rememberHeader(state, message.block.header)
      state.lastBlockReceived = blockHash
      return { blockHash }
    }
    case "headers": {
      const hash = rememberHeaders(state, message.headers)
      if (hash !== undefined) state.lastBlockAnnounced = hash
      return noHashes
    }
    case "merkleblock":
      return { blockHash: rememberHeader(state, message.header) }
    case "cmpctblock": {
      const blockHash = rememberHeader(state, message.header)
      state.lastBlockAnnounced = blockHash
      return { blockHash }
    }
    case "getblocktxn":
    case "blocktxn":
      state.known.add(message.blockHash)
      return noHashes
    case "sendheaders":
      state.wantsHeaders = true
      return noHashes
    case "filterload":
    case "filterclear":
      // A remote that refused announcements in its version message wants them from here on (BIP37).
      state.relay = true
      return noHashes
    case "feefilter":
      if (message.feeRate >= 0 && message.feeRate <= maximumMoney) state.feeFilter = message.feeRate
      return noHashes
    default:
      return noHashes
  }
}

/**
 * To be called for each message that is written: the remote knows of what is in it from then on. A request says nothing about
 * whether the remote has the item.
 */
export const observeSent = (state: RemoteState, message: Wire.Message): void => {
  switch (message._tag) {
    case "inv":
      rememberItems(state, message.items)
      return
    case "tx":
      rememberTransaction(state, message.transaction)
      return
    case "block":
      rememberHeader(state, message.block.header)
      return
    case "headers":
      rememberHeaders(state, message.headers)
      return
    case "merkleblock":
    case "cmpctblock":
      rememberHeader(state, message.header)
      return
    case "blocktxn":
      state.known.add(message.blockHash)
      return
  }
}
