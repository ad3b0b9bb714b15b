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
