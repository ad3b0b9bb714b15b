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
 * What lies between two hosts.
 *
 * @category options
 * @since 0.1.0
 */
export interface LinkOptions {
  /** The time of a packet in one direction; 50 ms by default. With two limits each pair of hosts draws one between them. */
  readonly latency?: Duration.Input | { readonly minimum: Duration.Input; readonly maximum: Duration.Input } | undefined
  /** Bytes in a second in each direction, for all connections of two hosts together. No limit by default. */
  readonly bandwidth?: number | undefined
  /** The mean time after which a connection is lost: it is reset at both ends. The times are exponential. Never by default. */
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
   * How long a connection lives while nothing that it sends arrives, because the path is cut; 15 min by default, as on Linux. Then both
   * ends are reset.
   */
  readonly retransmitTimeout?: Duration.Input | undefined
  /**
   * How long `close` of a connection waits for the other end. By default it does not wait, so that nothing waits for a Clock that does
   * not move; bytes and end arrive all the same.
   */
  readonly closeTimeout?: Duration.Input | undefined
  /** How many bytes each direction of a connection holds, on their way or not read yet; 64 KiB by default. */
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
  /** The name in events; the first address by default. It is no name of DNS: see `setName`. */
  readonly name?: string | undefined
  /**
   * Addresses, or their texts, whose port is 8333 if they name none. By default one IPv4 address of a /16 in which no other host is.
   */
  readonly addresses?: NonEmptyReadonlyArray<Address.Address | string> | undefined
  /**
   * The networks that the host can dial without an address in them, through a proxy of its own: Tor and I2P, by `Address.NetworkId`. The
   * remote then sees 127.0.0.1, as behind an onion service.
   */
  readonly proxied?: ReadonlyArray<number> | undefined
}

/**
 * How a host listens.
 *
 * @category options
 * @since 0.1.0
 */
export interface ListenOptions {
  /** The addresses to listen on, each with its port; all addresses of the host by default. */
  readonly addresses?: NonEmptyReadonlyArray<Address.Address | string> | undefined
  /** How many connections wait for an `accept`; 128 by default. A dial above that gets no answer until there is room. */
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
 * What can be dialled: an address, or a name or address as text with a port.
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
   * `Refused` where nobody listens, `Timeout` where nobody answers (no such host, a cut, a full backlog), `Unreachable` for a network
   * that this host is not in, `NeedsProxy` for Tor and I2P without it, and `BadPort`.
   *
   * A function of its own, which can be passed on.
   */
  readonly dial: (target: Target) => Effect.Effect<Connection, ConnectionError, Scope.Scope>
  /**
   * Listens until the scope ends, as `NodeConnection.listen` does. Fails with `ListenFailed`: `AddressInUse` or `AddressNotAvailable`.
   */
  readonly listen: (options?: ListenOptions) => Effect.Effect<Listener, ConnectionError, Scope.Scope>
  /**
   * Nonces, random bytes, and what hides a key exchange (BIP324), all from the seed, for the peers of this host. Two hosts must not share
   * a `Nonce`: each would take the other one for itself. The keys of a key exchange are the platform's.
   */
  readonly layer: Layer.Layer<Nonce.Nonce | SecureRandom.SecureRandom>
}
