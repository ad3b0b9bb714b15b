/** The interface of a server, its options and its errors. `Server.ts` exports all of it. */
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Address from "../../Address.ts"
import type { Endpoint } from "../../Connection.ts"
import type { ConnectionError } from "../../ConnectionError.ts"
import type { HandshakeError } from "../../HandshakeError.ts"
import type * as Inventory from "../../Inventory.ts"
import type * as Network from "../../Network.ts"
import type * as Peer from "../../Peer.ts"
import type * as PeerServer from "../../PeerServer.ts"
import type * as Wire from "../../Wire.ts"
import type { Book } from "../AddressBook.ts"
import type { Asmap } from "../Asmap.ts"
import type { BanList } from "../BanList.ts"
import type { ConnectionKind } from "../ConnectionKind.ts"
import type { NetworkName, Target, Unreachable } from "../Dialer.ts"
import type { NetworkInfo } from "../NetworkInfo.ts"
import type { PeerInfo } from "../PeerInfo.ts"
import type { Permissions } from "../Permissions.ts"
import type { Policy } from "../Reputation.ts"
import type { Duplicate, ServerEvent } from "../ServerEvent.ts"

/**
 * A peer of a server, from its handshake to its end.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectedPeer {
  /** The number of the connection in its server. */
  readonly id: number
  readonly kind: ConnectionKind
  readonly peer: Peer.Peer
  /** What was dialled, or the address that an inbound connection came from. */
  readonly target: Target
  /** The address of the remote. */
  readonly address: Address.Address
  /** What the operator allows it, see `Permissions`. A handler decides by them what it answers. */
  readonly permissions: Permissions
  /** Milliseconds of Unix time when the handshake was completed. */
  readonly connectedAt: number
}

/**
 * A place where a server listens.
 *
 * @category options
 * @since 0.1.0
 */
export interface Bind {
  /** Makes the listener: `NodeConnection.listen({ port: 8333 })`, an I2P session, or a host of a simulation. */
  readonly listen: Effect.Effect<PeerServer.Listener & { readonly address?: Endpoint }, ConnectionError, Scope.Scope>
  /**
   * How connections come here; "clearnet" by default. Those that come through a Tor or I2P daemon all have the address of
   * this machine, so they are not counted by address.
   */
  readonly kind?: "clearnet" | "onion" | "i2p" | undefined
  /** How many of the inbound slots are for this bind: a bind never takes a slot of another one. Equal parts by default. */
  readonly slots?: number | undefined
  /** The permissions of all peers that come here, by Bitcoin Core's names with commas: "noban,relay". */
  readonly permissions?: string | undefined
}

