/**
 * Simulates two peers in virtual time over a connection that delays, splits and cuts, and checks the rules that hold in
 * every schedule. All randomness comes from one seed: the same seed gives the same run.
 */
import { Cause, Effect, Exit, Fiber, Random, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { Connection, type Handshake, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { dice } from "./dice.ts"
import { fork, network, tracked } from "./peers.ts"

/** A `Nonce` service of its own, from a seed. */
export const seededNonces = (seed: number) => {
  const own = dice(seed)
  return Nonce.make().pipe(
    Effect.provideService(
      SecureRandom.SecureRandom,
      SecureRandom.make((size) => own.bytes(size))
    )
  )
}

/** A message with an id and an order to its receiver: 0 do nothing, 1 answer, 2 disconnect. */
export const numbered = (id: number, size: number, order = 0): Wire.Message => {
  const payload = new Uint8Array(5 + size)
  new DataView(payload.buffer).setUint32(0, id)
  payload[4] = order
  return { _tag: "Unknown", command: "numbered", payload }
}

export const idOf = ({ payload }: Wire.Unknown): number =>
  new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getUint32(0)

export const keyOf = (message: Wire.Message): string => {
  switch (message._tag) {
    case "Unknown":
      return `#${idOf(message)}`
    case "ping":
    case "pong":
      return `${message._tag} ${message.nonce! % 10_000n}`
    case "inv":
    case "getdata":
    case "notfound":
      return `${message._tag} ${message.items.length} ${message.items.at(0)?.hash[0]}`
    default:
      return message._tag
  }
}

type AnyPeer = Peer.Peer

interface Asker {
  readonly what: string
  readonly id: number | undefined
  readonly fiber: Fiber.Fiber<unknown, Peer.PeerError>
  interrupted: boolean
  outcomes: number
}

interface Side {
  readonly name: "A" | "B"
  readonly scope: Scope.Closeable
  readonly tracker: ReturnType<typeof tracked>
  readonly making: Fiber.Fiber<AnyPeer, Handshake.HandshakeError>
  readonly written: Array<string>
  readonly parsed: Array<string>
  readonly handled: Array<string>
  readonly askers: Array<Asker>
  readonly shutdowns: Array<Fiber.Fiber<Peer.EndReason>>
}

export interface Report {
  readonly trace: ReadonlyArray<string>
  readonly problems: ReadonlyArray<string>
  /** Messages that one side wrote before a graceful close and the other did not handle. */
  readonly lost: ReadonlyArray<string>
  readonly ends: readonly [string, string]
}

const hash = (number: number): Uint8Array => new Uint8Array(32).fill(number)

/** Yields up to 2,000 times until `isDone`; takes no virtual time. */
export const untilIdle = Effect.fnUntraced(function* (isDone: () => boolean) {
  for (let turn = 0; turn < 2_000 && !isDone(); turn++) yield* Effect.yieldNow
})

const isPrefix = (part: ReadonlyArray<string>, whole: ReadonlyArray<string>): boolean =>
  part.length <= whole.length && part.every((key, index) => key === whole[index])

export const show = (list: ReadonlyArray<string>): string =>
  `[${list.length > 20 ? `… ${list.length - 20} more, ` : ""}${list.slice(-20).join(", ")}]`

/** Without pings and pongs, which peers send at any time. */
const withoutPings = (list: ReadonlyArray<string>): string => list.filter((key) => !/^p[io]ng/.test(key)).join()

/** Runs one schedule. A correct run has no `problems`. */
export const simulate = Effect.fnUntraced(
  function* (seed: number) {
    const random = dice(seed)
    const trace: Array<string> = []
    const problems: Array<string> = []
    const lost: Array<string> = []

    const delay = random.pick([0, 0, 1, 20, 100])
    const window = random.pick([delay === 0 ? 1 : 40, 100, 1_000, 65_536, 65_536])
    const split = random.chance(0.5)
      ? undefined
      : ([1, 24, 300, 5].map((size) => 1 + random.below(size * 2)) as [number])
    const cutAfter: [number | undefined, number | undefined] = [
      random.chance(0.2) ? random.below(2_000) : undefined,
      random.chance(0.2) ? random.below(2_000) : undefined
    ]
    const closeTimeout = random.chance(0.3) ? 500 : undefined
    trace.push(JSON.stringify({ delay, window, split, cutAfter, closeTimeout }))
    const pair = yield* Connection.makePair({ delay, window, split, cutAfter, closeTimeout })

    let ids = 0
    let wasReset = false
    /** Sides that end on purpose: they need not handle messages that arrive before the other side's end. */
    const leaving = new Set<"A" | "B">()
    const mayStall = random.chance(0.2)
    const policies = random.chance(0.1)

    const start = Effect.fnUntraced(function* (name: "A" | "B") {
      const index = name === "A" ? 0 : 1
      const scope = yield* Scope.make()
      const tracker = tracked(pair[index])
      const written: Array<string> = []
      const parsed: Array<string> = []
      const handled: Array<string> = []
      const isSlow = random.chance(0.3)
      const answersInHandler = name === "B"
      const answersData = !mayStall || random.chance(0.5)
      let hasPaused = false
      const timing = {
        maximumQueuedBytes: random.pick([1, 200, 2_000, 1 << 20]),
        pingInterval: random.pick([3_000, 20_000, 120_000]),
        pingTimeout: policies ? 5_000 : 1_200_000,
        idleTimeout: policies ? 7_000 : 1_200_000
      }
      trace.push(`${name} ${JSON.stringify({ ...timing, isSlow, answersData })}`)
      const answer = (peer: AnyPeer, message: () => Wire.Message) => {
        const sending = Effect.ignore(Effect.suspend(() => peer.send(message())))
        return answersInHandler ? sending : Effect.forkIn(sending, peer.scope)
      }
      const options: Peer.Options<Peer.Handlers> = {
        network,
        direction: name === "A" ? "outbound" : "inbound",
        requiredServices: [],
        ...timing,
        trickle: random.chance(0.5) ? undefined : { _tag: "Fixed", interval: 100 },
        onWrite: (message) => void written.push(keyOf(message)),
        onRead: (event) => {
          if (event._tag === "Received") parsed.push(keyOf(event.message))
          else problems.push(`${name} dropped a message: ${event.error.message}`)
        },
        handlers: {
          Unknown: (message, peer) => {
            const act = Effect.suspend((): Effect.Effect<unknown> => {
              handled.push(keyOf(message))
              if (message.payload[4] === 1) return answer(peer, () => numbered(++ids, 10))
              if (message.payload[4] === 2) {
                leaving.add(name)
                return Effect.andThen(peer.disconnect("told to"), peer.awaitShutdown)
              }
              return Effect.void
            })
            return isSlow ? Effect.andThen(Effect.sleep(7), act) : act
          },
          getdata: ({ items }, peer) => {
            if (answersData) return answer(peer, () => ({ _tag: "notfound", items: Array.from(items) }))
            // Later messages, including pings, wait for this handler: the other side sees a stall.
            const pause = hasPaused ? undefined : Effect.sleep("50 seconds")
            hasPaused = true
            return pause
          },
          getheaders: (_, peer) => (answersData ? answer(peer, () => ({ _tag: "headers", headers: [] })) : undefined)
        }
      }
      const nonces = yield* seededNonces(seed * 2 + index)
      const making = yield* Peer.make(tracker.connection, options).pipe(
        Scope.provide(scope),
        tracker.clock,
        Effect.provideService(Nonce.Nonce, nonces),
        fork
      )
      return { name, scope, tracker, making, written, parsed, handled, askers: [], shutdowns: [] }
    })
    const a: Side = yield* start("A")
    const b: Side = yield* start("B")
    const sides = [a, b] as const
    const peerOf = (side: Side): AnyPeer | undefined => {
      const exit = side.making.pollUnsafe()
      return exit !== undefined && Exit.isSuccess(exit) ? exit.value : undefined
    }

    const ask = Effect.fnUntraced(function* (
      side: Side,
      what: string,
      id: number | undefined,
      effect: Effect.Effect<unknown, Peer.PeerError>
    ) {
      trace.push(`${side.name} ${what} ${id ?? ""}`)
      let asker: Asker | undefined
      let early = 0
      const fiber = yield* fork(
        Effect.onExit(effect, () =>
          Effect.sync(() => {
            if (asker === undefined) early++
            else asker.outcomes++
          })
        )
      )
      asker = { what, id, fiber, interrupted: false, outcomes: early }
      side.askers.push(asker)
    })

    const size = () => random.pick([0, 3, 60, 400])
    const act = Effect.fnUntraced(function* () {
      const side = random.pick(sides)
      const peer = peerOf(side)
      const kind = random.below(100)
      if (kind < 30) {
        const millis = random.pick([0, 1, 1, 20, 20, 100, 1_000, 5_000])
        trace.push(`${millis} ms pass`)
        yield* TestClock.adjust(millis)
      } else if (kind < 32) {
        trace.push(`${side.name} closes its scope`)
        leaving.add(side.name)
        yield* fork(Scope.close(side.scope, Exit.void))
      } else if (kind < 33) {
        trace.push("reset")
        wasReset = true
        yield* pair.reset()
      } else if (peer === undefined) {
        if (kind === 33) {
          trace.push(`${side.name} is interrupted in its handshake`)
          yield* fork(Fiber.interrupt(side.making))
        } else yield* TestClock.adjust(delay)
      } else if (kind < 45) {
        const id = ++ids
        yield* ask(side, "send", id, peer.send(numbered(id, size(), random.below(2))))
      } else if (kind < 62) {
        const id = ++ids
        yield* ask(side, "sendAndWait", id, peer.sendAndWait(numbered(id, size(), random.below(2))))
      } else if (kind < 69) yield* ask(side, "ping", undefined, peer.ping)
      else if (kind < 73) {
        const type = random.pick([Wire.InventoryType.block, Wire.InventoryType.wtx])
        yield* ask(side, "announce", undefined, peer.announce([{ type, hash: hash(random.below(200)) }]))
      } else if (kind < 79) {
        const items = Array.from({ length: 1 + random.below(3) }, () => ({
          type: Wire.InventoryType.block,
          hash: hash(random.below(8))
        }))
        yield* ask(side, "getData", undefined, peer.getData(items, { timeout: random.pick([100, 20_000]) }))
      } else if (kind < 82) {
        yield* ask(
          side,
          "getHeaders",
          undefined,
          peer.getHeaders([hash(random.below(4))], undefined, { timeout: 20_000 })
        )
      } else if (kind < 84) {
        yield* ask(
          side,
          "getBlocks",
          undefined,
          peer.getBlocks([hash(random.below(4))], undefined, { timeout: 20_000 })
        )
      } else if (kind < 87) {
        yield* ask(
          side,
          "not sendable",
          undefined,
          peer.sendAndWait({ _tag: "Unknown", command: "a".repeat(13), payload: hash(0) })
        )
      } else if (kind < 92) {
        const open = side.askers.filter(({ fiber }) => fiber.pollUnsafe() === undefined)
        if (open.length > 0) {
          const asker = random.pick(open)
          trace.push(`${side.name} interrupts ${asker.what} ${asker.id ?? ""}`)
          asker.interrupted = true
          yield* fork(Fiber.interrupt(asker.fiber))
        }
      } else if (kind < 95) side.shutdowns.push(yield* fork(peer.awaitShutdown))
      else if (kind < 96) {
        trace.push(`${side.name} disconnects`)
        leaving.add(side.name)
        yield* peer.disconnect("by schedule")
      } else if (kind < 97) {
        const id = ++ids
        yield* ask(side, "send (leave!)", id, peer.send(numbered(id, 0, 2)))
      } else {
        const burst = 2 + random.below(6)
        for (let index = 0; index < burst; index++) {
          const id = ++ids
          yield* ask(side, "sendAndWait", id, peer.sendAndWait(numbered(id, size())))
        }
      }
    })

    const actions = 8 + random.below(25)
    for (let index = 0; index < actions; index++) yield* act()

    const settled = (side: Side): boolean => side.askers.every(({ fiber }) => fiber.pollUnsafe() !== undefined)
    const ended = (side: Side): boolean => side.shutdowns.some((fiber) => fiber.pollUnsafe() !== undefined)

    // ---- while both are connected: after enough time every call has its answer and every written message has arrived
    for (const side of sides) {
      const peer = peerOf(side)
      if (peer !== undefined) side.shutdowns.push(yield* fork(peer.awaitShutdown))
    }
    const mayRest = random.chance(0.5)
    if (mayRest) {
      trace.push("all rests")
      yield* TestClock.adjust("1 minute")
      const arrived = () =>
        withoutPings(a.written) === withoutPings(b.parsed) && withoutPings(b.written) === withoutPings(a.parsed)
      yield* untilIdle(() => sides.every(ended) || (sides.every(settled) && arrived()))
      if (sides.every((side) => peerOf(side) !== undefined && !ended(side))) {
        for (const side of sides) {
          for (const { fiber, id, what } of side.askers) {
            if (fiber.pollUnsafe() === undefined) problems.push(`${side.name}: ${what} ${id ?? ""} was never answered`)
          }
        }
        for (const [from, to] of [
          [a, b],
          [b, a]
        ] as const) {
          if (withoutPings(from.written) !== withoutPings(to.parsed)) {
            problems.push(`at rest ${to.name} has received only ${show(to.parsed)} of ${show(from.written)}`)
          }
        }
      }
    }

    // ---- the end
    {
      const how = random.below(6)
      const one = random.pick(sides)
      const other = one === a ? b : a
      trace.push(
        `the end: ${["disconnect", "disconnect", "both disconnect", "scope", "both scopes", "reset"][how]} ${one.name}`
      )
      if (how < 3) {
        for (const side of how === 2 ? [one, other] : [one]) {
          leaving.add(side.name)
          const peer = peerOf(side)
          if (peer === undefined) yield* fork(Fiber.interrupt(side.making))
          else yield* peer.disconnect("the end")
        }
      } else if (how < 5) {
        for (const side of how === 4 ? [one, other] : [one]) {
          leaving.add(side.name)
          yield* fork(Scope.close(side.scope, Exit.void))
        }
      } else {
        wasReset = true
        yield* pair.reset()
      }
    }
    const all = (): boolean =>
      sides.every(
        (side) =>
          side.making.pollUnsafe() !== undefined &&
          settled(side) &&
          side.shutdowns.every((fiber) => fiber.pollUnsafe() !== undefined)
      )
    yield* untilIdle(all)
    for (let minute = 0; minute < 5 && !all(); minute++) {
      yield* TestClock.adjust("1 minute")
      yield* untilIdle(all)
    }
    // Peers whose handshake completed only now.
    for (const side of sides) {
      const peer = peerOf(side)
      if (peer !== undefined && side.shutdowns.length === 0) {
        side.shutdowns.push(yield* fork(peer.awaitShutdown))
        yield* TestClock.adjust("1 minute")
        yield* untilIdle(all)
      }
    }

    // ---- the rules
    const reasons: Array<Peer.EndReason | undefined> = []
    for (const side of sides) {
      const { askers, making, name, shutdowns, tracker } = side
      const made = making.pollUnsafe()
      const peer = peerOf(side)
      if (made === undefined) problems.push(`${name}: the handshake hangs`)
      else if (Exit.isFailure(made) && Cause.hasDies(made.cause)) problems.push(`${name}: ${Cause.pretty(made.cause)}`)
      let reason: Peer.EndReason | undefined
      for (const fiber of shutdowns) {
        const exit = fiber.pollUnsafe()
        if (exit === undefined) problems.push(`${name}: awaitShutdown hangs`)
        else if (Exit.isFailure(exit)) problems.push(`${name}: awaitShutdown failed: ${Cause.pretty(exit.cause)}`)
        else if (reason !== undefined && exit.value !== reason) problems.push(`${name}: two reasons for one end`)
        else reason = exit.value
      }
      reasons.push(reason)
      if (
        reason !== undefined &&
        ["Defect", "HandlerFailed", "BadMessage", "ProtocolViolation"].includes(reason._tag)
      ) {
        problems.push(`${name} ended with ${reason._tag}: ${Peer.describeEnd(reason)}`)
      }
      if (peer !== undefined && reason !== undefined) {
        const late = yield* Effect.exit(peer.sendAndWait(numbered(0, 0)))
        if (Exit.isSuccess(late)) problems.push(`${name}: something was sent after the end`)
        if ((yield* peer.awaitShutdown) !== reason)
          problems.push(`${name}: awaitShutdown gives another reason after the end`)
        if ((peer.scope as Scope.Closeable).state._tag !== "Closed") problems.push(`${name}: the peer's scope is open`)
        const { openRequests } = yield* peer.stats
        if (openRequests > 0) problems.push(`${name}: ${openRequests} requests are kept after the end`)
      }
      if (tracker.waiting() !== 0) problems.push(`${name}: ${tracker.waiting()} fibers wait in a connection or a clock`)
      const results = new Map<number, boolean>()
      for (const { fiber, id, interrupted, outcomes, what } of askers) {
        const call = `${name}: ${what} ${id ?? ""}`
        const exit = fiber.pollUnsafe()
        if (exit === undefined) {
          problems.push(`${call} hangs`)
          continue
        }
        if (outcomes !== 1) problems.push(`${call} has ${outcomes} outcomes`)
        if (id !== undefined) results.set(id, Exit.isSuccess(exit))
        if (Exit.isSuccess(exit)) {
          if (what === "not sendable") problems.push(`${call} was sent`)
          if (what === "sendAndWait" && !side.written.includes(`#${id}`))
            problems.push(`${call} succeeded, not written`)
          continue
        }
        const error = exit.cause.reasons.find(Cause.isFailReason)?.error
        if (error === undefined) {
          if (!interrupted || Cause.hasDies(exit.cause)) problems.push(`${call}: ${Cause.pretty(exit.cause)}`)
        } else if (error.reason._tag === "Ended") {
          if (error.reason.end !== reason) problems.push(`${call} fails with another end`)
        } else if (error.reason._tag === "NoAnswer") {
          // A forked fiber sends the answer, so the pong may arrive before it.
          if (what !== "getHeaders" && what !== "getBlocks") problems.push(`${call}: ${error.message}`)
        } else if (error.reason._tag === "NotSendable" ? what !== "not sendable" : error.reason._tag !== "TimedOut") {
          problems.push(`${call}: ${error.message}`)
        }
      }
      const own = side.written.filter((key) => results.has(Number(key.slice(1))))
      const ordered = own.toSorted((x, y) => Number(x.slice(1)) - Number(y.slice(1)))
      if (own.join() !== ordered.join()) problems.push(`${name}: written in another order than sent: ${show(own)}`)
      if (new Set(own).size !== own.length) problems.push(`${name}: written twice: ${show(own)}`)
      const numbers = side.parsed.filter((key) => key.startsWith("#"))
      if (!isPrefix(side.handled, numbers)) {
        problems.push(`${name}: handled ${show(side.handled)} of ${show(numbers)}`)
      }
    }
    for (const [from, to, reason, otherReason] of [
      [a, b, reasons[0], reasons[1]],
      [b, a, reasons[1], reasons[0]]
    ] as const) {
      if (!isPrefix(to.parsed, from.written)) {
        problems.push(`${to.name} received ${show(to.parsed)}, ${from.name} wrote ${show(from.written)}`)
      }
      const isSoft = reason?._tag === "Requested" || reason?._tag === "ScopeClosed"
      if (wasReset || closeTimeout !== undefined || !isSoft || otherReason?._tag !== "RemoteClosed") continue
      if (leaving.has(to.name)) continue
      if (to.parsed.length !== from.written.length) {
        lost.push(`a clean end, but ${to.name} received ${show(to.parsed)} of ${show(from.written)}`)
      }
      const numbers = from.written.filter((key) => key.startsWith("#"))
      if (to.handled.join() !== numbers.join()) {
        lost.push(`a clean end, but ${to.name} handled ${show(to.handled)} of ${show(numbers)}`)
      }
    }
    for (const side of sides) yield* fork(Scope.close(side.scope, Exit.void))
    yield* TestClock.adjust("1 second")
    const endOf = (index: 0 | 1): string => {
      const exit = sides[index].making.pollUnsafe()
      return reasons[index]?._tag ?? (exit !== undefined && Exit.isFailure(exit) ? "no handshake" : "?")
    }
    return { trace, problems, lost, ends: [endOf(0), endOf(1)] } satisfies Report
  },
  (effect, seed) => effect.pipe(Effect.scoped, Random.withSeed(String(seed)), Effect.provide(TestClock.layer()))
)
