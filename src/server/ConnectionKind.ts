/** The kinds of connections of a server, with the names of `connection_type` in Bitcoin Core, and the rules of each kind. */

/**
 * A kind of connection.
 *
 * - `outbound-full-relay`: found in the address book; relays blocks, transactions and addresses.
 * - `block-relay-only`: found in the address book; relays blocks only, so that an observer of transactions does not find it.
 * - `feeler`: tests whether an address of the book is reachable, and ends after the handshake.
 * - `manual`: an added node, or a node that the caller dials once.
 * - `addr-fetch`: asks a seed for addresses, and ends with the answer.
 * - `private-broadcast`: sends one transaction and ends.
 * - `inbound`: the remote connected to us.
 *
 * @category models
 * @since 0.1.0
 */
export type ConnectionKind =
  | "outbound-full-relay"
  | "block-relay-only"
  | "feeler"
  | "manual"
  | "addr-fetch"
  | "private-broadcast"
  | "inbound"

/**
 * The rules for connections of a kind.
 *
 * @category models
 * @since 0.1.0
 */
export interface KindRules {
  /** Whether transactions are relayed. Our version message says so (BIP37). */
  readonly relaysTransactions: boolean
  /** Whether addresses are relayed to the remote, and taken from it. */
  readonly relaysAddresses: boolean
  /** Whether `getaddr` is sent after the handshake. */
  readonly sendsGetaddr: boolean
  /** Whether it is counted in its network group: the planner then dials no other address of the group. */
  readonly holdsGroup: boolean
  /** Whether the remote must offer the desirable services. */
  readonly needsServices: boolean
  /** Whether a misbehaving remote is discouraged, and not only disconnected. */
  readonly isDiscouraged: boolean
  /** Whether the planner of the server dials it, so that it takes one of the automatic outbound slots. */
  readonly isAutomatic: boolean
}

/**
 * The rules of every kind, as in Bitcoin Core.
 *
 * @category constants
 * @since 0.1.0
 */
export const kinds: { readonly [Kind in ConnectionKind]: KindRules } = {
  "outbound-full-relay": {
    relaysTransactions: true,
    relaysAddresses: true,
    sendsGetaddr: true,
    holdsGroup: true,
    needsServices: true,
    isDiscouraged: true,
    isAutomatic: true
  },
  "block-relay-only": {
    relaysTransactions: false,
    relaysAddresses: false,
    sendsGetaddr: false,
    holdsGroup: true,
    needsServices: true,
    isDiscouraged: true,
    isAutomatic: true
  },
  feeler: {
    relaysTransactions: false,
    relaysAddresses: false,
    sendsGetaddr: false,
    holdsGroup: false,
    needsServices: false,
    isDiscouraged: true,
    isAutomatic: true
  },
  manual: {
    relaysTransactions: true,
    relaysAddresses: true,
    sendsGetaddr: true,
    holdsGroup: true,
    needsServices: false,
    isDiscouraged: false,
    isAutomatic: false
  },
  "addr-fetch": {
    relaysTransactions: true,
    relaysAddresses: true,
    sendsGetaddr: true,
    holdsGroup: false,
    needsServices: true,
    isDiscouraged: true,
    isAutomatic: true
  },
  "private-broadcast": {
    relaysTransactions: false,
    relaysAddresses: false,
    sendsGetaddr: false,
    holdsGroup: false,
    needsServices: true,
    isDiscouraged: false,
    isAutomatic: false
  },
  inbound: {
    relaysTransactions: true,
    relaysAddresses: true,
    sendsGetaddr: false,
    holdsGroup: false,
    needsServices: false,
    isDiscouraged: true,
    isAutomatic: false
  }
}
