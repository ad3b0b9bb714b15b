/** Address relay for the peers of a server: hands their messages to the machine, and sends what it decides. */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Wire from "../../Wire.ts"
import type { AddressRelay, RelayCounters } from "./addressRelay.ts"
import type { Conduct } from "./conduct.ts"
import type { Connections, Running } from "./running.ts"

export interface RelayingOptions {
  readonly relay: AddressRelay
  readonly connections: Connections
  readonly conduct: Conduct
  readonly runFork: (effect: Effect.Effect<unknown>) => void
  readonly now: () => number
}

/** Messages about addresses that may come before the handshake is completed on this side. */
const mostEarly = 16
/** The machine is asked at most once in this time. */
const shortestSleep = 100

export class Relaying {
  readonly #options: RelayingOptions
  readonly #changed = Latch.makeUnsafe()

  constructor(options: RelayingOptions) {
    this.#options = options
  }

  /** Begins with a peer whose handshake is completed. Returns whether to send it a `getaddr`. */
  ready(one: Running): boolean {
    const { relay } = this.#options
    const { connected, early, entry, permissions } = one
    const asks = relay.add({
      id: entry.id,
      kind: entry.kind,
      host: connected!.address,
      permissions,
      wantsV2: connected!.peer.info.addrV2,
      connectedAt: connected!.connectedAt
    })
    one.early = undefined
    for (const message of early ?? []) this.received(one, message)
    this.#changed.openUnsafe()
    return asks
  }

  /** A message of a remote. Others than those about addresses are ignored. */
  received(one: Running, message: Wire.Message): void {
    if (message._tag !== "addr" && message._tag !== "addrv2" && message._tag !== "getaddr") return
    if (one.connected === undefined) {
      one.early ??= []
      if (one.early.length < mostEarly) one.early.push(message)
      return
    }
    const { conduct, connections, now, relay, runFork } = this.#options
    const { id } = one.entry
    if (message._tag === "getaddr") relay.getaddr(id, now())
    else {
      const taken = relay.received(id, message, now())
      if (taken._tag === "Misbehaved") conduct.judge(one, { by: "remote", retry: false, points: 100 }, taken.problem)
      if (taken._tag === "Taken" && taken.isDone) runFork(connections.end(one, "it has sent addresses"))
    }
    this.#changed.openUnsafe()
  }

  ended(id: number): void {
    this.#options.relay.remove(id)
  }

  counters(id: number): RelayCounters | undefined {
    return this.#options.relay.counters(id)
  }

  /** Sends what is due, for ever. */
  get loop(): Effect.Effect<never> {
    const { connections, now, relay, runFork } = this.#options
    const turn = Effect.suspend(() => {
      this.#changed.closeUnsafe()
      for (const { addresses, id } of relay.tick(now())) {
        const peer = connections.get(id)?.connected?.peer
        if (peer !== undefined) runFork(Effect.ignore(peer.sendAddresses(addresses)))
      }
      const wait = relay.next() - now()
      return Effect.andThen(
        Number.isFinite(wait)
          ? Effect.raceFirst(this.#changed.await, Effect.sleep(Math.max(0, wait)))
          : this.#changed.await,
        Effect.sleep(shortestSleep)
      )
    })
    return Effect.forever(turn)
  }
}
