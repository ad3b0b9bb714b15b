/**
 * What a peer does where Bitcoin Core and btcd answer bad behaviour differently. `standard` is the default; `core` and
 * `btcd` do as those two do.
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

/** Core's way, but strict about the order of the handshake, as btcd is. */
export const standard: Policy = {
  badChecksum: "drop",
  malformed: "drop",
  trailingBytes: "tolerate",
  notVersionFirst: "disconnect",
  duplicate: "disconnect",
  sendReject: false
}

/** As Bitcoin Core does: whatever is out of place is ignored. */
export const core: Policy = { ...standard, notVersionFirst: "ignore", duplicate: "ignore" }

/** As btcd does: whatever is out of place ends the connection, with a `reject` where the peer understands it. */
export const btcd: Policy = {
  badChecksum: "disconnect",
  malformed: "disconnect",
  trailingBytes: "malformed",
  notVersionFirst: "disconnect",
  duplicate: "disconnect",
  sendReject: true
}

/** The names of the policies of this module, as configurations and command lines give them. */
export const names = ["standard", "core", "btcd"] as const
export type Name = (typeof names)[number]

/** The policy of this module with that name. */
export const fromName = (name: Name): Policy => ({ standard, core, btcd })[name]