/**
 * The options of a server. All are optional, and the numbers are those of Bitcoin Core.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<H extends Peer.Handlers<unknown> = Peer.Handlers, R = never> {
  /** Mainnet by default. */
  readonly network?: Network.Network | undefined
  /** Nodes to stay connected to, "host" or "host:port": addresses or names. */
  readonly added?: ReadonlyArray<string> | undefined
  /** If set, these nodes are the only ones that are dialled: no address of the book is. */
  readonly connect?: ReadonlyArray<string> | undefined
  /** Nodes that are asked for addresses when the book has few, "host" or "host:port". */
  readonly seedNodes?: ReadonlyArray<string> | undefined
  /**
   * Whether the addresses that this package has for mainnet, testnet4 and signet are used, as the last source of addresses, if the book
   * has none of a network; true. DNS seeds are asked if the context has the service `Seeds`.
   */
  readonly fixedSeeds?: boolean | undefined
  /** Permissions of peers by their subnets, as Bitcoin Core's `whitelist`: "noban,relay@192.168.0.0/16". */
  readonly whitelist?: ReadonlyArray<string> | undefined
  /** What happens to peers that misbehave; `Reputation.core`. */
  readonly reputation?: Policy | undefined
  /** Outbound peers that relay transactions; 8. */
  readonly fullRelay?: number | undefined
  /** Outbound peers that relay blocks only; 2. */
  readonly blockRelay?: number | undefined
  /** Peers of added nodes at one time; 8. */
  readonly maxManual?: number | undefined
  /** Inbound peers; 189. */
  readonly maxInbound?: number | undefined
  /** Inbound handshakes at one time; 128. */
  readonly maxPending?: number | undefined
  /** Whether one address of the book is tested every two minutes on average; true. */
  readonly feelers?: boolean | undefined
  /** Automatic dials at one time; 4, and half of that once two peers are connected. */
  readonly pendingDials?: number | undefined
  /** Dials in a second, and as many more at once after a pause; 4 and 8, and 100 and 200 for a fleet. */
  readonly dialRate?: { readonly perSecond: number; readonly burst: number } | undefined
  /**
   * The only networks whose addresses are dialled automatically. All that the dialer reaches by default. Added nodes of other networks are
   * dialled all the same; `onlynet` of the dialer rules them out, too.
   */
  readonly onlyNetworks?: ReadonlyArray<NetworkName> | undefined
  /** Whether private and local addresses of the book are dialled as well: for tests and closed networks. */
  readonly allowUnroutable?: boolean | undefined
  /**
   * A map of autonomous systems. Its systems are then the groups of the server, of which it dials each once, instead of /16 networks.
   */
  readonly asmap?: Asmap | undefined
  /**
   * Whether the server is one of very many peers of the caller's choice (10,000 and more): it dials the added nodes only, all at once,
   * accepts everybody, and has neither slots nor groups, evictions, or relay of addresses. Bans, waits and the rate of dials stay.
   */
  readonly fleet?: boolean | undefined
  /** Masks of service bits; a peer of the book must offer one of each. NETWORK or NETWORK_LIMITED, and WITNESS. */
  readonly requiredServices?: ReadonlyArray<bigint> | undefined
  /** Where to listen; nowhere by default. */
  readonly binds?: ReadonlyArray<Bind> | undefined
  /** Our addresses as others can reach them, "host" or "host:port": they are announced, and no others are looked for. */
  readonly external?: ReadonlyArray<string> | undefined
  /** Whether peers tell us our address; by default if the server listens and `external` is empty. */
  readonly discover?: boolean | undefined
  /** The handlers of every peer. */
  readonly handlers?: H | undefined
  /** Options of every peer: user agent, services, pings and the like. */
  readonly peer?:
    | Omit<Peer.Options, "direction" | "handlers" | "network" | "requiredServices" | "remoteServices">
    | undefined
  /** Runs beside each peer, and is interrupted when it ends. */
  readonly onPeer?: ((connected: ConnectedPeer) => Effect.Effect<unknown, unknown, R>) | undefined
  /** 16 bytes that replace the random key of this start: only for tests, which want the same run each time. */
  readonly randomKey?: Uint8Array | undefined
}

/**
 * Why a server cannot start.
 *
 * @category errors
 * @since 0.1.0
 */
export type ServerReason =
  | { readonly _tag: "BadOptions"; readonly problem: string }
  | { readonly _tag: "ListenFailed"; readonly error: ConnectionError }

/**
 * A server cannot start. A server that runs never fails: what goes wrong is an event.
 *
 * @category errors
 * @since 0.1.0
 */
export class ServerError extends Data.TaggedError("ServerError")<{ readonly reason: ServerReason }> {
  override get message(): string {
    return this.reason._tag === "BadOptions"
      ? `bad option: ${this.reason.problem}`
      : `cannot listen: ${this.reason.error.message}`
  }
}

/**
 * A single dial for the caller failed: `error` says how, or the server refused to dial.
 *
 * @category errors
 * @since 0.1.0
 */
export class DialError extends Data.TaggedError("DialError")<{
  readonly target: string
  readonly error:
    | ConnectionError
    | Duplicate
    | HandshakeError
    | Unreachable
    | "inactive"
    | "ended"
    | { readonly problem: string }
}> {
  override get message(): string {
    const { error } = this
    if (typeof error === "object" && "problem" in error) return error.problem
    const why =
      error === "inactive"
        ? "the network of the server is switched off"
        : error === "ended"
          ? "the server ended the connection"
          : error.message
    return `cannot dial ${this.target}: ${why}`
  }
}

