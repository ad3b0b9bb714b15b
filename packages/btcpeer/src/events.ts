/**
 * The events of `btcpeer --json`, one a line. The command encodes them by these schemas, and a program can decode them by the same.
 *
 * Hashes are 64 hexadecimal digits, reversed as everywhere in Bitcoin; other bytes are hexadecimal in their order. Nonces and other
 * numbers of 64 bits are 16 hexadecimal digits. Amounts are satoshi, except in `RawTransaction`. Text of a peer has one character a byte.
 */
import * as Schema from "effect/Schema"
import { Stats } from "effect-bitcoin-peer/Peer"
import * as WireJson from "effect-bitcoin-peer/WireJson"
import { cleanJson } from "./text.ts"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Hash = Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/))
const Hex = Schema.String.check(Schema.isPattern(/^([0-9a-f]{2})*$/))
const Nonce = Schema.String.check(Schema.isPattern(/^[0-9a-f]{16}$/))
const Seconds = Schema.Finite
const Counts = Schema.Record(Schema.String, Count)

/** In `listen`, which has several peers: the number of the peer, from 1, and its address. */
const source = { peer: Schema.optionalKey(Count), address: Schema.optionalKey(Schema.String) }

/**
 * The time of the message (ISO 8601; in a capture with microseconds), and the place where `decode` found it: bytes from the start, or
 * in hexadecimal of several lines the line, from 1.
 */
const place = {
  time: Schema.optionalKey(Schema.String),
  offset: Schema.optionalKey(Count),
  line: Schema.optionalKey(Count)
}

const Direction = Schema.Literals(["in", "out"])

/** The types of output scripts, as Bitcoin Core names them. */
const scriptTypes = [
  "nonstandard",
  "pubkey",
  "pubkeyhash",
  "scripthash",
  "multisig",
  "nulldata",
  "anchor",
  "witness_v0_keyhash",
  "witness_v0_scripthash",
  "witness_v1_taproot",
  "witness_unknown"
] as const
export type ScriptType = (typeof scriptTypes)[number]

/** A script as Bitcoin Core prints it. */
const script = { asm: Schema.String, hex: Hex }

/**
 * A transaction with the fields of Bitcoin Core's `decoderawtransaction`, all but the descriptor of a script. The values of outputs
 * are bitcoin.
 */
export const RawTransaction = Schema.Struct({
  txid: Hash,
  /** The wtxid. */
  hash: Hash,
  version: Count,
  size: Count,
  vsize: Count,
  weight: Count,
  locktime: Count,
  vin: Schema.Array(
    Schema.Struct({
      /** The script of the input of a coinbase, which has neither `txid`, `vout` nor `scriptSig`. */
      coinbase: Schema.optionalKey(Hex),
      txid: Schema.optionalKey(Hash),
      vout: Schema.optionalKey(Count),
      scriptSig: Schema.optionalKey(Schema.Struct(script)),
      txinwitness: Schema.optionalKey(Schema.Array(Hex)),
      sequence: Count
    })
  ),
  vout: Schema.Array(
    Schema.Struct({
      value: Schema.Finite,
      n: Count,
      scriptPubKey: Schema.Struct({
        ...script,
        address: Schema.optionalKey(Schema.String),
        type: Schema.Literals(scriptTypes)
      })
    })
  )
})
export type RawTransaction = typeof RawTransaction.Type

/** With `--json=full`: the whole message, and a lone transaction as Bitcoin Core prints it. */
const full = {
  content: Schema.optionalKey(WireJson.Message),
  transaction: Schema.optionalKey(RawTransaction)
}

/** The commands of messages that have nothing to tell but their command. */
const emptyCommands = [
  "verack",
  "wtxidrelay",
  "sendaddrv2",
  "sendheaders",
  "getaddr",
  "mempool",
  "filterclear"
] as const
export type EmptyCommand = (typeof emptyCommands)[number]

const message = <const Commands extends ReadonlyArray<string>, const Fields extends Schema.Struct.Fields>(
  commands: Commands,
  fields: Fields
) =>
  Schema.Struct({
    event: Schema.Literal("message"),
    ...source,
    ...place,
    direction: Schema.optionalKey(Direction),
    command: Schema.Literals(commands),
    /** The size on the wire, with header (24 bytes in version 1) or encryption. In a capture or a file without frames, of the payload. */
    bytes: Count,
    ...fields,
    ...full
  })

