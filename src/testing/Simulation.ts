/**
 * A network of hosts in memory, on the Clock, from one seed: addresses, listeners, dials, names, latency, bandwidth, cuts, losses.
 * Programs that open connections run in it unchanged, days pass in seconds, and the same seed gives the same run.
 */
import * as Cause from "effect/Cause"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Address from "../Address.ts"
import * as Connection from "../Connection.ts"
import { ConnectionError, type DialProblem, type Endpoint } from "../ConnectionError.ts"
import * as Nonce from "../Nonce.ts"
import type { Listener } from "../PeerServer.ts"
import { WaitList } from "../primitives/waitList.ts"
import { makeDice } from "./internal/dice.ts"
import { describeBytes, type Event, formatEvent, Journal } from "./internal/journal.ts"
import { Line, systemError } from "./internal/line.ts"
import { Link, type LinkNumbers } from "./internal/links.ts"
import { Timers } from "./internal/timers.ts"
import * as VirtualClock from "./VirtualClock.ts"

export { type Event, formatEvent } from "./internal/journal.ts"

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
  readonly dial: (target: Target) => Effect.Effect<Connection.Connection, ConnectionError, Scope.Scope>
  /**
   * Listens until the scope ends, as `NodeConnection.listen` does. Fails with `ListenFailed`: `AddressInUse` or `AddressNotAvailable`.
   */
  readonly listen: (
    options?: ListenOptions
  ) => Effect.Effect<Listener & { readonly address: Endpoint }, ConnectionError, Scope.Scope>
  /** Random bytes and nonces from the seed, for the peers of this host. Two hosts must not share a `Nonce`. */
  readonly layer: Layer.Layer<Nonce.Nonce | SecureRandom.SecureRandom>
}

/**
 * One host or several.
 *
 * @category models
 * @since 0.1.0
 */
export type Hosts = Host | ReadonlyArray<Host>

/**
 * A network of hosts in memory. What it does takes no time but that of its Clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Simulation {
  readonly seed: number | string
  /** Adds a host. Dies if another host has one of its addresses. */
  readonly host: (options?: HostOptions) => Effect.Effect<Host>
  readonly hosts: Effect.Effect<ReadonlyArray<Host>>
  /** Gives a name its addresses, for dials and for `resolve`; an empty list removes it. */
  readonly setName: (name: string, addresses: ReadonlyArray<Address.Host | string>) => Effect.Effect<void>
  /** The addresses of a name, or none: what DNS answers. */
  readonly resolve: (name: string) => Effect.Effect<ReadonlyArray<Address.Host>>
  /** Sets the links between the hosts of two groups. Connections that are open keep theirs. */
  readonly setLink: (a: Hosts, b: Hosts, options: LinkOptions) => Effect.Effect<void>
  /**
   * Stops all packets between two groups, or between a group and all other hosts. Dials get no answer, connections stall. Returns the
   * effect that heals this cut: what was written meanwhile arrives then.
   */
  readonly cut: (a: Hosts, b?: Hosts) => Effect.Effect<Effect.Effect<void>>
  /** Heals all cuts. */
  readonly heal: Effect.Effect<void>
  /** Resets all connections of hosts and ends their listeners, as the end of their process does. They can listen and dial again. */
  readonly kill: (hosts: Hosts) => Effect.Effect<void>
  /** The open connections, by the hosts that dialled and accepted. */
  readonly connections: Effect.Effect<ReadonlyArray<readonly [from: Host, to: Host]>>
  /** Adds an event of the test itself. */
  readonly note: (text: string) => Effect.Effect<void>
  /** The last events, the oldest first. */
  readonly events: Effect.Effect<ReadonlyArray<Event>>
  /** The number of all events, and a hash of them: equal for two runs that are equal. */
  readonly digest: Effect.Effect<string>
}

const defaultPort = 8333
/** Seconds after which a dial is tried again: the kernel sends a lost SYN again. */
const retries = [0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000]
/** How long a dial waits for one address of a name before it tries the next one, in milliseconds (as Node). */
const attemptTimeout = 250
/** How long a connection whose scope has ended flushes, in milliseconds. */
const lingerTimeout = 500

const addressOf = (of: Address.Address | string): Address.Address =>
  typeof of === "string" ? Result.getOrThrow(Address.parse(of, defaultPort)) : of
