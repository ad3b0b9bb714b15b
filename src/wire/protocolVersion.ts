/** The protocol versions from which messages have a meaning. */

/**
 * The versions of the protocol that matter today. Two peers use the smaller of their versions, and send a message only from the
 * version on that has it. `current` is the one that this package announces.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const common = Math.min(Wire.ProtocolVersion.current, 70_015)
 * console.log(common >= Wire.ProtocolVersion.wtxidRelay) // false
 * ```
 *
 * @category constants
 * @since 0.1.0
 */
export const ProtocolVersion = {
  /** The first version of `version` messages, and the lowest that btcd accepts. */
  initial: 209,
  /** The lowest version that Bitcoin Core accepts: it has `getheaders`. */
  headers: 31_800,
  /** `ping` has a nonce, and `pong` answers it (BIP31). */
  pong: 60_001,
  /** `mempool` (BIP35). */
  mempool: 60_002,
  /** Bloom filters, and the field `relay` of `version` (BIP37). */
  bloomFilters: 70_001,
  /** `reject` (BIP61). */
  reject: 70_002,
  /** From here on, a bloom filter message to a node that does not offer `Service.bloom` ends the connection (BIP111). */
  bloomService: 70_011,
  /** `sendheaders` (BIP130). */
  sendHeaders: 70_012,
  /** `feefilter` (BIP133). */
  feeFilter: 70_013,
  /** Compact blocks (BIP152). */
  compactBlocks: 70_014,
  /** `wtxidrelay` (BIP339). */
  wtxidRelay: 70_016,
  /** `sendaddrv2` (BIP155): no version is required for it, and by custom nodes send it from this one on. */
  sendAddrV2: 70_016,
  /** `feature` (BIP434). */
  feature: 70_017,
  /** The version that this package announces. */
  current: 70_017
} as const
