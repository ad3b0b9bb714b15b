/**
 * Creates an onion service through Tor's control port, so that peers reach a listener on this machine at an .onion address. The service
 * lives as long as the connection to the control port; when that is lost, both are made again.
 *
 * `NodeTorControl` has the layer over TCP. Here the caller makes the connection.
 */
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { decode as decodeHex } from "effect/encoding/Hex"
import { encode as hex } from "effect/encoding/Hex"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Address from "../Address.ts"
import { type Connection, type ConnectionError, type Endpoint, formatEndpoint } from "../Connection.ts"
import * as Network from "../Network.ts"
import {
  cookieProof,
  cookieSize,
  equalInConstantTime,
  nonceSize,
  parseMapping,
  quoted,
  type Reply,
  ReplyParser,
  socksListeners,
  splitLine
} from "./internal/torReplies.ts"

/**
 * Why there is no onion service.
 *
 * - `Disconnected`: the control port cannot be reached, or closed the connection.
 * - `BadReply`: it sent bytes that are not a reply, or a reply that is too long.
 * - `NoReply`: it did not answer within a minute.
 * - `Refused`: it refused a command, above all a wrong password.
 * - `NoMethod`: it offers no way to log in that can be used here: without a password NULL or SAFECOOKIE, with one HASHEDPASSWORD.
 * - `BadCookie`: the cookie file cannot be read, or does not have 32 bytes. Tor's group must be able to read it.
 * - `NotAuthentic`: the other side does not know the cookie, so it is not Tor. No secret was sent to it.
 * - `KeyUnavailable`: the saved key cannot be read. No new key is made, because the address would change.
 * - `BadKey`: the saved key is not a key of Tor.
 *
 * @category errors
 * @since 0.1.0
 */
export type TorControlReason =
  | { readonly _tag: "Disconnected"; readonly error: ConnectionError }
  | { readonly _tag: "BadReply"; readonly problem: string }
  | { readonly _tag: "NoReply"; readonly command: string }
  | { readonly _tag: "Refused"; readonly command: string; readonly code: number; readonly text: string }
  | { readonly _tag: "NoMethod"; readonly offered: ReadonlyArray<string> }
  | { readonly _tag: "BadCookie"; readonly path: string; readonly cause: unknown }
  | { readonly _tag: "NotAuthentic" }
  | { readonly _tag: "KeyUnavailable"; readonly cause: unknown }
  | { readonly _tag: "BadKey" }

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const describe = (reason: TorControlReason): string => {
  switch (reason._tag) {
    case "Disconnected":
      return reason.error.message
    case "BadReply":
      return reason.problem
    case "NoReply":
      return `no reply to ${reason.command}`
    case "Refused":
      return `${reason.command} was refused: ${reason.code} ${reason.text}`
    case "NoMethod":
      return `no way to log in: it offers ${reason.offered.join(", ") || "none"}`
    case "BadCookie":
      return `the cookie ${reason.path} is unusable: ${messageOf(reason.cause)}`
    case "NotAuthentic":
      return "the other side does not know Tor's cookie"
    case "KeyUnavailable":
      return `the key of the service cannot be read: ${messageOf(reason.cause)}`
    case "BadKey":
      return "the kept key is not one of an onion service of version 3"
  }
}

/**
 * There is no onion service now. It is tried again, at the latest after 10 minutes.
 *
 * @category errors
 * @since 0.1.0
 */
export class TorControlError extends Data.TaggedError("TorControlError")<{ readonly reason: TorControlReason }> {
  override get message(): string {
    return `Tor's control port: ${describe(this.reason)}`
  }
}

/**
 * An onion service that is up.
 *
 * @category models
 * @since 0.1.0
 */
export interface OnionService {
  /** The address at which peers reach it, with the default port of the network. */
  readonly address: Address.Address
  /** Tor's SOCKS proxy, for connections to onion addresses. */
  readonly socks: Endpoint
  /** Whether Tor asks visitors for proof of work while it is under attack. Tor before 0.4.9 cannot. */
  readonly powDefenses: boolean
}

/**
 * The state of the service.
 *
 * @category models
 * @since 0.1.0
 */
export type Status =
  /** The control port is being asked. */
  | { readonly _tag: "Starting" }
  | ({ readonly _tag: "Up" } & OnionService)
  /** It is tried again after `retryAfter`. */
  | { readonly _tag: "Down"; readonly error: TorControlError; readonly retryAfter: Duration.Duration }