const addresses = { count: Count, networks: Counts, first: Schema.optionalKey(Schema.String) }
const items = { count: Count, types: Counts, first: Schema.optionalKey(Hash) }
const locator = { count: Count, first: Schema.optionalKey(Hash), stop: Schema.optionalKey(Hash) }

/** A message and a summary of it. `unknown` marks a command without a type in this package. */
export const Message = Schema.Union([
  message(["version"], {
    protocolVersion: Schema.Int,
    services: Schema.Array(Schema.String),
    userAgent: Schema.String,
    startHeight: Schema.Int,
    relay: Schema.Boolean,
    timestamp: Seconds,
    /** The address of the receiver, as the sender sees it. */
    receiver: Schema.String,
    nonce: Nonce
  }),
  message(emptyCommands, {}),
  message(["sendcmpct"], { announce: Schema.Boolean, version: Schema.Finite }),
  message(["feature"], { id: Schema.String, data: Hex }),
  message(["ping"], { nonce: Schema.optionalKey(Nonce) }),
  message(["pong"], { nonce: Nonce }),
  message(["addr", "addrv2"], addresses),
  message(["inv", "getdata", "notfound"], items),
  message(["getheaders", "getblocks"], locator),
  message(["headers"], { count: Count, first: Schema.optionalKey(Hash), last: Schema.optionalKey(Hash) }),
  /** Satoshi per 1,000 virtual bytes. */
  message(["feefilter"], { feeRate: Schema.Finite }),
  message(["tx"], {
    txid: Hash,
    wtxid: Hash,
    version: Schema.Int,
    inputs: Count,
    outputs: Count,
    /** The sum of the outputs. */
    value: Schema.Finite,
    lockTime: Count,
    coinbase: Schema.Boolean
  }),
  message(["block"], {
    hash: Hash,
    previous: Hash,
    version: Schema.Int,
    timestamp: Seconds,
    transactions: Count
  }),
  message(["filterload"], {
    /** Bytes of the filter. */
    size: Count,
    hashFunctions: Count,
    tweak: Count,
    update: Schema.Literals(["none", "all", "p2pubkeyOnly"])
  }),
  message(["filteradd"], { data: Hex }),
  message(["merkleblock"], {
    hash: Hash,
    previous: Hash,
    version: Schema.Int,
    timestamp: Seconds,
    /** Transactions of the whole block. */
    transactions: Count,
    /** How many transactions it proves, and the first of them. Missing if the proof is not valid: `invalid` says why. */
    matches: Schema.optionalKey(Count),
    first: Schema.optionalKey(Hash),
    /** The tag of `MerkleBlock.MerkleBlockReason`. */
    invalid: Schema.optionalKey(Schema.String)
  }),
  message(["cmpctblock"], {
    hash: Hash,
    previous: Hash,
    version: Schema.Int,
    timestamp: Seconds,
    /** Transactions of the whole block, by short id and prefilled. */
    transactions: Count,
    prefilled: Count,
    /** The nonce of the short ids. */
    nonce: Nonce
  }),
  /** `transactions` is their number. */
  message(["getblocktxn", "blocktxn"], { hash: Hash, transactions: Count }),
  message(["reject"], {
    rejected: Schema.String,
    code: Count,
    reason: Schema.String,
    hash: Schema.optionalKey(Hash)
  }),
  message(["getcfilters", "getcfheaders"], { filterType: Count, startHeight: Count, stop: Hash }),
  /** `size` is that of the filter in bytes. */
  message(["cfilter"], { filterType: Count, block: Hash, size: Count }),
  message(["cfheaders"], { filterType: Count, count: Count, previous: Hash, stop: Hash }),
  message(["getcfcheckpt"], { filterType: Count, stop: Hash }),
  message(["cfcheckpt"], { filterType: Count, count: Count, stop: Hash }),
  message(["sendtxrcncl"], { version: Count, salt: Nonce }),
  message(["sendpackages"], { versions: Nonce }),
  /** `first` is a wtxid. */
  message(["ancpkginfo", "getpkgtxns", "pkgtxns"], { count: Count, first: Schema.optionalKey(Hash) }),
  message(["alert"], { id: Schema.Int, expiration: Seconds, statusBar: Schema.String, comment: Schema.String }),
  Schema.Struct({
    event: Schema.Literal("message"),
    ...source,
    ...place,
    direction: Schema.optionalKey(Direction),
    command: Schema.String,
    bytes: Count,
    unknown: Schema.Literal(true),
    ...full
  })
])
export type Message = typeof Message.Type