const keyOf = (host: Address.Host): string => Address.formatHost(Address.canonical(host))
const endpointOf = (address: Address.Address): Endpoint => ({ host: Address.formatHost(address), port: address.port })
const isEndpoint = (target: Target): target is Endpoint => "host" in target
const asArray = (hosts: Hosts): ReadonlyArray<Host> => (Array.isArray(hosts) ? hosts : [hosts as Host])

/** The n-th IPv4 address of those that hosts get by default. No two are in one /16. */
const ordinaryAddress = (n: number): Address.Address => ({
  networkId: Address.NetworkId.ipv4,
  address: Uint8Array.of(20 + (n % 150), Math.floor(n / 150) % 256, 7, 1 + (Math.floor(n / 38_400) % 250)),
  port: defaultPort
})

const needsProxy = (networkId: number): boolean =>
  networkId === Address.NetworkId.torV3 || networkId === Address.NetworkId.torV2 || networkId === Address.NetworkId.i2p

const dialFailed = (problem: DialProblem, { host, port }: Endpoint, cause?: Error): ConnectionError =>
  new ConnectionError({ reason: { _tag: "DialFailed", problem, host, port, cause } })

/** What waits at a listening port. */
interface Port {
  readonly backlog: number
  readonly pending: Array<readonly [Line, Connection.Connection]>
  readonly wake: () => void
  readonly close: (error: ConnectionError) => void
}

class Machine implements Host {
  readonly number: number
  readonly name: string
  readonly addresses: NonEmptyReadonlyArray<Address.Address>
  readonly proxied: ReadonlySet<number>
  readonly ports = new Map<string, Port>()
  readonly lines = new Set<Line>()
  readonly layer: Host["layer"]
  private nextPort = 49_152
  private readonly network: Network

  constructor(network: Network, number: number, options: HostOptions) {
    const [first, ...others] = options.addresses ?? [ordinaryAddress(number)]
    this.network = network
    this.number = number
    this.addresses = [addressOf(first), ...others.map(addressOf)]
    this.name = options.name ?? Address.format(this.addresses[0])
    this.proxied = new Set(options.proxied)
    const dice = network.dice.derive(`host ${number}`)
    this.layer = Layer.fresh(
      Layer.provideMerge(
        Nonce.layerNoDeps,
        Layer.succeed(
          SecureRandom.SecureRandom,
          SecureRandom.make((size) => dice.bytes(size))
        )
      )
    )
  }

  /** A port of a connection that goes out. */
  ephemeralPort(): number {
    const port = this.nextPort
    this.nextPort = port === 65_535 ? 49_152 : port + 1
    return port
  }

  readonly dial: Host["dial"] = (target) => this.network.dial(this, target)
  readonly listen: Host["listen"] = (options = {}) => this.network.listen(this, options)
}

/** How a dial ends. */
type Dialled = (result: ConnectionError | readonly [Line, Connection.Connection]) => void

class Network {
  readonly seed: number | string
  readonly dice
  readonly timers: Timers
  readonly journal: Journal
  readonly machines: Array<Machine> = []
  readonly names = new Map<string, ReadonlyArray<Address.Host>>()
  private readonly context: Context.Context<never>
  private readonly options: Options
  private readonly scope = Scope.makeUnsafe()
  private readonly byHost = new Map<string, Machine>()
  private readonly links = new Map<string, Link>()
  private cuts: ReadonlyArray<(a: number, b: number) => boolean> = []
  private readonly connectTimeout: number
  private readonly retransmitTimeout: number

  constructor(context: Context.Context<never>, options: Options) {
    this.context = context
    this.options = options
    this.seed = options.seed ?? 0
    this.dice = makeDice(this.seed)
    this.timers = new Timers(context)
    this.journal = new Journal(options.maximumEvents ?? 1_000)
    this.connectTimeout = Duration.toMillis(options.connectTimeout ?? 5_000)
    this.retransmitTimeout = Duration.toMillis(options.retransmitTimeout ?? "15 minutes")
  }

  // ---- hosts and paths

  addHost(options: HostOptions): Machine {
    const machine = new Machine(this, this.machines.length, options)
    for (const address of machine.addresses) {
      const key = keyOf(address)
      if (this.byHost.has(key)) throw new Error(`two hosts of the simulation have the address ${key}`)
      this.byHost.set(key, machine)
    }
    this.machines.push(machine)
    return machine
  }

  event(from: Machine | undefined, to: Machine | string, what: string): void {
    const other = typeof to === "string" ? to : to.name
    this.journal.add({ at: this.timers.now, from: from?.name ?? "", to: other, what })
  }

