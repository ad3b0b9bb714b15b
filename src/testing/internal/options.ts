/** The options of a simulated network, its hosts and what connects them. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type { SecureRandom } from "effect/crypto"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Address from "../../Address.ts"
import type { Connection } from "../../Connection.ts"
import type { ConnectionError, Endpoint } from "../../ConnectionError.ts"
import type * as Nonce from "../../Nonce.ts"
import type * as PeerServer from "../../PeerServer.ts"

/**
 * The link between two hosts.
 *
 * @category options
 * @since 0.1.0
 */
export interface LinkOptions {
  /** One-way delay of a packet; 50 ms by default. With limits, each pair of hosts draws its latency between them. */
  readonly latency?: Duration.Input | { readonly minimum: Duration.Input; readonly maximum: Duration.Input } | undefined
  /** Bytes per second in each direction, shared by all connections of two hosts. No limit by default. */
  readonly bandwidth?: number | undefined
  /** Mean lifetime of a connection, exponentially distributed: then it is reset at both ends. Unlimited by default. */
  readonly lifetime?: Duration.Input | undefined
}

/**
 * The options of a network.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The same seed gives the same run; 0 by default. */
  readonly seed?: number | string | undefined
  /** The link between any two hosts that `setLink` does not name. */
  readonly link?: LinkOptions | undefined
  /** How long a dial waits for a host that does not answer; 5 s by default. */
  readonly connectTimeout?: Duration.Input | undefined
  /**
   * How long a connection with undelivered bytes survives a cut; 15 min by default, as on Linux. Then both ends are reset.
   */
  readonly retransmitTimeout?: Duration.Input | undefined
  /**
   * How long `close` of a connection waits for the other end. By default it does not wait, because the Clock may stand still; the bytes
   * and the end still arrive.
   */
  readonly closeTimeout?: Duration.Input | undefined
  /** Bytes that each direction of a connection holds, in transit or unread; 64 KiB by default. */
  readonly window?: number | undefined
  /** How many of the last events are kept; 1,000 by default. */
  readonly maximumEvents?: number | undefined
  /** Whether every arrival of bytes is an event; true by default. It costs about 1 µs and a nanosecond for each byte. */
  readonly traceBytes?: boolean | undefined
}

/**
 * A host of the network.
 *
 * @category options
 * @since 0.1.0
 */
export interface HostOptions {
  /** The name in events; the first address by default. It cannot be dialled: for host names see `setName`. */
  readonly name?: string | undefined
  /**
   * Addresses, or their texts with port 8333 by default. If left out, the host gets an IPv4 address in a /16 of its own.
   */
  readonly addresses?: NonEmptyReadonlyArray<Address.Address | string> | undefined
  /**
   * Networks that the host dials through a proxy, without an address in them: Tor and I2P, by `Address.NetworkId`. The remote sees
   * 127.0.0.1, as an onion service does.
   */
  readonly proxied?: ReadonlyArray<number> | undefined
}

/**
 * The options of `Host.listen`.
 *
 * @category options
 * @since 0.1.0
 */
export interface ListenOptions {
  /** The addresses to listen on, each with its port; all addresses of the host by default. */
  readonly addresses?: NonEmptyReadonlyArray<Address.Address | string> | undefined
  /** Connections that wait for `accept`; 128 by default. Further dials get no answer until there is room. */
  readonly backlog?: number | undefined
}

/**
 * A listener of a host.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener extends PeerServer.Listener {
  /** The first address. */
  readonly address: Endpoint
}

/**
 * A target of a dial: an address, or a host name or address as text with a port.
 *
 * @category models
 * @since 0.1.0
 */
export type Target = Address.Address | Endpoint

/**
 * A machine in the network.
 *
 * @category models
 * @since 0.1.0
 */
export interface Host {
  readonly name: string
  readonly addresses: NonEmptyReadonlyArray<Address.Address>
  /**
   * Connects, in the scope of the caller, as `NodeConnection.connect` does. Fails with `DialFailed`: `HostNotFound` for an unknown name,
   * `Refused` without a listener, `Timeout` without an answer (no such host, a cut, a full backlog), `Unreachable` for a network that this
   * host is not in, `NeedsProxy` for Tor and I2P without a proxy, and `BadPort`. It does not use `this`.
   */
  readonly dial: (target: Target) => Effect.Effect<Connection, ConnectionError, Scope.Scope>
  /**
   * Listens until the scope ends, as `NodeConnection.listen` does. Fails with `ListenFailed`: `AddressInUse` or `AddressNotAvailable`.
   */
  readonly listen: (options?: ListenOptions) => Effect.Effect<Listener, ConnectionError, Scope.Scope>
  /**
   * Nonces and random bytes for the peers of this host, from the seed, also for the garbage of BIP324. Two hosts must not share a `Nonce`:
   * they would detect connections to each other as self-connections. The keys of BIP324 are the platform's, not from the seed.
   */
  readonly layer: Layer.Layer<Nonce.Nonce | SecureRandom.SecureRandom>
}
