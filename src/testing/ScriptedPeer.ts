/**
 * Scripted remote peers for tests. A script is a pure function from a message and a state to answers. There are scripts for an honest node
 * with a chain, a silent one, a slow one, a liar, a node without v2, and floods. Scripts run over any connection, or listen on a host of a
 * simulation (`attach`). They use the v1 transport.
 */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Address from "../Address.ts"
import type { Connection } from "../Connection.ts"
import type { ConnectionError } from "../ConnectionError.ts"
import * as Network from "../Network.ts"
import * as PeerServer from "../PeerServer.ts"
import * as Wire from "../Wire.ts"
import { Actor } from "./internal/actor.ts"
import type { Host, ListenOptions } from "./internal/options.ts"
import { isMessage, type Remote, type Script, type Turn } from "./internal/script.ts"
import { blockWithoutWitnesses, heightIn, heightsAfter, maxBlocksAnnounced } from "./internal/serving.ts"
import * as RegtestChain from "./RegtestChain.ts"

export type { Action, Remote, Script, Turn } from "./internal/script.ts"

// ---- running

/**
 * How a script runs.
 *
 * @category options
 * @since 0.1.0
 */
export interface RunOptions {
  /** The network whose magic begins each message; `Network.regtest` by default. */
  readonly network?: Network.Network | undefined
  /** "inbound" if the other side dialled, which is the default. */
  readonly direction?: "inbound" | "outbound" | undefined
}

/** Plays a script. It is in `actors` as long as it plays. */
const play = <S>(
  connection: Connection,
  script: Script<S>,
  { direction = "inbound", network = Network.regtest }: RunOptions,
  actors: Set<Actor<S>>
): Effect.Effect<void> =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.callback<void>((resume) => {
      const actor = new Actor(connection, script, { magic: network.magic, direction }, context, (ending) => {
        actors.delete(actor)
        resume(ending)
      })
      actors.add(actor)
      actor.start()
      return Effect.sync(() => {
        actors.delete(actor)
        actor.stop()
      })
    })
  )

/**
 * Plays a script over a connection until either side ends the connection. Dies if the script throws, or sends a message that cannot be
 * encoded.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import { RegtestChain, ScriptedPeer } from "effect-bitcoin-peer/testing"
 *
 * const program = Effect.gen(function*() {
 *   const chain = RegtestChain.extend(RegtestChain.start, 10)
 *   const [ours, theirs] = yield* Connection.makePair()
 *   yield* Effect.forkScoped(ScriptedPeer.run(theirs, ScriptedPeer.honest(chain)))
 *   const peer = yield* Peer.make(ours, { network: Network.regtest })
 *   return (yield* peer.getHeaders([chain.hashes[0]])).length // 10
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 *
 * await Effect.runPromise(program)
 * ```
 *
 * @category running
 * @since 0.1.0
 */
export const run = <S>(connection: Connection, script: Script<S>, options: RunOptions = {}): Effect.Effect<void> =>
  Effect.suspend(() => play(connection, script, options, new Set()))

/**
 * A script that listens on a host.
 *
 * @category models
 * @since 0.1.0
 */
export interface Attached<S> {
  /** The number of open connections. */
  readonly connections: Effect.Effect<number>
  /** The number of connections that were accepted, also those that have ended. */
  readonly accepted: Effect.Effect<number>
  /** Runs a turn on each open connection, to announce a block or to disconnect, for example. */
  readonly tell: (turn: (state: S, remote: Remote) => Turn<S>) => Effect.Effect<void>
}

/**
 * Listens on a host and plays a script on each connection, until the scope ends.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Peer } from "effect-bitcoin-peer"
 * import { ScriptedPeer, Simulation } from "effect-bitcoin-peer/testing"
 *
 * // Answers two pings, then says goodbye with a message that no node knows.
 * const tired = ScriptedPeer.withHandshake<number>({
 *   state: 0,
 *   onMessage: (message, pings) => {
 *     if (message._tag !== "ping") return [pings]
 *     if (pings < 2) return [pings + 1, { _tag: "pong", nonce: message.nonce ?? 0n }]
 *     return [pings, { _tag: "Unknown", command: "tired", payload: new Uint8Array(0) }, { _tag: "Close" }]
 *   }
 * }, { answersPings: false })
 *
 * const ending = Simulation.run(1, (simulation) => Effect.gen(function*() {
 *   const [node, wallet] = [yield* simulation.host(), yield* simulation.host()]
 *   yield* ScriptedPeer.attach(node, tired)
 *   const peer = yield* Peer.make(yield* wallet.dial(node.addresses[0]), { network: Network.regtest }).pipe(
 *     Effect.provide(wallet.layer)
 *   )
 *   return yield* peer.awaitShutdown // RemoteClosed, after six minutes of virtual time
 * }))
 *
 * await Effect.runPromise(ending)
 * ```
 *
 * @category running
 * @since 0.1.0
 */