  private numbersOf(a: number, b: number, { bandwidth, latency = 50, lifetime }: LinkOptions): LinkNumbers {
    const isRange = typeof latency === "object" && "minimum" in latency && "maximum" in latency
    const minimum = Duration.toMillis(isRange ? latency.minimum : latency)
    const maximum = Duration.toMillis(isRange ? latency.maximum : latency)
    const drawn = minimum + (maximum - minimum) * this.dice.derive(`link ${a} ${b}`).next()
    return {
      latency: a === b ? 0 : isRange ? Math.round(drawn) : minimum,
      bandwidth: bandwidth ?? Number.POSITIVE_INFINITY,
      lifetime: lifetime === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(lifetime)
    }
  }

  private linkOf(a: number, b: number): Link {
    const [low, high] = a < b ? [a, b] : [b, a]
    const key = `${low} ${high}`
    const known = this.links.get(key)
    if (known !== undefined) return known
    const link = new Link(this.numbersOf(low, high, this.options.link ?? {}))
    this.links.set(key, link)
    return link
  }

  setLink(a: number, b: number, options: LinkOptions): void {
    const [low, high] = a < b ? [a, b] : [b, a]
    this.links.set(`${low} ${high}`, new Link(this.numbersOf(low, high, { ...this.options.link, ...options })))
  }

  isOpen(a: number, b: number): boolean {
    return this.cuts.length === 0 || !this.cuts.some((separates) => separates(a, b))
  }

  cut(separates: (a: number, b: number) => boolean): Effect.Effect<void> {
    this.cuts = [...this.cuts, separates]
    return Effect.sync(() => {
      if (!this.cuts.includes(separates)) return
      this.cuts = this.cuts.filter((other) => other !== separates)
      this.event(undefined, "", "a cut heals")
      this.resume()
    })
  }

  healAll(): void {
    if (this.cuts.length === 0) return
    this.cuts = []
    this.event(undefined, "", "all cuts heal")
    this.resume()
  }

  private resume(): void {
    for (const machine of this.machines) {
      for (const line of machine.lines) if (this.isOpen(line.hosts[0], line.hosts[1])) line.resume()
    }
  }

  kill(machine: Machine): void {
    this.event(machine, "", "is killed")
    const cause = systemError("ECONNRESET", `${machine.name} was killed`)
    for (const port of machine.ports.values()) {
      port.close(new ConnectionError({ reason: { _tag: "Reset", cause } }))
    }
    machine.ports.clear()
    for (const line of machine.lines) line.reset(cause)
  }

  stop(): void {
    this.timers.stop()
    for (const machine of this.machines) {
      for (const line of machine.lines) {
        Effect.runSync(line.ends[0].destroy)
        Effect.runSync(line.ends[1].destroy)
      }
    }
  }

  // ---- connections

  /** The address from which a host dials another one; `undefined` if it is in no such network. */
  private sourceOf(from: Machine, to: Address.Host): Address.Host | "proxy" | undefined {
    const { networkId } = Address.canonical(to)
    if (Address.isLocal(to)) return to
    const own = from.addresses.find((address) => Address.canonical(address).networkId === networkId)
    if (own !== undefined) return networkId === Address.NetworkId.torV3 ? "proxy" : own
    return from.proxied.has(networkId) ? "proxy" : undefined
  }

  private makeLine(from: Machine, to: Machine, local: Endpoint, seen: Endpoint, remote: Endpoint): Line {
    const machines = [from, to] as const
    const link = this.linkOf(from.number, to.number)
    const line: Line = new Line({
      timers: this.timers,
      link,
      hosts: [from.number, to.number],
      isOpen: () => this.isOpen(from.number, to.number),
      retransmitTimeout: this.retransmitTimeout,
      onBytes: (sender, bytes) => {
        if (this.options.traceBytes === false) return
        this.event(machines[sender], machines[1 - sender]!, describeBytes(bytes))
      },
      onEnd: (sender) => this.event(machines[sender], machines[1 - sender]!, "closes"),
      onOver: (cause) => {
        from.lines.delete(line)
        to.lines.delete(line)
        if (cause !== undefined) this.event(from, to, `is disconnected: ${cause.message}`)
      }
    })
    const make = (addresses: readonly [Endpoint, Endpoint]) =>
      Connection.makePair({
        addresses,
        carry: line.carry,
        window: this.options.window,
        closeTimeout: this.options.closeTimeout
      }).pipe(Scope.provide(this.scope), Effect.provideContext(this.context), Effect.runSync)
    const pair = make([local, remote])
    // The accepting end may see another address than the one that dialled: that of its proxy.
    if (seen !== local) Object.defineProperty(pair[1], "remoteAddress", { value: seen })
    line.connect(pair)
    from.lines.add(line)
    to.lines.add(line)
    const { lifetime } = link.numbers
    if (lifetime < Number.POSITIVE_INFINITY) {
      const life = -Math.log1p(-this.dice.next()) * lifetime
      this.timers.after(Math.ceil(life), () => line.reset(systemError("ECONNRESET", "the connection was lost")))
    }
    return line
  }

