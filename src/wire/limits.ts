/** The limits that hold for every message. */

/**
 * The payload of a message, and so a transaction or a block, is at most 4,000,000 bytes.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxPayloadLength = 4_000_000

/** A count or length written as CompactSize is at most 0x02000000. */
export const maxCompactSize = 0x02000000
