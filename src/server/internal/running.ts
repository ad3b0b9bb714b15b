/** The connections of a server, with what its parts keep for each of them. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Address from "../../Address.ts"
import type * as Peer from "../../Peer.ts"
import type * as Wire from "../../Wire.ts"
import type { Permissions } from "../Permissions.ts"
import type { Tracked } from "../Reputation.ts"
import type { Ticket } from "./gate.ts"
import type { ConnectedPeer, DialError } from "./model.ts"
import { type NetworkName, networkNameOf } from "./networkNames.ts"
import type { Entry } from "./registry.ts"

/** A connection from the moment its slot is taken. */
export interface Running {
  readonly entry: Entry
  /** Where an inbound connection came in. */
  readonly pool: Pool | undefined
  permissions: Permissions
  /** The caller of `dialOnce`. */
  readonly waiter: Deferred.Deferred<ConnectedPeer, DialError> | undefined
  /** The handshake of an inbound connection, while it lasts. */
  readonly ticket: Ticket | undefined
  /** Whether an inbound peer was discouraged when it came: it is evicted first. */
  readonly isDiscouraged: boolean
  /** Set once the handshake is completed. */
  connected: ConnectedPeer | undefined
  tracked: Tracked | undefined
  /** Messages about addresses that came before the handshake was completed here. */
  early: Array<Wire.Message> | undefined
  /** Our address, as the version message of the remote has it. */
  addressLocal: Address.Address | undefined
  /** Milliseconds of the last block and transaction that were new here; 0 before the first one. */
  lastBlock: number
  lastTransaction: number
}

/** The inbound slots of one bind. */
export interface Pool {
  readonly network: NetworkName
  readonly slots: number
  readonly bindPermissions: Permissions | "implicit" | undefined
}

/** Shared by most connections. */
const noPermissions: Permissions = new Set()

export const makeRunning = (entry: Entry, more: Partial<Running> = {}): Running => ({
  entry,
  pool: undefined,
  permissions: noPermissions,
  waiter: undefined,
  ticket: undefined,
  isDiscouraged: false,
  connected: undefined,
  tracked: undefined,
  early: undefined,
  addressLocal: undefined,
  lastBlock: 0,
  lastTransaction: 0,
  ...more
})

/** The privacy network of the daemon that an inbound connection came through: the address is then that of this daemon. */
export const hiddenNetwork = ({ pool }: Running): "i2p" | "onion" | undefined =>
  pool?.network === "onion" || pool?.network === "i2p" ? pool.network : undefined

/** The network that a connection came through. */
export const networkOf = (one: Running): NetworkName =>
  hiddenNetwork(one) ?? (one.entry.address === undefined ? "not_publicly_routable" : networkNameOf(one.entry.address))

export class Connections extends Map<number, Running> {
  readonly #interrupt: (id: number) => Effect.Effect<void>
  #change = Deferred.makeUnsafe<void>()
  readonly #byPeer = new WeakMap<Peer.Peer, Running>()

  /** `interrupt` ends an attempt that has no peer yet. */
  constructor(interrupt: (id: number) => Effect.Effect<void>) {
    super()
    this.#interrupt = interrupt
  }

  /** The next change of the peers. Take it before you look at them, and wait for it after: no change is missed in between. */
  get nextChange(): Effect.Effect<void> {
    return Deferred.await(this.#change)
  }

  /** Whether no peer comes any more, because the server has ended. */
  haveEnded = false

  /** Call it when a peer came or went. */
  changed(): void {
    const change = this.#change
    this.#change = Deferred.makeUnsafe()
    Deferred.doneUnsafe(change, Effect.void)
  }

  /** The peers whose handshakes are completed and that are not ending. */
  get peers(): ReadonlyArray<ConnectedPeer> {
    const peers: Array<ConnectedPeer> = []
    for (const { connected, entry } of this.values()) {
      if (connected !== undefined && !entry.isEnding) peers.push(connected)
    }
    return peers
  }

  /** Remembers the peer of a connection whose handshake is completed. */
  connected(one: Running, connected: ConnectedPeer): void {
    one.connected = connected
    this.#byPeer.set(connected.peer, one)
  }

  /** The connection of a peer that is not ending. Handlers ask for each message, so all others are not looked at. */
  find(peer: Peer.Peer): ConnectedPeer | undefined {
    const one = this.#byPeer.get(peer)
    return one === undefined || one.entry.isEnding || !this.has(one.entry.id) ? undefined : one.connected
  }

  /** Begins the end of a connection. */
  end(one: Running, why: string | Peer.OwnerReason): Effect.Effect<void> {
    return Effect.suspend(() => {
      one.entry.isEnding = true
      return one.connected === undefined ? this.#interrupt(one.entry.id) : one.connected.peer.disconnect(why)
    })
  }

  endAll(which: (one: Running) => boolean, why: string | Peer.OwnerReason): Effect.Effect<number> {
    return Effect.suspend(() => {
      const ends = [...this.values()].filter(which)
      return Effect.as(
        Effect.forEach(ends, (one) => this.end(one, why), { concurrency: "unbounded", discard: true }),
        ends.length
      )
    })
  }
}