  /** Gives a connection to the scope of its caller. It ends without a wait, and is destroyed if it cannot flush. */
  adopt(line: Line, end: Connection.Connection): Effect.Effect<Connection.Connection, never, Scope.Scope> {
    const leave = Effect.suspend(() => {
      if (!line.isOver) this.timers.after(lingerTimeout, () => void (line.isOver || Effect.runSync(end.destroy)))
      return end.close
    })
    return Effect.as(
      Effect.addFinalizer(() => leave),
      end
    )
  }

  dial(from: Machine, target: Target): Effect.Effect<Connection.Connection, ConnectionError, Scope.Scope> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const goal = isEndpoint(target) ? target : endpointOf(target)
        const found = this.targetsOf(from, target, goal)
        if (found instanceof ConnectionError) {
          this.event(from, Connection.formatEndpoint(goal), `cannot dial: ${found.message}`)
          return Effect.fail(found)
        }
        return Effect.flatMap(restore(this.dialEach(from, found, goal)), ([line, end]) => this.adopt(line, end))
      })
    )
  }

  /** The addresses of a target, or why it is not dialled. */
  private targetsOf(
    from: Machine,
    target: Target,
    goal: Endpoint
  ): NonEmptyReadonlyArray<Address.Address> | ConnectionError {
    const { host, port } = goal
    if (!Number.isInteger(port) || port < 0 || port > 65_535) return dialFailed("BadPort", goal)
    let hosts: ReadonlyArray<Address.Host>
    if (!isEndpoint(target)) hosts = [target]
    else {
      const parsed = Address.parseHost(host)
      hosts = Result.isSuccess(parsed) ? [parsed.success] : (this.names.get(host.toLowerCase()) ?? [])
      if (hosts.length === 0 && /\.(?:onion|i2p)$/i.test(host)) return dialFailed("NeedsProxy", goal)
    }
    if (hosts.length === 0) {
      return dialFailed("HostNotFound", goal, systemError("ENOTFOUND", `getaddrinfo ${host}`))
    }
    const reachable = hosts.filter((address) => this.sourceOf(from, address) !== undefined)
    const [first, ...others] = reachable.map((address) => ({ ...address, port }))
    if (first !== undefined) return [first, ...others]
    return hosts.every((address) => needsProxy(address.networkId))
      ? dialFailed("NeedsProxy", goal)
      : dialFailed("Unreachable", goal, systemError("ENETUNREACH", `connect ${host}`))
  }

  /** Dials addresses one after the other, in the time of one dial. */
  private dialEach(
    from: Machine,
    targets: NonEmptyReadonlyArray<Address.Address>,
    goal: Endpoint
  ): Effect.Effect<readonly [Line, Connection.Connection], ConnectionError> {
    return Effect.callback((resume) => {
      const deadline = this.timers.now + this.connectTimeout
      let cancel: () => void = () => {}
      let worst: ConnectionError | undefined
      const next = (index: number): void => {
        const isLast = index === targets.length - 1
        const until = isLast ? deadline : Math.min(deadline, this.timers.now + attemptTimeout)
        cancel = this.attempt(from, targets[index]!, goal, until, (result) => {
          if (!(result instanceof ConnectionError)) return resume(Effect.succeed(result))
          // A refusal says more than silence.
          worst = worst?.reason._tag === "DialFailed" && worst.reason.problem === "Refused" ? worst : result
          if (isLast || this.timers.now >= deadline) resume(Effect.fail(worst))
          else next(index + 1)
        })
      }
      next(0)
      return Effect.sync(() => cancel())
    })
  }

  /** Dials one address; the returned function gives up. */
  private attempt(from: Machine, target: Address.Address, goal: Endpoint, deadline: number, done: Dialled): () => void {
    const { timers } = this
    const source = this.sourceOf(from, target)
    const to = Address.isLocal(target) ? from : this.byHost.get(keyOf(target))
    const text = Address.format(target)
    const other = to ?? text
    let isOver = false
    const finish: Dialled = (result) => {
      if (isOver) return
      isOver = true
      done(result)
    }
    this.event(from, other, `dials ${text}`)
    timers.add(deadline, () => {
      if (isOver) return
      this.event(from, other, "gets no answer")
      finish(dialFailed("Timeout", goal))
    })
    if (to === undefined) return () => void (isOver = true)
    const latency = this.linkOf(from.number, to.number).numbers.latency
    /** The connection was made at the other host, and its answer is on the way. */
    let isAnswered = false
    const arrive = (): void => {
      if (isOver || isAnswered || !this.isOpen(from.number, to.number)) return
      const port = to.ports.get(portKey(target))
      if (port === undefined) {
        isAnswered = true
        timers.after(latency, () => {
          if (isOver) return
          this.event(to, from, "refuses")
          finish(dialFailed("Refused", goal, systemError("ECONNREFUSED", `connect ${text}`)))
        })
        return
      }
      if (port.pending.length >= port.backlog) return
      isAnswered = true
      const ephemeral = from.ephemeralPort()
      const isProxied = source === "proxy" || source === undefined
      const local = isProxied ? { host: "0.0.0.0", port: 0 } : { host: Address.formatHost(source), port: ephemeral }
      const seen = isProxied ? { host: "127.0.0.1", port: ephemeral } : local
      const line = this.makeLine(from, to, local, seen, { host: Address.formatHost(target), port: target.port })
      port.pending.push([line, line.ends[1]])
      timers.after(latency, () => {
        if (isOver) Effect.runSync(line.ends[0].destroy)
        else {
          this.event(from, to, "is connected")
          finish([line, line.ends[0]])
        }
      })
      port.wake()
    }
    for (const after of retries) {
      if (timers.now + after > deadline) break
      timers.after(after, () => {
        if (!isOver && !isAnswered && this.isOpen(from.number, to.number)) timers.after(latency, arrive)
      })
    }
    return () => void (isOver = true)
  }

  listen(
    machine: Machine,
    options: ListenOptions
  ): Effect.Effect<Listener & { readonly address: Endpoint }, ConnectionError, Scope.Scope> {
    return Effect.uninterruptible(
      Effect.gen({ self: this }, function* () {
        const addresses = (options.addresses ?? machine.addresses).map(addressOf)
        const failed = (problem: "AddressInUse" | "AddressNotAvailable", address: Address.Address) => {
          const cause = systemError(problem === "AddressInUse" ? "EADDRINUSE" : "EADDRNOTAVAIL", "listen")
          return new ConnectionError({ reason: { _tag: "ListenFailed", problem, ...endpointOf(address), cause } })
        }
        for (const address of addresses) {
          if (!Address.isLocal(address) && this.byHost.get(keyOf(address)) !== machine) {
            return yield* failed("AddressNotAvailable", address)
          }
          if (machine.ports.has(portKey(address))) return yield* failed("AddressInUse", address)
        }
        let closed: ConnectionError | undefined
        const pending: Array<readonly [Line, Connection.Connection]> = []
        const arrivals = new WaitList<ConnectionError>(() => {
          if (closed !== undefined) return Effect.fail(closed)
          return pending.length > 0 ? Effect.void : undefined
        })
        const port: Port = {
          backlog: options.backlog ?? 128,
          pending,
          wake: () => arrivals.wake(),
          close: (error) => {
            if (closed !== undefined) return
            closed = error
            for (const address of addresses) machine.ports.delete(portKey(address))
            for (const [, end] of pending.splice(0)) Effect.runSync(end.destroy)
            arrivals.wake(Effect.fail(error))
          }
        }
        for (const address of addresses) machine.ports.set(portKey(address), port)
        this.event(machine, "", `listens on ${addresses.map(Address.format).join(", ")}`)
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => port.close(new ConnectionError({ reason: { _tag: "Closed" } })))
        )
        const next: Effect.Effect<readonly [Line, Connection.Connection], ConnectionError> = Effect.suspend(() => {
          const first = pending.shift()
          if (first === undefined) return Effect.flatMap(arrivals.wait, () => next)
          return first[0].isOver ? next : Effect.succeed(first)
        })
        const accept: Listener["accept"] = Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(restore(next), ([line, end]) => this.adopt(line, end))
        )
        return { address: endpointOf(addresses[0]!), accept }
      })
    )
  }
}

