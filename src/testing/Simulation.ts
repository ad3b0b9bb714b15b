/**
 * A simulated network of hosts in memory, with addresses, host names, listeners, latency, bandwidth, partitions and lost connections.
 * Programs that open connections run in it unchanged. Its time is the Clock's, so days pass in seconds, and the same seed gives the same
 * run.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type * as Address from "../Address.ts"
import * as Transport from "../Transport.ts"
import { makeDice } from "./internal/dice.ts"
import { type Event, formatEvent } from "./internal/journal.ts"
import { addressOf, Machine, Network } from "./internal/network.ts"
import type { Host, HostOptions, LinkOptions, Options } from "./internal/options.ts"
import { withoutStackTrace } from "../primitives/withoutStackTrace.ts"
import * as VirtualClock from "./VirtualClock.ts"

export { type Event, formatEvent } from "./internal/journal.ts"
export type { Host, HostOptions, LinkOptions, Listener, ListenOptions, Options, Target } from "./internal/options.ts"

/**
 * One host or several.
 *
 * @category models
 * @since 0.1.0
 */
export type Hosts = Host | ReadonlyArray<Host>

/**
 * A simulated network. All its delays are on its Clock, so it takes no real time.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Peer } from "effect-bitcoin-peer"
 * import { RegtestChain, ScriptedPeer, Simulation } from "effect-bitcoin-peer/testing"
 *
 * const chain = RegtestChain.extend(RegtestChain.start, 100)
 * const download = Simulation.run(42, (simulation) => Effect.gen(function*() {
 *   const node = yield* simulation.host({ name: "node" })
 *   const wallet = yield* simulation.host({ name: "wallet" })
 *   yield* ScriptedPeer.attach(node, ScriptedPeer.slow(ScriptedPeer.honest(chain), "2 seconds"))
 *   yield* Effect.gen(function*() {
 *     yield* Effect.sleep("3 seconds") // in the middle of the download
 *     yield* Effect.andThen(Effect.sleep("20 seconds"), yield* simulation.cut(wallet, node))
 *   }).pipe(Effect.forkScoped)
 *   // The program under test. It gets a function that dials, here `wallet.dial`.
 *   return yield* Effect.gen(function*() {
 *     const peer = yield* Peer.make(yield* wallet.dial(node.addresses[0]), { network: Network.regtest })
 *     return (yield* peer.getBlock(chain.hashes[50], { timeout: "1 minute" })).transactions.length // 1
 *   }).pipe(Effect.provide(wallet.layer))
 * }))
 *
 * await Effect.runPromise(download)
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface Simulation {
  readonly seed: number | string
  /** Adds a host. Dies if another host has one of its addresses, or if a text is not an address. */
  readonly host: (options?: HostOptions) => Effect.Effect<Host>
  readonly hosts: Effect.Effect<ReadonlyArray<Host>>
  /** Gives a name its addresses, for dials and for `resolve`; an empty list removes it. */
  readonly setName: (name: string, addresses: ReadonlyArray<Address.Host | string>) => Effect.Effect<void>
  /** The addresses of a name, as DNS would answer; empty for an unknown name. */
  readonly resolve: (name: string) => Effect.Effect<ReadonlyArray<Address.Host>>
  /** Sets the links between the hosts of two groups. Open connections keep their links. */
  readonly setLink: (a: Hosts, b: Hosts, options: LinkOptions) => Effect.Effect<void>
  /**
   * Drops all packets between two groups, or between one group and all other hosts. Dials get no answer, and connections stall. Returns
   * an effect that heals this cut: bytes that were written meanwhile then arrive.
   */
  readonly cut: (a: Hosts, b?: Hosts) => Effect.Effect<Effect.Effect<void>>
  /** Heals all cuts. */
  readonly heal: Effect.Effect<void>
  /**
   * Resets all connections of the hosts and closes their listeners, as if their processes were killed. They can listen and dial again.
   * Fibers that use the connections are not interrupted: they get errors.
   */
  readonly kill: (hosts: Hosts) => Effect.Effect<void>
  /** The open connections: which host dialled which. */
  readonly connections: Effect.Effect<ReadonlyArray<readonly [from: Host, to: Host]>>
  /** Adds a note to the events. */
  readonly note: (text: string) => Effect.Effect<void>
  /** The last events, the oldest first. */
  readonly events: Effect.Effect<ReadonlyArray<Event>>
  /** The number of all events and their hash: two equal runs have equal digests. */
  readonly digest: Effect.Effect<string>
}

const machinesOf = (hosts: Hosts): ReadonlyArray<Machine> =>
  (Array.isArray(hosts) ? hosts : [hosts]).filter((host) => host instanceof Machine)
const numbersOf = (hosts: Hosts): ReadonlySet<number> => new Set(machinesOf(hosts).map(({ number }) => number))
const namesOf = (hosts: Hosts): string =>
  machinesOf(hosts)
    .map(({ name }) => name)
    .join(", ")

