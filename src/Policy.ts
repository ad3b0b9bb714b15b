/**
 * Policies: how a peer reacts where Bitcoin Core and btcd react to bad behaviour differently. `core` is the default. For
 * a policy of your own, copy one of them and change fields.
 */
/**
 * How a peer reacts to bad behaviour of the remote.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policy {
  /** A wrong checksum: drop that message, or disconnect. */
  readonly badChecksum: "drop" | "disconnect"
  /** A payload that does not parse: drop that message, or disconnect. */
  readonly malformed: "drop" | "disconnect"
  /** Bytes left over after a payload: tolerate them, or treat the message as malformed. */
  readonly trailingBytes: "tolerate" | "malformed"
  /** A first message that is not `version`: ignore it, or fail the handshake. */
  readonly notVersionFirst: "ignore" | "disconnect"
  /** A second `version` or `verack`: ignore it, or disconnect. */
  readonly duplicate: "ignore" | "disconnect"
  /**
   * Whether a `reject` message (BIP61) is sent before such a disconnect. Only peers of protocol version 70002 and above
   * understand it.
   */
  readonly sendReject: boolean
}

/**
 * The behaviour of Bitcoin Core: it ignores a message that is out of place. The default.
 *
 * @category constants
 * @since 0.1.0
 */
export const core: Policy = {
  badChecksum: "drop",
  malformed: "drop",
  trailingBytes: "tolerate",
  notVersionFirst: "ignore",
  duplicate: "ignore",
  sendReject: false
}

/**
 * The behaviour of btcd: a message that is out of place ends the connection, with a `reject` if the peer understands it.
 *
 * @category constants
 * @since 0.1.0
 */
export const btcd: Policy = {
  badChecksum: "disconnect",
  malformed: "disconnect",
  trailingBytes: "malformed",
  notVersionFirst: "disconnect",
  duplicate: "disconnect",
  sendReject: true
}

/**
 * The names of the policies of this module, for configurations and command lines.
 *
 * @category constants
 * @since 0.1.0
 */
export const names = ["core", "btcd"] as const
/**
 * The name of a policy of this module.
 *
 * @category models
 * @since 0.1.0
 */
export type Name = (typeof names)[number]

/**
 * The policy of this module with that name.
 *
 * @category getters
 * @since 0.1.0
 */
export const fromName = (name: Name): Policy => ({ core, btcd })[name]