export const attach = <S>(
  host: Host,
  script: Script<S>,
  options: Omit<RunOptions, "direction"> & ListenOptions = {}
): Effect.Effect<Attached<S>, ConnectionError, Scope.Scope> =>
  Effect.gen(function* () {
    const listener = yield* host.listen(options)
    const actors = new Set<Actor<S>>()
    let accepted = 0
    const attend = (connection: Connection): Effect.Effect<void> =>
      Effect.suspend(() => {
        accepted++
        return play(connection, script, options, actors)
      })
    // Fails when the host is killed: the script no longer listens.
    yield* Effect.forkScoped(Effect.ignore(PeerServer.acceptEach(listener, attend)), { startImmediately: true })
    return {
      connections: Effect.sync(() => actors.size),
      accepted: Effect.sync(() => accepted),
      tell: (turn) =>
        Effect.sync(() => {
          for (const actor of actors) actor.tell(turn)
        })
    }
  })

// ---- handshake

const noAddress: Wire.NetworkAddress = { services: 0n, address: new Uint8Array(16), port: 0 }

/**
 * The version message of an ordinary node. `now` is in milliseconds since 1970.
 *
 * @category constructors
 * @since 0.1.0
 */
export const version = (now: number, fields: Partial<Omit<Wire.Version, "_tag">> = {}): Wire.Version => ({
  _tag: "version",
  protocolVersion: 70_016,
  services: Wire.Service.network | Wire.Service.witness,
  timestamp: Math.floor(now / 1_000),
  receiver: noAddress,
  sender: noAddress,
  nonce: 0x7363_7269_7074n,
  userAgent: "/scripted:0.1.0/",
  startHeight: 0,
  relay: true,
  ...fields
})

/**
 * The handshake of a script.
 *
 * @category options
 * @since 0.1.0
 */
export interface HandshakeOptions {
  /** Fields of its version message that differ from those of `version`. */
  readonly version?: Partial<Omit<Wire.Version, "_tag">> | undefined
  /** Messages between version and verack; `wtxidrelay` and `sendaddrv2` by default. */
  readonly negotiation?: ReadonlyArray<Wire.Message> | undefined
  /** Whether pings are answered; true by default. */
  readonly answersPings?: boolean | undefined
}

/**
 * The state of a script with a handshake, and of the script inside.
 *
 * @category models
 * @since 0.1.0
 */
export interface HandshakeState<S> {
  /** Whether the other side has sent its verack. */
  readonly isReady: boolean
  readonly script: S
}

const ordinaryNegotiation: ReadonlyArray<Wire.Message> = [{ _tag: "wtxidrelay" }, { _tag: "sendaddrv2" }]

/**
 * Adds a handshake and answers to pings to a script. The `onConnect` of the script runs when the handshake is complete. It gets all
 * messages except version, verack and answered pings.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withHandshake = <S>(script: Script<S>, options: HandshakeOptions = {}): Script<HandshakeState<S>> => {
  const { answersPings = true, negotiation = ordinaryNegotiation } = options
  const into = (isReady: boolean, [state, ...actions]: Turn<S>): Turn<HandshakeState<S>> => [
    { isReady, script: state },
    ...actions
  ]
  const { onConnect, onMessage, tick } = script
  return {
    state: { isReady: false, script: script.state },
    onConnect: (state, { direction, now }) =>
      direction === "outbound" ? [state, version(now, options.version)] : [state],
    onMessage: (message, state, remote) => {
      switch (message._tag) {
        case "version": {
          const own = remote.direction === "inbound" ? [version(remote.now, options.version)] : []
          return [state, ...own, ...negotiation, { _tag: "verack" }]
        }
        case "verack":
          return onConnect === undefined ? [{ ...state, isReady: true }] : into(true, onConnect(state.script, remote))
        case "ping":
          if (answersPings) return [state, { _tag: "pong", nonce: message.nonce ?? 0n }]
      }
      return into(state.isReady, onMessage(message, state.script, remote))
    },
    tick: tick && {
      every: tick.every,
      onTick: (state, remote) => (state.isReady ? into(true, tick.onTick(state.script, remote)) : [state])
    }
  }
}

/**
 * Makes a script slow: it waits before the actions of each turn.
 *
 * @category combinators
 * @since 0.1.0
 */
