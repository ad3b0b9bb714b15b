/**
 * What a message says of what the peer knows: everything it announced, sent, asked for or was sent. It is not announced
 * to it again.
 */
import type { Known } from "../Inventory.ts"
import * as Wire from "../Wire.ts"

/** A long list pushes out what it starts with, and is dear to hash: only its end is looked at. */
const headersLearnt = 8

const learnItems = (known: Known, limit: number, items: Wire.List<Wire.InventoryItem>): void => {
  for (let index = Math.max(0, items.length - limit); index < items.length; index++) known.add(items.at(index)!.hash)
}

export const learn = (known: Known, limit: number, wtxidRelay: boolean, message: Wire.Message): void => {
  switch (message._tag) {
    case "inv":
    case "getdata":
      return learnItems(known, limit, message.items)
    case "tx":
      known.add(wtxidRelay ? Wire.wtxid(message.transaction) : Wire.txid(message.transaction))
      return
    case "block":
      known.add(Wire.blockHash(message.block.header))
      return
    case "headers": {
      const { headers } = message
      for (let index = Math.max(0, headers.length - headersLearnt); index < headers.length; index++) {
        known.add(Wire.blockHash(headers.at(index)!))
      }
      return
    }
    case "merkleblock":
    case "cmpctblock":
      known.add(Wire.blockHash(message.header))
      return
    case "getblocktxn":
    case "blocktxn":
      known.add(message.blockHash)
      return
  }
}

// ---- what the remote has told since the handshake, as far as the peer itself goes by it

/** All the money there is, in satoshi: no fee is above it. */
const maximumMoney = 21e14

export interface Told {
  /** Whether it wants transactions announced. */
  relay: boolean
  /** In satoshi per 1,000 virtual bytes. */
  feeFilter: number
  /** Whether it wants blocks announced by their headers. */
  wantsHeaders: boolean
  lastBlockReceived: Uint8Array | undefined
  lastBlockAnnounced: Uint8Array | undefined
}

export const makeTold = (relay: boolean): Told => ({
  relay,
  feeFilter: 0,
  wantsHeaders: false,
  lastBlockReceived: undefined,
  lastBlockAnnounced: undefined
})

export const hear = (told: Told, message: Wire.Message): void => {
  switch (message._tag) {
    case "sendheaders":
      told.wantsHeaders = true
      return
    case "filterload":
    case "filterclear":
      // Who asked for no announcements in its version message wants them from here on [37].
      told.relay = true
      return
    case "block":
      told.lastBlockReceived = Wire.blockHash(message.block.header)
      return
    case "cmpctblock":
      told.lastBlockAnnounced = Wire.blockHash(message.header)
      return
    case "inv":
      // Blocks are announced alone, or 500 at a time in answer to getblocks.
      for (let index = message.items.length - 1; index >= Math.max(0, message.items.length - 500); index--) {
        const { hash, type } = message.items.at(index)!
        if (type !== Wire.InventoryType.block) continue
        told.lastBlockAnnounced = hash.slice()
        break
      }
      return
    case "headers": {
      const last = message.headers.at(-1)
      if (last !== undefined) told.lastBlockAnnounced = Wire.blockHash(last)
      return
    }
    case "feefilter":
      if (message.feeRate >= 0 && message.feeRate <= maximumMoney) told.feeFilter = message.feeRate
      return
  }
}
