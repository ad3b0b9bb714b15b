/**
 * What a peer does where Bitcoin Core and btcd answer bad behaviour differently. `core` is the default; a policy of your
 * own is one of these with some fields changed.
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
  /** Whether a `reject` message (BIP61) is sent before such a disconnect, to peers of version 70002 and above. */
  readonly sendReject: boolean
}

/** What Bitcoin Core does: it ignores a message that is out of place. The default. */
export const core: Policy = {
  badChecksum: "drop",
  malformed: "drop",
  trailingBytes: "tolerate",
  notVersionFirst: "ignore",
  duplicate: "ignore",
  sendReject: false
}

/** What btcd does: a message that is out of place ends the connection, with a `reject` if the peer understands it. */
export const btcd: Policy = {
  badChecksum: "disconnect",
  malformed: "disconnect",
  trailingBytes: "malformed",
  notVersionFirst: "disconnect",
  duplicate: "disconnect",
  sendReject: true
}

/** The names of the policies of this module, as configurations and command lines give them. */
export const names = ["core", "btcd"] as const
export type Name = (typeof names)[number]

/** The policy of this module with that name. */
export const fromName = (name: Name): Policy => ({ core, btcd })[name]