export const slow = <S>(script: Script<S>, delay: Duration.Input): Script<S> => {
  const later = ([state, ...actions]: Turn<S>): Turn<S> =>
    actions.length === 0 ? [state] : [state, { _tag: "Wait", duration: delay }, ...actions]
  const { onConnect, onMessage } = script
  return {
    ...script,
    onConnect: onConnect && ((state, remote) => later(onConnect(state, remote))),
    onMessage: (message, state, remote) => later(onMessage(message, state, remote))
  }
}

// ---- scripts

/**
 * Accepts the connection and says nothing, ever.
 *
 * @category scripts
 * @since 0.1.0
 */
export const silent: Script<undefined> = { state: undefined, onMessage: (_, state) => [state] }

/**
 * Shakes hands, and then says nothing: no answer, no pong.
 *
 * @category scripts
 * @since 0.1.0
 */
export const mute: Script<HandshakeState<undefined>> = withHandshake(silent, { answersPings: false })

/**
 * The options of an honest node.
 *
 * @category options
 * @since 0.1.0
 */
export interface HonestOptions extends HandshakeOptions {
  /** Addresses to answer `getaddr` with; no answer by default. */
  readonly addresses?: ReadonlyArray<Wire.AddressV2> | undefined
}

/**
 * The features that the other side negotiated with an honest node.
 *
 * @category models
 * @since 0.1.0
 */
export interface HonestState {
  /** Whether it sent `sendheaders`: blocks are announced by their headers (BIP130). */
  readonly wantsHeaders: boolean
  /** Whether it sent `sendaddrv2` (BIP155). */
  readonly wantsAddrV2: boolean
}

/**
 * A node with a chain: it answers getheaders, getblocks, getdata for blocks, getaddr and pings. Pass a function for a chain that grows: it
 * is called at each message. `announce` announces new blocks.
 *
 * @category scripts
 * @since 0.1.0
 */
export const honest = (
  chain: RegtestChain.Chain | (() => RegtestChain.Chain),
  options: HonestOptions = {}
): Script<HandshakeState<HonestState>> => {
  const current = typeof chain === "function" ? chain : () => chain
  const { addresses = [] } = options
  const script: Script<HonestState> = {
    state: { wantsHeaders: false, wantsAddrV2: false },
    onMessage: (message, state) => {
      switch (message._tag) {
        case "sendheaders":
          return [{ ...state, wantsHeaders: true }]
        case "sendaddrv2":
          return [{ ...state, wantsAddrV2: true }]
        case "getaddr":
          if (addresses.length === 0) return [state]
          return [state, addressMessage(addresses, state.wantsAddrV2)]
        case "getheaders": {
          const { blocks } = current()
          const [from, to] = heightsAfter(message, (hash) => heightIn(current(), hash), blocks.length, Wire.maxHeaders)
          return [state, { _tag: "headers", headers: blocks.slice(from, to).map(({ header }) => header) }]
        }
        case "getblocks": {
          const { hashes } = current()
          const heightOf = (hash: Uint8Array): number | undefined => heightIn(current(), hash)
          const [from, to] = heightsAfter(message, heightOf, hashes.length, maxBlocksAnnounced)
          const items = hashes.slice(from, to).map((hash) => ({ type: Wire.InventoryType.block, hash }))
          return items.length === 0 ? [state] : [state, { _tag: "inv", items }]
        }
        case "getdata":
          return [state, ...dataOf(current(), message.items)]
        default:
          return [state]
      }
    }
  }
  return withHandshake(script, {
    ...options,
    // Read at each handshake: the chain may have grown.
    version: {
      get startHeight() {
        return current().blocks.length - 1
      },
      ...options.version
    }
  })
}