/** A port of a host, on one of its addresses. */
const portKey = (address: Address.Address): string =>
  Address.isLocal(address) ? `local ${address.port}` : `${keyOf(address)} ${address.port}`

/**
 * Makes an empty network on the Clock of the context. The end of the scope destroys its connections.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Effect.Effect<Simulation, never, Scope.Scope> =>
  Effect.contextWith((context: Context.Context<Scope.Scope>) => {
    const network = new Network(context, options)
    const numbers = (hosts: Hosts): ReadonlySet<number> =>
      new Set(asArray(hosts).map((host) => (host as Machine).number))
    const names = (hosts: Hosts): string =>
      asArray(hosts)
        .map(({ name }) => name)
        .join(", ")
    const simulation: Simulation = {
      seed: network.seed,
      host: (hostOptions = {}) => Effect.sync(() => network.addHost(hostOptions)),
      hosts: Effect.sync(() => [...network.machines]),
      setName: (name, addresses) =>
        Effect.sync(() => {
          const hosts = addresses.map((of) => (typeof of === "string" ? addressOf(of) : of))
          if (hosts.length === 0) network.names.delete(name.toLowerCase())
          else network.names.set(name.toLowerCase(), hosts)
        }),
      resolve: (name) => Effect.sync(() => network.names.get(name.toLowerCase()) ?? []),
      setLink: (a, b, linkOptions) =>
        Effect.sync(() => {
          for (const one of numbers(a)) for (const other of numbers(b)) network.setLink(one, other, linkOptions)
        }),
      cut: (a, b) =>
        Effect.sync(() => {
          const [left, right] = [numbers(a), b === undefined ? undefined : numbers(b)]
          const isRight = (number: number): boolean => (right === undefined ? !left.has(number) : right.has(number))
          network.event(undefined, "", `a cut between ${names(a)} and ${b === undefined ? "all others" : names(b)}`)
          return network.cut((one, other) => (left.has(one) && isRight(other)) || (left.has(other) && isRight(one)))
        }),
      heal: Effect.sync(() => network.healAll()),
      kill: (hosts) =>
        Effect.sync(() => {
          for (const host of asArray(hosts)) network.kill(host as Machine)
        }),
      connections: Effect.sync(() =>
        network.machines.flatMap((machine) =>
          Array.from(machine.lines)
            .filter((line) => line.hosts[0] === machine.number)
            .map((line) => [machine, network.machines[line.hosts[1]]!] as const)
        )
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
 * A run that failed. The message has the seed, the last events and the failure.
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
    return [
      `the simulation with seed ${this.seed} failed. Its last events:`,
      ...this.events.map(formatEvent),
      failure
    ].join("\n")
  }
}

/** How many events the message of a failed run has. */
const printedEvents = 40

