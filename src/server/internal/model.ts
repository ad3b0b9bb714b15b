/** The interface of a server, its options and its errors, for `Server.ts` to export. */
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
 * A peer of a server, from the end of its handshake to the end of its connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectedPeer {
  /** The number of the connection. A server never uses a number twice. */
  readonly id: number
  readonly kind: ConnectionKind
  readonly peer: Peer.Peer
  /** The dialled address or host name. For an inbound peer its address. */
  readonly target: Target
  /** The address of the remote. Behind a proxy that resolves a host name it is the unspecified address, `::`. */
  readonly address: Address.Address
  /** The permissions that the operator gave this peer, see `Permissions`. Handlers look at them to decide what to answer. */
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
   * The network that connections arrive from; "clearnet" by default. Connections through a Tor or I2P daemon all have the address of
   * the daemon, so limits and bans by address do not apply to them.
   */
  readonly kind?: "clearnet" | "onion" | "i2p" | undefined
  /** The inbound slots of this bind, out of `maxInbound`; equal parts by default. A bind never uses a slot of another one. */
  readonly slots?: number | undefined
  /** Permissions of all peers that connect here, as in Bitcoin Core's `whitebind`: "noban,relay". */
  readonly permissions?: string | undefined
}

/**
 * The options of a server. All are optional. Defaults are given after a semicolon; they are the numbers of Bitcoin Core.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<H extends Peer.Handlers<unknown> = Peer.Handlers, R = never> {
  /** Mainnet by default. */
  readonly network?: Network.Network | undefined
  /** Nodes to stay connected to, as Bitcoin Core's `addnode`: "host" or "host:port", with an address or a host name. */
  readonly added?: ReadonlyArray<string> | undefined
  /** Only these nodes (and `added`) are dialled, as with Bitcoin Core's `connect`: no automatic connections, seeds or feelers. */
  readonly connect?: ReadonlyArray<string> | undefined
  /** Nodes to ask for addresses while the address book has few, "host" or "host:port". */
  readonly seedNodes?: ReadonlyArray<string> | undefined
  /**
   * Whether to add the fixed seeds of this package (mainnet, testnet4, signet) when the book has no address of a network and no other
   * source gave one; true. DNS seeds are asked if the context has the service `Seeds`.
   */
  readonly fixedSeeds?: boolean | undefined
  /** Permissions of peers by their subnets, as Bitcoin Core's `whitelist`: "noban,relay@192.168.0.0/16". */
  readonly whitelist?: ReadonlyArray<string> | undefined
  /** The policy for peers that misbehave; `Reputation.core`. */
  readonly reputation?: Policy | undefined
  /** Slots for automatic outbound peers that relay transactions (full relay); 8. */
  readonly fullRelay?: number | undefined
  /** Slots for automatic outbound peers that relay blocks only; 2. */
  readonly blockRelay?: number | undefined
  /** Slots for added nodes; 8, and no limit with `connect` or `fleet`. */
  readonly maxManual?: number | undefined
  /** Slots for inbound peers, over all binds; 189, and 1,000,000 with `fleet`. */
  readonly maxInbound?: number | undefined
  /** Inbound handshakes at a time; 128. */
  readonly maxPending?: number | undefined
  /** Whether a feeler connection tests an address of the book every two minutes on average; true. */
  readonly feelers?: boolean | undefined
  /** Automatic dials at a time; 4. Half of them once two full-relay peers are connected. */
  readonly pendingDials?: number | undefined
  /** Dials per second, and the most at once after a pause; 4 and 8, or 100 and 200 with `fleet`. */
  readonly dialRate?: { readonly perSecond: number; readonly burst: number } | undefined
  /**
   * Networks for automatic connections, as Bitcoin Core's `onlynet`; all networks of the dialer by default. Added nodes of other networks
   * are still dialled: to forbid that too, use the option `onlynet` of the dialer.
   */
  readonly onlyNetworks?: ReadonlyArray<NetworkName> | undefined
  /** Whether to dial private and local addresses of the book, in tests and closed networks; false. */
  readonly allowUnroutable?: boolean | undefined
  /**
   * A map from IP addresses to autonomous systems (Bitcoin Core's `asmap`). Network groups are then autonomous systems instead of /16 of
   * IPv4 and /32 of IPv6. At most one automatic peer is in each group.
   */
  readonly asmap?: Asmap | undefined
  /**
   * For 10,000 and more peers of the caller's choice; false. The server then dials only the added nodes, has no limit on their number and
   * does not relay addresses. Bans, back-off and the dial rate still apply.
   */
  readonly fleet?: boolean | undefined
  /** Masks of service bits: an automatic peer must offer a bit of each; NETWORK or NETWORK_LIMITED, and WITNESS. */
  readonly requiredServices?: ReadonlyArray<bigint> | undefined
  /** Where to listen; nowhere by default. */
  readonly binds?: ReadonlyArray<Bind> | undefined
  /** Our own addresses to announce, as Bitcoin Core's `externalip`: "host" or "host:port", without host names. */
  readonly external?: ReadonlyArray<string> | undefined
  /** Whether to learn our address from interfaces and peers; true if the server listens and `external` is empty. */
  readonly discover?: boolean | undefined
  /** Message handlers of every peer. */
  readonly handlers?: H | undefined
  /** Options of every peer: user agent, services, pings and the like. */
  readonly peer?:
    | Omit<Peer.Options, "direction" | "handlers" | "network" | "requiredServices" | "remoteServices">
    | undefined
  /** Runs for each peer after its handshake, but not for feelers, and is interrupted when the peer ends. Failures are logged (Debug). */
  readonly onPeer?: ((connected: ConnectedPeer) => Effect.Effect<unknown, unknown, R>) | undefined
  /** The key of all random choices, 16 bytes, for tests that repeat a run; random. A known key lets attackers predict them. */
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
 * A dial for the caller failed, or its target is not valid. "inactive": the network is switched off. "ended": the server ended it first.
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
 * The functions of a running server. See `Server`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  /** The connected peers: those with a completed handshake. The oldest is first. */
  readonly peers: Effect.Effect<ReadonlyArray<ConnectedPeer>>
  /** The peers as `getpeerinfo` of Bitcoin Core prints them. */
  readonly peerInfo: Effect.Effect<ReadonlyArray<PeerInfo>>
  /** The server as `getnetworkinfo` of Bitcoin Core prints a node. */
  readonly networkInfo: Effect.Effect<NetworkInfo>
  /** The last 64 events, then new ones until the server ends. A slow reader misses the oldest events: the server does not wait. */
  readonly events: Stream.Stream<ServerEvent>
  /**
   * Waits until `count` peers that satisfy `where` are connected, and returns them. Without `where` all kinds count, also inbound and
   * addr-fetch. It is interrupted when the server ends.
   */
  readonly awaitPeers: (
    count: number,
    where?: (connected: ConnectedPeer) => boolean
  ) => Effect.Effect<ReadonlyArray<ConnectedPeer>>
  /** The `ConnectedPeer` of a peer, for handlers, which get only the peer. `undefined` when the peer has ended. */
  readonly find: (peer: Peer.Peer) => ConnectedPeer | undefined
  /** Adds a node to stay connected to. False if it was added before. Fails with `DialError` if the text is not an address or a host name. */
  readonly add: (target: string) => Effect.Effect<boolean, DialError>
  /** Removes an added node and ends its peer. False if it was not added. Fails with `DialError` as `add` does. */
  readonly remove: (target: string) => Effect.Effect<boolean, DialError>
  /** The added nodes with the state of their connections. */
  readonly added: Effect.Effect<ReadonlyArray<AddedNode>>
  /**
   * Dials once and waits for the handshake. It needs no slot of its kind ("manual" by default). The peer ends with the scope. Fails with
   * `DialError`.
   */
  readonly dialOnce: (
    target: string,
    kind?: "addr-fetch" | "block-relay-only" | "feeler" | "manual" | "outbound-full-relay"
  ) => Effect.Effect<ConnectedPeer, DialError, Scope.Scope>
  /** Ends the connections to an address ("1.2.3.4:8333"), or the one with this id. Returns how many there were. */
  readonly disconnect: (who: number | string, why?: string) => Effect.Effect<number>
  /**
   * Reports that a peer misbehaved. At 100 points the policy `Reputation.core` discourages its host and ends all connections of the
   * host. An unknown id is ignored.
   */
  readonly misbehaved: (id: number, points: number, why: string) => Effect.Effect<void>
  /** Reports that a peer sent a valid block or transaction that was new to us. The peers that did so last are protected from eviction. */
  readonly mark: (id: number, what: "block" | "transaction") => Effect.Effect<void>
  /** Bans and discouraged hosts. A ban ends the peers of its subnet. */
  readonly bans: BanList
  /** The address book. */
  readonly book: Book
  /** False ends all peers, and the server neither dials nor accepts (Bitcoin Core's `setnetworkactive`). True starts again. */
  readonly setNetworkActive: (isActive: boolean) => Effect.Effect<void>
  /** Whether the network is switched on. */
  readonly networkActive: Effect.Effect<boolean>
  /** Runs an Effect for each peer, all concurrently, and waits for all. Failures are ignored, because a peer may end meanwhile. */
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
 * An added node and the state of its connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface AddedNode {
  readonly target: string
  readonly connected: boolean
  /** Connections and failed dials since a connection last lived for two minutes. */
  readonly attempts: number
  /** When it is dialled next, in milliseconds of Unix time; undefined while it is dialled or connected. */
  readonly nextAttempt: number | undefined
  /** Why it cannot be dialled, if no way of the dialer leads to it. It is dialled again after `setNetworkActive`. */
  readonly unreachable: string | undefined
}