/**
 * The store of the private key of the service. The address is derived from the key, so it stays the same with a saved key.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyStore {
  /** The bytes of the last save. A failure is tried again later; no new key is made then. */
  readonly load: Effect.Effect<Option.Option<Uint8Array>, unknown>
  /** Keeps the bytes, which are secret. A failure is logged: the address changes at the next start. */
  readonly save: (bytes: Uint8Array) => Effect.Effect<void, unknown>
}

/**
 * The options of the onion service.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Connects to the control port, in a scope that ends with the connection. */
  readonly connect: Effect.Effect<Connection, ConnectionError, Scope.Scope>
  /** Where Tor connects to for each visitor: a listener of ours. 127.0.0.1 with the port of the network + 1 by default. */
  readonly target?: Endpoint | undefined
  /** Peers find the service at the default port of this network: an odd port would mark the node. Mainnet by default. */
  readonly network?: Network.Network | undefined
  /** By default the key is kept in memory, and each start has an address of its own. */
  readonly key?: KeyStore | undefined
  /** The password of `HashedControlPassword`. It is the only way to log in that is used then. */
  readonly password?: string | undefined
  /** Reads the cookie file at this path, of which at most 33 bytes are wanted. Without it SAFECOOKIE is not used. */
  readonly readCookie?: ((path: string) => Effect.Effect<Uint8Array, unknown>) | undefined
  /**
   * Runs each time the service comes up, before the status changes. Its scope ends when the service is lost: an address that it adds to
   * `LocalAddresses` is removed then.
   */
  readonly onUp?: ((service: OnionService) => Effect.Effect<unknown, never, Scope.Scope>) | undefined
}

/**
 * An onion service that is kept up.
 *
 * @category models
 * @since 0.1.0
 */
export interface TorControl {
  readonly status: Effect.Effect<Status>
  /** The status now, then each new one. */
  readonly changes: Stream.Stream<Status>
}

/**
 * The key of the service `TorControl` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const TorControl: Context.Service<TorControl, TorControl> = Context.Service<TorControl>(
  "effect-bitcoin-peer/server/TorControl"
)

const defaultSocks: Endpoint = { host: "127.0.0.1", port: 9050 }
const firstDelay = 1_000
const longestDelay = 600_000
const delayGrowth = 1.5
/** Milliseconds. */
const replyTimeout = 60_000

const codeOk = 250
const codeSyntaxError = 512

const failed = (reason: TorControlReason): Effect.Effect<never, TorControlError> =>
  Effect.fail(new TorControlError({ reason }))

/** A part of a reply for a message: a line at most, and nothing that a terminal would interpret. */
const printable = (text: string): string => text.slice(0, 100).replace(/[^\x20-\x7e]/g, "?")

/** The commands of one connection, one after the other. */
const makeControl = (connection: Connection) => {
  const parser = new ReplyParser()
  let replies: ReadonlyArray<Reply> = []
  const read = Effect.mapError(
    connection.pull,
    (error) => new TorControlError({ reason: { _tag: "Disconnected", error } })
  ).pipe(
    Effect.flatMap((chunks) => {
      const arrived = chunks.flatMap((chunk) => parser.push(chunk))
      replies = [...replies, ...arrived]
      return parser.failure === undefined ? Effect.void : failed({ _tag: "BadReply", problem: parser.failure })
    })
  )
  const next: Effect.Effect<Reply, TorControlError> = Effect.suspend(() => {
    const [reply, ...rest] = replies
    if (reply === undefined) return Effect.andThen(read, next)
    replies = rest
    return Effect.succeed(reply)
  })
  /** Sends a command and waits for its reply. `shown` names it in errors. */
  const ask = (command: string, shown: string): Effect.Effect<Reply, TorControlError> =>
    Effect.suspend(() => {
      // Bytes that arrived earlier do not answer this command.
      replies = []
      connection.write(new TextEncoder().encode(`${command}\r\n`))
      return Effect.timeoutOrElse(next, {
        duration: replyTimeout,
        orElse: () => failed({ _tag: "NoReply", command: shown })
      })
    })
  const order = (command: string, shown: string): Effect.Effect<Reply, TorControlError> =>
    Effect.flatMap(ask(command, shown), (reply) =>
      reply.code === codeOk ? Effect.succeed(reply) : refused(shown, reply)
    )
  /** Reads and forgets until the connection ends. */
  const untilEnd: Effect.Effect<never, TorControlError> = Effect.forever(
    Effect.andThen(
      read,
      Effect.sync(() => {
        replies = []
      })
    )
  )
  return { ask, order, untilEnd }
}
type Control = ReturnType<typeof makeControl>