/**
 * Runs a program in a network of its own, with a virtual clock that `TestClock.adjust` moves, and with all randomness from the seed. The
 * same seed gives the same run. A failure of any kind becomes `SimulationFailed`, which prints the seed and the events before it.
 *
 * @category running
 * @since 0.1.0
 */
export const run = <A, E, R>(
  seed: number | string,
  program: (simulation: Simulation) => Effect.Effect<A, E, R>,
  options: Omit<Options, "seed"> = {}
): Effect.Effect<A, SimulationFailed, Exclude<R, Scope.Scope | SecureRandom.SecureRandom>> =>
  Effect.gen(function* () {
    const simulation = yield* make({ ...options, seed })
    const dice = makeDice(seed).derive("secure")
    const exit = yield* Effect.exit(Effect.suspend(() => program(simulation))).pipe(
      Effect.provideService(
        SecureRandom.SecureRandom,
        SecureRandom.make((size) => dice.bytes(size))
      )
    )
    if (Exit.isSuccess(exit)) return exit.value
    if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    const events = (yield* simulation.events).slice(-printedEvents)
    return yield* new SimulationFailed({ seed, events, cause: exit.cause })
  }).pipe(Effect.scoped, Random.withSeed(String(seed)), Effect.provide(VirtualClock.layer)) as Effect.Effect<
    A,
    SimulationFailed,
    Exclude<R, Scope.Scope | SecureRandom.SecureRandom>
  >
