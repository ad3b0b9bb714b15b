/** Keeps mappings of a port on routers: asks, renews, and tries again. `PortMap` has the sockets. */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Address from "../../Address.ts"
import { Dialogue, type Failure, type Granted, natPmpRequest, pcpRequest, type Request, tryTimeout } from "./pcp.ts"
import type { Random } from "./random.ts"

/**
 * Why a router does not map the port. It is asked again after 5 minutes.
 *
 * - `NoAnswer`: three packets were not answered. Most routers have port mapping switched off.
 * - `Refused`: the router's result. NO_RESOURCES usually means that another machine has the port.
 * - `LifetimeTooShort`: it would end within 30 seconds.
 * - `SocketFailed`: the packets could not be sent, or the router has no such service (ECONNREFUSED).
 *
 * @category errors
 * @since 0.1.0
 */
export type PortMapReason =
  | Failure
  | { readonly _tag: "LifetimeTooShort"; readonly seconds: number }
  | { readonly _tag: "SocketFailed"; readonly cause: unknown }

const describe = (reason: PortMapReason): string => {
  switch (reason._tag) {
    case "NoAnswer":
      return "no answer"
    case "Refused":
      return `${reason.protocol} refused: ${reason.name} (${reason.code})`
    case "LifetimeTooShort":
      return `the mapping would end after ${reason.seconds} s`
    case "SocketFailed":
      return reason.cause instanceof Error ? reason.cause.message : String(reason.cause)
  }
}

/**
 * A router does not map the port. It is asked again after 5 minutes.
 *
 * @category errors
 * @since 0.1.0
 */
export class PortMapError extends Data.TaggedError("PortMapError")<{
  /** The router, and our address on the way to it where it is one of several. */
  readonly router: string
  readonly reason: PortMapReason
}> {
  override get message(): string {
    return `the router ${this.router} does not map the port: ${describe(this.reason)}`
  }
}

/**
 * A port of a router, at which peers reach us.
 *
 * @category models
 * @since 0.1.0
 */
export interface Mapping {
  /** The address and port at which the rest of the world finds us. It is private where the router itself has a router. */
  readonly external: Address.Address
  /** The address and port on which we listen. */
  readonly internal: Address.Address
  readonly protocol: "PCP" | "NAT-PMP"
  /** How long the router keeps it without a renewal. */
  readonly lifetime: Duration.Duration
}

/**
 * The mappings that live, and the routers that refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  readonly mappings: ReadonlyArray<Mapping>
  readonly failures: ReadonlyArray<PortMapError>
}

/** Packets to and from one router. */
export interface Datagrams {
  /** Our address on the way to the router. */
  readonly internal: Address.Host
  readonly send: (bytes: Uint8Array) => Effect.Effect<void, unknown>
  readonly receive: Effect.Effect<Uint8Array, unknown>
}

/** A mapping that is wanted: at a router, for one of our addresses. */
export interface Link {
  /** The same for the same mapping, each time the links are looked up. */
  readonly name: string
  readonly open: Effect.Effect<Datagrams, unknown, Scope.Scope>
}

export interface Settings {
  /** The port on which we listen, and the one that is wanted outside. */
  readonly port: number
  readonly nonce: Uint8Array
  readonly random: Random
  /** The mappings that are wanted now. Looked up again every 5 minutes. */
  readonly links: Effect.Effect<ReadonlyArray<Link>>
  readonly onMapped: (mapping: Mapping) => Effect.Effect<unknown, never, Scope.Scope>
}

/** Seconds that are asked for: twice the 20 minutes after which Core renews. */
const lifetimeWanted = 2_400
const shortestLifetime = 30
const retryPeriod = 300_000

const socketFailed = (cause: unknown): PortMapReason => ({ _tag: "SocketFailed", cause })

/** Runs one request over an open socket. */
const ask = Effect.fnUntraced(function* (
  datagrams: Datagrams,
  request: Request
): Effect.fn.Return<Granted, PortMapReason> {
  const dialogue = new Dialogue(request)
  const clock = yield* Clock.Clock
  let step = dialogue.next()
  let deadline = 0
  while (true) {
    switch (step._tag) {
      case "Granted":
        return step.granted.lifetime < shortestLifetime
          ? yield* Effect.fail<PortMapReason>({ _tag: "LifetimeTooShort", seconds: step.granted.lifetime })
          : step.granted
      case "Failed":
        return yield* Effect.fail(step.failure)
      case "Send":
        yield* Effect.mapError(datagrams.send(step.bytes), socketFailed)
        deadline = clock.currentTimeMillisUnsafe() + tryTimeout
        break
      case "Wait":
    }
    // Packets that are not answers do not make a try longer.
    const left = deadline - clock.currentTimeMillisUnsafe()
    const arrived =
      left > 0 ? yield* Effect.timeoutOption(Effect.mapError(datagrams.receive, socketFailed), left) : undefined
    step = arrived?._tag === "Some" ? dialogue.receive(arrived.value) : dialogue.next()
  }
})