/**
 * Makes an empty network on the Clock of the context. Closing the scope destroys its connections. `run` makes a network and a clock.
 *
 * `TestClock.adjust` does not wait for fibers that were ready before it, so a message that the test has just sent may be too late for it.
 * `VirtualClock.layer` waits for them.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Effect.Effect<Simulation, never, Scope.Scope> =>
  Effect.contextWith((context: Context.Context<Scope.Scope>) => {
    const network = new Network(context, options)
    const simulation: Simulation = {
      seed: network.seed,
      host: (hostOptions = {}) => Effect.sync(() => network.addHost(hostOptions)),
      hosts: Effect.sync(() => [...network.machines]),
      setName: (name, addresses) =>
        Effect.sync(() => {
          const hosts = addresses.map((of): Address.Host => {
            const { address, networkId } = typeof of === "string" ? addressOf(of) : of
            return { networkId, address }
          })
          if (hosts.length === 0) network.names.delete(name.toLowerCase())
          else network.names.set(name.toLowerCase(), hosts)
        }),
      resolve: (name) => Effect.sync(() => network.names.get(name.toLowerCase()) ?? []),
      setLink: (a, b, linkOptions) =>
        Effect.sync(() => {
          for (const one of numbersOf(a)) for (const other of numbersOf(b)) network.setLink(one, other, linkOptions)
        }),
      cut: (a, b) =>
        Effect.sync(() => {
          const [left, right] = [numbersOf(a), b === undefined ? undefined : numbersOf(b)]
          const isRight = (number: number): boolean => (right === undefined ? !left.has(number) : right.has(number))
          network.event(undefined, "", `a cut between ${namesOf(a)} and ${b === undefined ? "all others" : namesOf(b)}`)
          return network.cut((one, other) => (left.has(one) && isRight(other)) || (left.has(other) && isRight(one)))
        }),
      heal: Effect.sync(() => network.healAll()),
      kill: (hosts) =>
        Effect.sync(() => {
          for (const machine of machinesOf(hosts)) network.kill(machine)
        }),
      connections: Effect.sync(() =>
        Array.from(network.lines, ({ hosts: [from, to] }) => [network.machines[from]!, network.machines[to]!] as const)
      ),
      note: (text) => Effect.sync(() => network.event(undefined, "", text)),
      events: Effect.sync(() => network.journal.events),
      digest: Effect.sync(() => `${network.journal.count} ${network.journal.digest}`)
    }
    return Effect.as(
      Effect.addFinalizer(() => Effect.sync(() => network.stop())),
      simulation
    )
  })

/**
 * A run failed. The message has the seed, the last events and the failure.
 *
 * @category errors
 * @since 0.1.0
 */
export class SimulationFailed extends Data.TaggedError("SimulationFailed")<{
  readonly seed: number | string
  readonly events: ReadonlyArray<Event>
  /** The `Cause` of the failure. */
  readonly cause: unknown
}> {
  override get message(): string {
    const failure = Cause.isCause(this.cause) ? Cause.pretty(this.cause) : String(this.cause)
    const lines = this.events.map(formatEvent)
    return [`the simulation with seed ${this.seed} failed. Its last events:`, ...lines, failure].join("\n")
  }
}

/**
 * The program of a run did not end within the time limit of the run.
 *
 * @category errors
 * @since 0.1.0
 */
export class SimulationHangs extends Data.TaggedError("SimulationHangs")<{ readonly limit: Duration.Duration }> {
  override get message(): string {
    return `the program still waits after ${Duration.format(this.limit)} of virtual time`
  }
}

/**
 * The options of a run.
 *
 * @category options
 * @since 0.1.0
 */
export interface RunOptions extends Omit<Options, "seed"> {
  /**
   * The most virtual time for the program, so that a hanging one fails; 30 days by default. The clock begins in 1970, and time that
   * `TestClock.setTime` skips counts: a program that sets a date of today needs a longer limit.
   */
  readonly limit?: Duration.Input | undefined
}

/** The number of events in the message of a failed run. */
const printedEvents = 40

/**
 * Runs a program in a network of its own, with all randomness from the seed, on a virtual clock that moves when all fibers wait
 * (`VirtualClock.layerAdvancing`) and that `TestClock.adjust` moves as well. The same seed gives the same run.
 *
 * A failure of any kind becomes `SimulationFailed`, which prints the seed and the events before it.
 *
 * @category running
 * @since 0.1.0
 */
export const run = <A, E, R>(
  seed: number | string,
  program: (simulation: Simulation) => Effect.Effect<A, E, R>,
  options: RunOptions = {}
): Effect.Effect<A, SimulationFailed, Exclude<R, Scope.Scope | SecureRandom.SecureRandom>> => {
  const limit = Duration.fromInputUnsafe(options.limit ?? "30 days")
  const dice = makeDice(seed).derive("secure")
  const random = SecureRandom.make((size) => dice.bytes(size))
  return Effect.gen(function* () {
    const simulation = yield* make({ ...options, seed })
    const exit = yield* Effect.suspend(() => program(simulation)).pipe(
      Effect.scoped,
      Effect.timeoutOrElse({
        duration: limit,
        orElse: () => Effect.fail(withoutStackTrace(() => new SimulationHangs({ limit })))
      }),
      Effect.provideService(SecureRandom.SecureRandom, random),
      // Addresses that an earlier run found to be v1 only belong to other hosts in this run.
      Effect.provideService(Transport.V1Peers, Transport.makeV1Peers()),
      Effect.exit
    )
    if (Exit.isSuccess(exit)) return exit.value
    if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    const events = (yield* simulation.events).slice(-printedEvents)
    return yield* withoutStackTrace(() => new SimulationFailed({ seed, events, cause: exit.cause }))
  }).pipe(Effect.scoped, Random.withSeed(String(seed)), Effect.provide(VirtualClock.layerAdvancing)) as Effect.Effect<
    A,
    SimulationFailed,
    Exclude<R, Scope.Scope | SecureRandom.SecureRandom>
  >
}