/** The fields of a message event that are not the summary of the message. */
export type MessageContext =
  | "event"
  | "peer"
  | "address"
  | "time"
  | "offset"
  | "line"
  | "direction"
  | "bytes"
  | keyof typeof full

type Without<Event, Keys extends PropertyKey> = Event extends unknown
  ? { readonly [K in keyof Event as Exclude<K, Keys>]: Event[K] }
  : never

/** The summary of a message, without its time and place: the result of `summarise`. */
export type Summary = Without<Message, MessageContext>

/** Bytes that are not a message: of a peer, which stays connected unless the policy says otherwise, or in a file. */
export const Dropped = Schema.Struct({
  event: Schema.Literal("dropped"),
  ...source,
  ...place,
  /** The command, if it could be read; else empty. */
  command: Schema.String,
  bytes: Count,
  /** The tag of `Wire.WireReason`. In a file also `Garbage` between records, and `Cut` for a record that is cut off. */
  reason: Schema.String,
  message: Schema.String
})
export type Dropped = typeof Dropped.Type

/** `listen` accepts connections from now on. */
export const Listening = Schema.Struct({
  event: Schema.Literal("listening"),
  address: Schema.String,
  network: Schema.String
})

/** A peer is connected: its version message, and the result of the handshake. */
export const Handshake = Schema.Struct({
  event: Schema.Literal("handshake"),
  peer: source.peer,
  address: Schema.String,
  direction: Schema.Literals(["inbound", "outbound"]),
  network: Schema.String,
  transport: Schema.Literals(["v1", "v2"]),
  /** The session id of "v2" (BIP324), as in `getpeerinfo` of Bitcoin Core. If both ends have the same, no third party decrypts. */
  sessionId: Schema.optionalKey(Hex),
  protocolVersion: Schema.Int,
  services: Schema.Array(Schema.String),
  userAgent: Schema.String,
  startHeight: Schema.Int,
  relay: Schema.Boolean,
  /** Seconds, the peer's clock minus ours. */
  timeOffset: Seconds,
  features: Schema.Struct({
    addrv2: Schema.Boolean,
    wtxidRelay: Schema.Boolean,
    /** Announced by `feature` (BIP434). */
    announced: Schema.Array(Schema.Struct({ id: Schema.String, data: Hex }))
  }),
  /** The time of the handshake. */
  milliseconds: Schema.Finite
})
export type Handshake = typeof Handshake.Type

/** In `listen`: the handshake of a connection failed. `reason` is the tag of `Handshake.HandshakeReason`. */
export const Refused = Schema.Struct({
  event: Schema.Literal("refused"),
  ...source,
  reason: Schema.String,
  message: Schema.String
})

/**
 * In `connect`: no connection, or no handshake. `reason` is the `Connection.DialProblem`, or the tag of `Handshake.HandshakeReason`. In
 * `listen`: the address cannot be listened on, and `reason` is the `Connection.ListenProblem`.
 */
export const Failed = Schema.Struct({
  event: Schema.Literal("failed"),
  address: Schema.String,
  reason: Schema.String,
  message: Schema.String
})

/** A ping was answered after this round trip. */
export const Pong = Schema.Struct({ event: Schema.Literal("pong"), ...source, milliseconds: Schema.Finite })

/** A peer ended. `reason` is the tag of `Peer.EndReason`, `message` is its description. */
export const Disconnected = Schema.Struct({
  event: Schema.Literal("disconnected"),
  ...source,
  reason: Schema.String,
  message: Schema.String,
  stats: Stats
})

export const Event = Schema.Union([Message, Dropped, Listening, Handshake, Refused, Failed, Pong, Disconnected])
export type Event = typeof Event.Type

/** The event in a line of `--json`. */
export const FromLine = Schema.fromJsonString(Event)

const encodeEvent = Schema.encodeSync(Event)

/** An event as a line, without the end of line. A terminal cannot mistake any of its characters for a command. */
export const toLine = (event: Event): string => cleanJson(JSON.stringify(encodeEvent(event)))