/** A mapping in force, with the scope of `onMapped`. */
interface Live {
  readonly mapping: Mapping
  readonly scope: Scope.Closeable
  expiresAt: number
}

/** Keeps the mappings of all links as long as the scope lives, and releases them at its end. */
export const keepMappings = Effect.fnUntraced(function* (
  settings: Settings
): Effect.fn.Return<
  { readonly status: Effect.Effect<Status>; readonly changes: Stream.Stream<Status> },
  never,
  Scope.Scope
> {
  const { links, nonce, onMapped, port, random } = settings
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const lives = new Map<string, Live>()
  const failures = new Map<string, PortMapError>()
  const status = yield* SubscriptionRef.make<Status>({ mappings: [], failures: [] })
  const publish = Effect.suspend(() =>
    SubscriptionRef.set(status, {
      mappings: Array.from(lives.values(), ({ mapping }) => mapping),
      failures: Array.from(failures.values())
    })
  )
  const drop = (name: string) =>
    Effect.suspend(() => {
      const live = lives.get(name)
      lives.delete(name)
      return live === undefined ? Effect.void : Scope.close(live.scope, Exit.void)
    })

  /** Takes a grant of the router: renews the mapping if it is the same, else replaces it. */
  const take = Effect.fnUntraced(function* (name: string, internal: Address.Host, granted: Granted) {
    const { external, lifetime, protocol } = granted
    failures.delete(name)
    const expiresAt = now() + lifetime * 1_000
    const live = lives.get(name)
    if (live !== undefined && Address.format(live.mapping.external) === Address.format(external)) {
      live.expiresAt = expiresAt
      return yield* publish
    }
    yield* drop(name)
    const mapping: Mapping = {
      external,
      internal: { ...internal, port },
      protocol,
      lifetime: Duration.seconds(lifetime)
    }
    const scope = Scope.makeUnsafe()
    lives.set(name, { mapping, scope, expiresAt })
    if (Address.isRoutable(external)) yield* Scope.provide(onMapped(mapping), scope)
    yield* publish
  })

  /** Asks once. Returns the milliseconds until the next time. */
  const round = ({ name, open }: Link): Effect.Effect<number> =>
    Effect.scoped(
      Effect.gen(function* () {
        // A mapping lives on without a renewal until its lifetime ends.
        if ((lives.get(name)?.expiresAt ?? Infinity) <= now()) yield* Effect.andThen(drop(name), publish)
        const datagrams = yield* Effect.mapError(open, socketFailed)
        const { internal } = datagrams
        const granted = yield* ask(datagrams, { nonce, internal, port, lifetime: lifetimeWanted })
        yield* take(name, internal, granted)
        // RFC 6887 11.2.1: at a random time from 1/2 to 5/8 of the lifetime.
        return granted.lifetime * 1_000 * (1 / 2 + random.next() / 8)
      })
    ).pipe(
      Effect.catch((reason) =>
        Effect.gen(function* () {
          failures.set(name, new PortMapError({ router: name, reason }))
          yield* publish
          return Math.min(retryPeriod, (lives.get(name)?.expiresAt ?? Infinity) - now())
        })
      )
    )

  /** Tells the router that the port is not needed any more, once and without waiting for an answer. */
  const release = ({ name, open }: Link) =>
    Effect.suspend(() => {
      const live = lives.get(name)
      if (live === undefined) return Effect.void
      const encode = live.mapping.protocol === "PCP" ? pcpRequest : natPmpRequest
      const request: Request = { nonce, internal: live.mapping.internal, port, lifetime: 0 }
      return Effect.ignore(Effect.scoped(Effect.flatMap(open, ({ send }) => send(encode(request)))))
    })

  const keep = (link: Link) =>
    Effect.forever(Effect.flatMap(round(link), (wait) => Effect.sleep(Math.max(1, Math.ceil(wait))))).pipe(
      Effect.onExit(() =>
        Effect.gen(function* () {
          yield* release(link)
          yield* drop(link.name)
          failures.delete(link.name)
          yield* publish
        })
      )
    )

  const fibers = yield* FiberMap.make<string>()
  const look = Effect.gen(function* () {
    const wanted = yield* links
    const names = new Set(wanted.map(({ name }) => name))
    for (const [name] of Array.from(fibers)) if (!names.has(name)) yield* FiberMap.remove(fibers, name)
    for (const link of wanted) yield* FiberMap.run(fibers, link.name, keep(link), { onlyIfMissing: true })
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(look, Effect.sleep(retryPeriod))), { startImmediately: true })
  return { status: SubscriptionRef.get(status), changes: SubscriptionRef.changes(status) }
})