const refused = (command: string, { code, lines }: Reply) =>
  failed({ _tag: "Refused", command, code, text: printable(lines.at(-1) ?? "") })

const bytesOfHex = (text: string | undefined): Uint8Array | undefined =>
  text === undefined ? undefined : Option.getOrUndefined(Result.getSuccess(decodeHex(text)))

/** Logs in with SAFECOOKIE: both sides prove that they know the cookie, and the other side does so first. */
const logInWithCookie = Effect.fnUntraced(function* (
  control: Control,
  path: string,
  readCookie: NonNullable<Options["readCookie"]>
): Effect.fn.Return<void, TorControlError, SecureRandom.SecureRandom> {
  const badCookie = (cause: unknown) => new TorControlError({ reason: { _tag: "BadCookie", path, cause } })
  const cookie = yield* Effect.mapError(readCookie(path), badCookie)
  if (cookie.length !== cookieSize) return yield* badCookie(new Error(`it does not have ${cookieSize} bytes`))
  const random = yield* SecureRandom.SecureRandom
  const clientNonce = yield* random.randomBytes(nonceSize)
  const { lines } = yield* control.order(`AUTHCHALLENGE SAFECOOKIE ${hex(clientNonce)}`, "AUTHCHALLENGE")
  const { rest, type } = splitLine(lines[0]!)
  const values = parseMapping(rest)
  const serverProof = bytesOfHex(values.get("SERVERHASH"))
  const serverNonce = bytesOfHex(values.get("SERVERNONCE"))
  if (type !== "AUTHCHALLENGE" || serverProof === undefined || serverNonce?.length !== nonceSize) {
    return yield* failed({
      _tag: "BadReply",
      problem: "the answer to AUTHCHALLENGE has no proof, or no nonce of 32 bytes"
    })
  }
  if (!equalInConstantTime(serverProof, cookieProof("server", cookie, clientNonce, serverNonce))) {
    return yield* failed({ _tag: "NotAuthentic" })
  }
  const proof = cookieProof("controller", cookie, clientNonce, serverNonce)
  yield* control.order(`AUTHENTICATE ${hex(proof)}`, "AUTHENTICATE")
})

const utf8 = (latin1: string): string =>
  new TextDecoder().decode(Uint8Array.from(latin1, (character) => character.charCodeAt(0)))

const logIn = Effect.fnUntraced(function* (
  control: Control,
  { password, readCookie }: Options
): Effect.fn.Return<void, TorControlError, SecureRandom.SecureRandom> {
  const { lines } = yield* control.order("PROTOCOLINFO 1", "PROTOCOLINFO")
  let methods: ReadonlyArray<string> = []
  let cookieFile: string | undefined
  for (const line of lines) {
    const { rest, type } = splitLine(line)
    if (type !== "AUTH") continue
    const values = parseMapping(rest)
    methods = values.get("METHODS")?.split(",") ?? methods
    cookieFile = values.get("COOKIEFILE") ?? cookieFile
  }
  if (password !== undefined) {
    if (methods.includes("HASHEDPASSWORD")) {
      yield* control.order(`AUTHENTICATE ${quoted(password)}`, "AUTHENTICATE")
      return
    }
  } else if (methods.includes("NULL")) {
    yield* control.order("AUTHENTICATE", "AUTHENTICATE")
    return
  } else if (methods.includes("SAFECOOKIE") && cookieFile !== undefined && readCookie !== undefined) {
    return yield* logInWithCookie(control, utf8(cookieFile), readCookie)
  }
  return yield* failed({ _tag: "NoMethod", offered: methods.map(printable) })
})

/** A host that is an address, and a port. */
const endpointOf = (listener: string): Endpoint | undefined => {
  const address = Address.parse(listener, defaultSocks.port)
  return Result.isFailure(address)
    ? undefined
    : { host: Address.formatHost(address.success), port: address.success.port }
}

/** Tor's SOCKS proxy: the first on 127.0.0.1, else the last one, else the default. */
const findSocks = Effect.fnUntraced(function* (control: Control): Effect.fn.Return<Endpoint, TorControlError> {
  const reply = yield* control.ask("GETINFO net/listeners/socks", "GETINFO")
  if (reply.code !== codeOk) return defaultSocks
  const endpoints = socksListeners(reply)
    .map(endpointOf)
    .filter((endpoint) => endpoint !== undefined)
  return endpoints.find(({ host }) => host === "127.0.0.1") ?? endpoints.at(-1) ?? defaultSocks
})

