/** The options of a handshake, their defaults, and the check that finds an invalid option before anything is sent. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Network from "../Network.ts"
import type * as Policy from "../Policy.ts"
import { isRecord, notA } from "../primitives/types.ts"
import { names as transportNames, type Transport } from "../Transport.ts"
import { WireError } from "../WireError.ts"
import type * as Wire from "../Wire.ts"

/**
 * The options of a handshake.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** "outbound" (the default) sends its version first, "inbound" waits for that of the peer. */
  readonly direction?: "inbound" | "outbound" | undefined
  /**
   * Plain ("v1"), encrypted ("v2") or encrypted if the peer supports it ("auto") (BIP324). Inbound the default is
   * "auto", and P2P_V2 is announced unless it is "v1". Outbound the default is "v1", because a connection cannot change
   * from one transport to the other: with "auto", a peer that does not support version 2 fails the handshake with
   * `V2NotSpoken`, and the next connection to the same address uses version 1. `Peer.dial` makes that next connection.
   */
  readonly transport?: Transport | undefined
  /**
   * The services of the node, if they are known before the connection: from an `addr` or `addrv2` message, or from the last time. Only
   * an outbound key exchange uses them. Without P2P_V2 in them "auto" speaks version 1 at once. With P2P_V2 the garbage has up to 4,095
   * bytes, and up to 175 if the services are unknown (the default): longer garbage makes some nodes of version 1 ban our address.
   */
  readonly remoteServices?: bigint | undefined
  /** The network of the peer; mainnet by default. */
  readonly network?: Network.Network | undefined
  /** The protocol version that we announce; 70017 by default. The lower one of both sides is used. */
  readonly protocolVersion?: number | undefined
  /** The lowest protocol version of a peer that is accepted; 31800 by default, as in Bitcoin Core (btcd: 209). */
  readonly minimumProtocolVersion?: number | undefined
  /** The services that we offer: bits of `Wire.Service`. None by default. */
  readonly services?: bigint | undefined
  /**
   * Masks of service bits. The peer must offer at least one service of each mask. By default an outbound peer must offer
   * NETWORK or NETWORK_LIMITED, and WITNESS; nothing is required of an inbound peer.
   */
  readonly requiredServices?: ReadonlyArray<bigint> | undefined
  /** Our user agent, at most 256 bytes of printable ASCII (BIP14). */
  readonly userAgent?: string | undefined
  /**
   * Comments in our user agent, as in `/name:version(comment; comment)/` (BIP14). A comment must not contain `/`, `:`,
   * `(` or `)`.
   */
  readonly userAgentComments?: ReadonlyArray<string> | undefined
  /** The height of our best block. It runs once in each handshake; 0 by default. */
  readonly startHeight?: Effect.Effect<number> | undefined
  /** Whether the peer should announce transactions to us (BIP37); true by default. */
  readonly relay?: boolean | undefined
  /** The features that we announce with `feature` (BIP434): an id of 4 to 80 bytes, and data of at most 512 bytes. */
  readonly features?: ReadonlyArray<{ readonly id: string; readonly data: Uint8Array }> | undefined
  /** The reaction to bad behaviour where Core and btcd differ; `Policy.core` by default. */
  readonly policy?: Policy.Policy | undefined
  /** The time limit of the handshake with its key exchange; 60 seconds by default. */
  readonly handshakeTimeout?: Duration.Input | undefined
  /** Whether a connection to ourselves is accepted; for tests. */
  readonly allowSelfConnection?: boolean | undefined
  /**
   * Called with the version message of the peer before it is answered. If the Effect fails, the peer is refused with the
   * text as the reason.
   */
  readonly onVersion?: ((version: Wire.Version) => Effect.Effect<void, string>) | undefined
}

/**
 * The user agent that is sent by default (BIP14).
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultUserAgent = "/effect-bitcoin-peer:0.1.0/"
/**
 * The protocol version that is announced by default.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultProtocolVersion = 70_017
/**
 * The lowest protocol version of a peer that is accepted by default.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultMinimumProtocolVersion = 31_800

/** The error of an invalid option. */
export const bad = (field: string, problem: string): WireError =>
  new WireError({ command: "", reason: { _tag: "BadValue", field, problem } })

/** What is wrong with the value of an option, or undefined. */
type Problem = (value: unknown) => string | undefined

const typed =
  (type: "bigint" | "boolean" | "string"): Problem =>
  (value) =>
    typeof value === type ? undefined : notA(value, type)

export const aFunction: Problem = (value) => (typeof value === "function" ? undefined : notA(value, "a function"))
export const aBoolean: Problem = typed("boolean")

export const anInteger =
  (minimum: number, maximum = Number.MAX_SAFE_INTEGER): Problem =>
  (value) =>
    typeof value === "number" && Number.isInteger(value) && value >= minimum && value <= maximum
      ? undefined
      : `must be a whole number ${
          maximum === Number.MAX_SAFE_INTEGER
            ? `of at least ${minimum.toLocaleString("en")}`
            : `from ${minimum.toLocaleString("en")} to ${maximum.toLocaleString("en")}`
        }`