const addressMessage = (addresses: ReadonlyArray<Wire.AddressV2>, isV2: boolean): Wire.Message => {
  if (isV2) return { _tag: "addrv2", addresses }
  const old = addresses.flatMap(({ port, services, timestamp, ...host }) => {
    const address = Address.toBytes(host)
    return address === undefined ? [] : [{ timestamp, services, address, port }]
  })
  return { _tag: "addr", addresses: old }
}

/** The requested blocks, and a `notfound` for all other items. */
const dataOf = (chain: RegtestChain.Chain, items: Wire.List<Wire.InventoryItem>): ReadonlyArray<Wire.Message> => {
  const found: Array<Wire.Message> = []
  const missing: Array<Wire.InventoryItem> = []
  for (const item of items) {
    const isBlock = (item.type & ~Wire.InventoryType.witnessFlag) === Wire.InventoryType.block
    const block = isBlock ? chain.blocks[heightIn(chain, item.hash) ?? -1] : undefined
    if (block === undefined) missing.push(item)
    else if ((item.type & Wire.InventoryType.witnessFlag) !== 0) found.push({ _tag: "block", block })
    else found.push({ _tag: "block", block: blockWithoutWitnesses(block) })
  }
  return missing.length === 0 ? found : [...found, { _tag: "notfound", items: missing }]
}

/**
 * A turn for `Attached.tell` that announces the tip of a chain: by its header after `sendheaders` (BIP130), else by inv.
 *
 * @category scripts
 * @since 0.1.0
 */
export const announce =
  (chain: RegtestChain.Chain) =>
  (state: HandshakeState<HonestState>): Turn<HandshakeState<HonestState>> => {
    const block = chain.blocks.at(-1)
    const hash = chain.hashes.at(-1)
    if (!state.isReady || block === undefined || hash === undefined) return [state]
    return state.script.wantsHeaders
      ? [state, { _tag: "headers", headers: [block.header] }]
      : [state, { _tag: "inv", items: [{ type: Wire.InventoryType.block, hash }] }]
  }

/**
 * A node like Bitcoin Core 0.20: protocol version 70015, and no messages between version and verack. It does not support the v2 transport
 * (BIP324) and disconnects when the other side begins with a key exchange, as all scripts do.
 *
 * @category scripts
 * @since 0.1.0
 */
export const v1Only = (chain: RegtestChain.Chain | (() => RegtestChain.Chain)): Script<HandshakeState<HonestState>> =>
  honest(chain, { version: { protocolVersion: 70_015, userAgent: "/Satoshi:0.20.0/" }, negotiation: [] })

/**
 * The lie of a `liar`.
 *
 * - `height`: its version message claims a thousand more blocks.
 * - `headers`: it sends headers that do not follow each other.
 * - `work`: it sends headers without proof of work.
 * - `block`: it sends another block than it was asked for.
 * - `transactions`: it sends the block with a changed transaction.
 * - `nothing`: it answers requests with no headers, or with notfound.
 * - `pong`: it answers pings with a wrong nonce.
 *
 * @category models
 * @since 0.1.0
 */
export type Lie = "height" | "headers" | "work" | "block" | "transactions" | "nothing" | "pong"

/** An untrue form of a message that an honest node sends. */
const lies: { readonly [lie in Lie]: (message: Wire.Message, chain: RegtestChain.Chain) => Wire.Message } = {
  height: (message, chain) =>
    message._tag === "version" ? { ...message, startHeight: chain.blocks.length - 1 + 1_000 } : message,
  headers: (message) =>
    message._tag === "headers" ? { ...message, headers: Array.from(message.headers).toReversed() } : message,
  work: (message) => (message._tag === "headers" ? { ...message, headers: withoutWork(message.headers) } : message),
  block: (message, chain) => {
    if (message._tag !== "block") return message
    const height = heightIn(chain, Wire.blockHash(message.block.header)) ?? 0
    return { _tag: "block", block: chain.blocks[height === 0 ? 1 : height - 1] ?? message.block }
  },
  transactions: (message) => {
    if (message._tag !== "block") return message
    const [first, ...others] = Array.from(message.block.transactions)
    if (first === undefined) return message
    return { _tag: "block", block: { ...message.block, transactions: [{ ...first, lockTime: 1 }, ...others] } }
  },
  nothing: (message) => {
    if (message._tag === "headers") return { ...message, headers: [] }
    if (message._tag !== "block") return message
    const hash = Wire.blockHash(message.block.header)
    return { _tag: "notfound", items: [{ type: Wire.InventoryType.witnessBlock, hash }] }
  },
  pong: (message) => (message._tag === "pong" ? { ...message, nonce: (message.nonce ?? 0n) ^ 1n } : message)
}

