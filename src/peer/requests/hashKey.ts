/** Hashes as strings that a `Map` finds. */
import type * as Wire from "../../Wire.ts"

const keyLength = 16

/** 32 bytes as 16 characters. Written out it takes a third of the time of `String.fromCharCode.apply(null, h)`. */
export const keyOf = (h: Uint8Array): string =>
  String.fromCharCode(
    h[0] | (h[1] << 8),
    h[2] | (h[3] << 8),
    h[4] | (h[5] << 8),
    h[6] | (h[7] << 8),
    h[8] | (h[9] << 8),
    h[10] | (h[11] << 8),
    h[12] | (h[13] << 8),
    h[14] | (h[15] << 8),
    h[16] | (h[17] << 8),
    h[18] | (h[19] << 8),
    h[20] | (h[21] << 8),
    h[22] | (h[23] << 8),
    h[24] | (h[25] << 8),
    h[26] | (h[27] << 8),
    h[28] | (h[29] << 8),
    h[30] | (h[31] << 8)
  )

/** The key of the block, then the indexes. */
export const blockTransactionsKey = ({ blockHash, indexes }: Wire.GetBlockTxn): string => {
  let key = keyOf(blockHash)
  for (const index of indexes) key += String.fromCharCode(index)
  return key
}

/** The hash of the block in a `blockTransactionsKey`. */
export const blockHashOf = (key: string): Uint8Array => {
  const hash = new Uint8Array(keyLength * 2)
  for (let i = 0; i < keyLength; i++) {
    hash[i * 2] = key.charCodeAt(i)
    hash[i * 2 + 1] = key.charCodeAt(i) >> 8
  }
  return hash
}

/** How many indexes a `blockTransactionsKey` has. */
export const indexCount = (key: string): number => key.length - keyLength

/** The keys of the locator, then that of the stop hash. */
export const locatorKey = (message: Wire.GetHeaders | Wire.GetBlocks): string => {
  let key = ""
  for (const hash of message.locator) key += keyOf(hash)
  return key + keyOf(message.stopHash)
}

/** Whether a `locatorKey` has that hash in its locator. */
export const isInLocator = (key: string, hash: string): boolean => {
  for (let at = key.indexOf(hash); at >= 0; at = key.indexOf(hash, at + 1)) {
    if (at % keyLength === 0) return at < key.length - keyLength
  }
  return false
}