export const aDuration: Problem = (value) => {
  const duration = Duration.fromInput(value as Duration.Input)
  return duration._tag === "None" || !(Duration.toMillis(duration.value) >= 1)
    ? "must be a duration of at least a millisecond"
    : undefined
}

const oneOf = (...choices: ReadonlyArray<string>): Problem => {
  const expected = choices.map((choice) => JSON.stringify(choice)).join(" or ")
  return (value) => {
    if (typeof value !== "string") return notA(value, expected)
    return choices.includes(value) ? undefined : `is ${JSON.stringify(value.slice(0, 40))} instead of ${expected}`
  }
}

/** Names the first wrong element. */
const listOf =
  (element: Problem): Problem =>
  (value) => {
    if (!Array.isArray(value)) return notA(value, "an array")
    for (const [index, one] of value.entries()) {
      const problem = element(one)
      if (problem !== undefined) return `has an element ${index} that ${problem}`
    }
    return undefined
  }

const bytesOf =
  (size: number): Problem =>
  (value) =>
    value instanceof Uint8Array && value.length === size ? undefined : `must be a Uint8Array of ${size} bytes`

const text =
  (holds: (value: string) => boolean, problem: string): Problem =>
  (value) =>
    typeof value !== "string" ? notA(value, "string") : holds(value) ? undefined : problem

const isPrintable = (text: string): boolean => /^[\x20-\x7e]*$/.test(text)

type Problems = Readonly<Record<string, Problem>>

/** The error of the first field that is there and wrong, or undefined. A field that is undefined is one that is absent. */
export const badField = (fields: object, problems: Problems): WireError | undefined => {
  for (const name in fields) {
    const value: unknown = fields[name as keyof typeof fields]
    const problem = value !== undefined && Object.hasOwn(problems, name) ? problems[name]!(value) : undefined
    if (problem !== undefined) return bad(name, problem)
  }
  return undefined
}

/** The error of the first of these fields that is missing or wrong, or undefined. */
export const badRequired = (fields: object, problems: Problems, prefix: string): WireError | undefined => {
  for (const [name, problemOf] of Object.entries(problems)) {
    const problem = problemOf(fields[name as keyof typeof fields])
    if (problem !== undefined) return bad(prefix + name, problem)
  }
  return undefined
}

/** Networks and policies are constants: each is checked once, not for each peer. */
const checked = new WeakSet<object>()

/** The error of an object whose fields are all required, or undefined. `example` says in an error how to make one. */
const badObject = (name: string, value: unknown, example: string, problems: Problems): WireError | undefined => {
  if (value === undefined) return undefined
  if (!isRecord(value)) return bad(name, notA(value, example))
  if (checked.has(value)) return undefined
  const error = badRequired(value, problems, `${name}.`)
  if (error === undefined) checked.add(value)
  return error
}

const networkProblems: Problems = {
  magic: bytesOf(4),
  genesisHash: bytesOf(32),
  name: typed("string"),
  port: anInteger(1, 65_535)
}

const dropOrDisconnect = oneOf("drop", "disconnect")
const ignoreOrDisconnect = oneOf("ignore", "disconnect")
const policyProblems: Problems = {
  badChecksum: dropOrDisconnect,
  malformed: dropOrDisconnect,
  trailingBytes: oneOf("tolerate", "malformed"),
  notVersionFirst: ignoreOrDisconnect,
  duplicate: ignoreOrDisconnect,
  sendReject: aBoolean
}

const services: Problem = (value) =>
  typeof value !== "bigint"
    ? notA(value, "bigint")
    : value === BigInt.asUintN(64, value)
      ? undefined
      : "is not an unsigned 64-bit integer"

const optionProblems: Problems = {
  direction: oneOf("inbound", "outbound"),
  transport: oneOf(...transportNames),
  remoteServices: services,
  protocolVersion: anInteger(209, 0x7fffffff),
  minimumProtocolVersion: anInteger(0, 0x7fffffff),
  services,
  requiredServices: listOf(typed("bigint")),
  userAgent: text(isPrintable, "must be printable ASCII"),
  userAgentComments: listOf(
    text((comment) => isPrintable(comment) && /^[^/:()]+$/.test(comment), "is not printable ASCII without / : ( and )")
  ),
  startHeight: (value) => (Effect.isEffect(value) ? undefined : notA(value, "an Effect")),
  relay: aBoolean,
  features: listOf((value) => (isRecord(value) ? undefined : notA(value, "a feature with id and data"))),
  handshakeTimeout: aDuration,
  allowSelfConnection: aBoolean,
  onVersion: aFunction
}

/** The error of the first invalid option, or undefined. Callers without TypeScript pass anything. */
export const badOption = (options: Options): WireError | undefined =>
  isRecord(options)
    ? (badObject("network", options.network, "a Network such as Network.regtest", networkProblems) ??
      badObject("policy", options.policy, "a Policy such as Policy.core", policyProblems) ??
      badField(options, optionProblems))
    : bad("options", notA(options, "an object"))