/**
 * Many peers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  /** The peers whose handshakes were completed, the oldest first. */
  readonly peers: Effect.Effect<ReadonlyArray<ConnectedPeer>>
  /** The peers as `getpeerinfo` of Bitcoin Core prints them. */
  readonly peerInfo: Effect.Effect<ReadonlyArray<PeerInfo>>
  /** The server as `getnetworkinfo` of Bitcoin Core prints a node. */
  readonly networkInfo: Effect.Effect<NetworkInfo>
  /** The last 64 events, and what happens from then on. A reader that is slow misses the oldest events and stalls nothing. */
  readonly events: Stream.Stream<ServerEvent>
  /**
   * Waits until this number of peers that fit are connected, and returns them. Without `where` all kinds count, inbound peers and
   * connections to seeds too.
   */
  readonly awaitPeers: (
    count: number,
    where?: (connected: ConnectedPeer) => boolean
  ) => Effect.Effect<ReadonlyArray<ConnectedPeer>>
  /** The connection of a peer: a handler gets only the peer. `undefined` once it has ended. */
  readonly find: (peer: Peer.Peer) => ConnectedPeer | undefined
  /** Stays connected to a node. False if it was added before. Fails with `DialError` for a text that names no node. */
  readonly add: (target: string) => Effect.Effect<boolean, DialError>
  /** Stays connected to it no longer: its peer ends. False if it was not added. */
  readonly remove: (target: string) => Effect.Effect<boolean, DialError>
  /** The added nodes, and how their dials went. */
  readonly added: Effect.Effect<ReadonlyArray<AddedNode>>
  /** Dials once, beside the slots of the kind ("manual" by default). The peer ends with the scope. */
  readonly dialOnce: (
    target: string,
    kind?: "addr-fetch" | "block-relay-only" | "feeler" | "manual" | "outbound-full-relay"
  ) => Effect.Effect<ConnectedPeer, DialError, Scope.Scope>
  /** Ends the peers of an address ("1.2.3.4:8333") or with a number; returns how many. */
  readonly disconnect: (who: number | string, why?: string) => Effect.Effect<number>
  /**
   * Says that a peer misbehaved. At 100 points the policy `Reputation.core` discourages its host,
   * and ends all its connections.
   */
  readonly misbehaved: (id: number, points: number, why: string) => Effect.Effect<void>
  /** Says that a peer sent a block or a transaction that was valid and new: such peers are evicted last. */
  readonly mark: (id: number, what: "block" | "transaction") => Effect.Effect<void>
  /** The bans and the discouraged hosts. A ban ends the peers of its subnet. */
  readonly bans: BanList
  /** The address book. */
  readonly book: Book
  /** Ends all peers and dials and accepts nothing, or begins again. */
  readonly setNetworkActive: (isActive: boolean) => Effect.Effect<void>
  readonly networkActive: Effect.Effect<boolean>
  /** Runs an Effect for each peer, at once for all. Failures are ignored: a peer may end meanwhile. */
  readonly forEach: (
    f: (connected: ConnectedPeer) => Effect.Effect<unknown, unknown>,
    where?: (connected: ConnectedPeer) => boolean
  ) => Effect.Effect<void>
  /** Announces blocks and transactions to all peers, as `Peer.announce` does to one. */
  readonly announce: (announcements: ReadonlyArray<Inventory.Announcement>) => Effect.Effect<void>
  /** Announces new blocks to all peers, as `Peer.announceBlocks` does to one. */
  readonly announceBlocks: (headers: ReadonlyArray<Wire.BlockHeader>) => Effect.Effect<void>
}

/**
 * An added node.
 *
 * @category models
 * @since 0.1.0
 */
export interface AddedNode {
  readonly target: string
  readonly connected: boolean
  /** Tries since the last connection that lived for two minutes. */
  readonly attempts: number
  /** Milliseconds of Unix time of the next try; undefined while it is dialled or connected. */
  readonly nextAttempt: number | undefined
  /** Why it is never dialled. */
  readonly unreachable: string | undefined
}