const newKey = "NEW:ED25519-V3"
const keyPattern = /^ED25519-V3:[A-Za-z0-9+/]{1,200}={0,2}$/

/** Makes the service with a key. Returns its key, and its address. */
const addOnion = Effect.fnUntraced(function* (
  control: Control,
  key: string,
  port: number,
  target: Endpoint
): Effect.fn.Return<Omit<OnionService, "socks"> & { readonly key: string | undefined }, TorControlError> {
  const command = (flags: string) => `ADD_ONION ${key}${flags} Port=${port},${formatEndpoint(target)}`
  let powDefenses = true
  let reply = yield* control.ask(command(" PoWDefensesEnabled=1"), "ADD_ONION")
  if (reply.code === codeSyntaxError) {
    powDefenses = false
    reply = yield* control.ask(command(""), "ADD_ONION")
  }
  if (reply.code !== codeOk) return yield* refused("ADD_ONION", reply)
  const valueOf = (name: string) => reply.lines.map((line) => parseMapping(line).get(name)).find(Boolean)
  const host = Address.parseHost(`${valueOf("ServiceID")}.onion`)
  if (Result.isFailure(host)) {
    return yield* failed({ _tag: "BadReply", problem: `ADD_ONION gave no address: ${printable(host.failure.message)}` })
  }
  return { address: { ...host.success, port }, powDefenses, key: valueOf("PrivateKey") }
})

/**
 * Keeps an onion service up as long as its scope lives. Returns at once; the status says whether the service is up. After a failure it
 * waits for 1 s, then 1.5 times as long each time, and 10 minutes at most.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<TorControl, never, SecureRandom.SecureRandom | Scope.Scope> {
  const { connect, key: store, network = Network.mainnet, onUp } = options
  const target = options.target ?? { host: "127.0.0.1", port: network.port + 1 }
  const status = yield* SubscriptionRef.make<Status>({ _tag: "Starting" })
  let key: string | undefined
  let delay = firstDelay

  /** The key of the last service, or the kept one. */
  const findKey = Effect.gen(function* () {
    if (key !== undefined || store === undefined) return key
    const kept = yield* Effect.mapError(
      store.load,
      (cause) => new TorControlError({ reason: { _tag: "KeyUnavailable", cause } })
    )
    if (Option.isNone(kept)) return undefined
    const text = new TextDecoder().decode(kept.value).trim()
    return keyPattern.test(text) ? text : yield* failed({ _tag: "BadKey" })
  })
  const keepKey = (made: string | undefined) =>
    Effect.suspend(() => {
      if (made === undefined || !keyPattern.test(made) || made === key) return Effect.void
      key = made
      if (store === undefined) return Effect.void
      return Effect.catch(store.save(new TextEncoder().encode(made)), (cause) =>
        Effect.logWarning(`the key of the onion service was not saved, its address will change: ${messageOf(cause)}`)
      )
    })

  const session = Effect.gen(function* () {
    yield* SubscriptionRef.set(status, { _tag: "Starting" })
    const connection = yield* Effect.mapError(
      connect,
      (error) => new TorControlError({ reason: { _tag: "Disconnected", error } })
    )
    const control = makeControl(connection)
    yield* logIn(control, options)
    const socks = yield* findSocks(control)
    const known = yield* findKey
    const { address, key: made, powDefenses } = yield* addOnion(control, known ?? newKey, network.port, target)
    key = known
    yield* keepKey(made)
    delay = firstDelay
    const service: OnionService = { address, socks, powDefenses }
    if (onUp !== undefined) yield* onUp(service)
    yield* SubscriptionRef.set(status, { _tag: "Up", ...service })
    return yield* control.untilEnd
  })

  const run = Effect.catch(Effect.scoped(session), (error) =>
    Effect.suspend(() => {
      const retryAfter = Duration.millis(delay)
      delay = Math.min(delay * delayGrowth, longestDelay)
      return Effect.andThen(SubscriptionRef.set(status, { _tag: "Down", error, retryAfter }), Effect.sleep(retryAfter))
    })
  )
  yield* Effect.forkScoped(Effect.forever(run), { startImmediately: true })
  return { status: SubscriptionRef.get(status), changes: SubscriptionRef.changes(status) }
})

/**
 * An onion service that lives as long as the layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<TorControl> =>
  Layer.provide(Layer.effect(TorControl, make(options)), SecureRandom.layerWebCrypto)
