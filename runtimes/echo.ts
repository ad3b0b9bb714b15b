/** The other side of the conformance program: peers that send back what they receive. */
import { Effect } from "effect"
import { type Connection, Network, Nonce, type Peer, PeerServer, Wire } from "effect-bitcoin-peer"
import type * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

export const network = Network.regtest
export const services = Wire.Service.network | Wire.Service.witness

/** Its payload, `PORT TRANSPORT`, asks the node to dial this port with this transport. */
export const inviteCommand = "invite"

export const isSame = (one: Uint8Array, other: Uint8Array): boolean =>
  one.length === other.length && one.every((byte, index) => byte === other[index])

/** A message with a payload of this size. Each 256 bytes differ from the ones before them. */
export const big = (size: number): Wire.Unknown => ({
  _tag: "Unknown",
  command: "big",
  payload: Uint8Array.from({ length: size }, (_, index) => (index * 31 + (index >> 8)) & 0xff)
})

export const handlers: Peer.Handlers = {
  Unknown: (message, peer) => (message.command === "big" ? peer.send(message) : undefined)
}

/** Accepts peers until it is interrupted. */
export const echo = (
  listener: NodeConnection.Listener,
  onInvite?: (port: number, transport: "v1" | "v2") => Effect.Effect<unknown>
): Effect.Effect<never, Connection.ConnectionError> =>
  PeerServer.serve(listener, {
    peer: {
      network,
      services,
      handlers: {
        Unknown: (message, peer) => {
          if (message.command !== inviteCommand) return peer.send(message)
          const [port, transport] = new TextDecoder().decode(message.payload).split(" ")
          return onInvite?.(Number(port), transport === "v1" ? "v1" : "v2")
        }
      }
    }
  }).pipe(Effect.provide(Nonce.layer))