/** The same headers with nonces that fail proof of work, linked to each other again. */
const withoutWork = (headers: Iterable<Wire.BlockHeader>): ReadonlyArray<Wire.BlockHeader> => {
  const changed: Array<Wire.BlockHeader> = []
  let previous: Uint8Array | undefined
  for (const header of headers) {
    const linked = { ...header, previousBlock: previous ?? header.previousBlock }
    while (RegtestChain.hasProofOfWork(linked)) linked.nonce = (linked.nonce + 1) >>> 0
    changed.push(linked)
    previous = Wire.blockHash(linked)
  }
  return changed
}

/**
 * An honest node that lies about one thing.
 *
 * @category scripts
 * @since 0.1.0
 */
export const liar = (
  chain: RegtestChain.Chain | (() => RegtestChain.Chain),
  lie: Lie,
  options: HonestOptions = {}
): Script<HandshakeState<HonestState>> => {
  const current = typeof chain === "function" ? chain : () => chain
  const script = honest(chain, options)
  const untrue = ([state, ...actions]: Turn<HandshakeState<HonestState>>): Turn<HandshakeState<HonestState>> => [
    state,
    ...actions.map((action) => (isMessage(action) ? lies[lie](action, current()) : action))
  ]
  return {
    ...script,
    onConnect: (state, remote) => untrue(script.onConnect!(state, remote)),
    onMessage: (message, state, remote) => untrue(script.onMessage(message, state, remote))
  }
}

/**
 * The rate of a flood.
 *
 * @category options
 * @since 0.1.0
 */
export interface FloodOptions extends HandshakeOptions {
  /** The interval; 10 ms by default, at least 1 ms. */
  readonly every?: Duration.Input | undefined
  /** Messages per interval; 10 by default. */
  readonly count?: number | undefined
}

/**
 * Shakes hands and then sends messages without end. `make` makes the n-th message, counted from 0; see `floods`. It stops while the other
 * side does not read (back-pressure).
 *
 * @category scripts
 * @since 0.1.0
 */
export const flood = (
  make: (n: number) => Wire.Message | Uint8Array,
  options: FloodOptions = {}
): Script<HandshakeState<number>> => {
  const { count = 10, every = 10 } = options
  return withHandshake<number>(
    {
      state: 0,
      onMessage: (_, state) => [state],
      tick: {
        every,
        onTick: (sent) => [sent + count, ...Array.from({ length: count }, (_, index) => make(sent + index))]
      }
    },
    options
  )
}

/** A made-up hash. */
const hashOf = (n: number): Uint8Array => {
  const hash = new Uint8Array(32)
  new DataView(hash.buffer).setUint32(0, n)
  return hash
}

/**
 * Messages for `flood`.
 *
 * @category scripts
 * @since 0.1.0
 */
export const floods = {
  /** 1,000 made-up addresses. */
  addresses: (n: number): Wire.Message => ({
    _tag: "addr",
    addresses: Array.from({ length: Wire.maxAddresses }, (_, index) => {
      const address = new Uint8Array(16)
      address.set([0xff, 0xff, 11 + (n % 100), index >>> 8, index & 0xff, 1 + (Math.floor(n / 100) % 250)], 10)
      return { timestamp: n, services: Wire.Service.network, address, port: 8333 }
    })
  }),
  /** An inv of 1,000 made-up transactions. */
  inventory: (n: number): Wire.Message => ({
    _tag: "inv",
    items: Array.from({ length: 1_000 }, (_, index) => ({
      type: Wire.InventoryType.wtx,
      hash: hashOf(n * 1_000 + index)
    }))
  }),
  /** Pings. */
  pings: (n: number): Wire.Message => ({ _tag: "ping", nonce: BigInt(n) }),
  /** Messages of 10 kB with an unknown command. */
  unknown: (): Wire.Message => ({ _tag: "Unknown", command: "flood", payload: new Uint8Array(10_000) })
} as const
