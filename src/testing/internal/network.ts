/** The simulated network and its machines: routes, dials, listeners, and the delivery of packets. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Address from "../../Address.ts"
import * as Connection from "../../Connection.ts"
import { ConnectionError, type DialProblem, type Endpoint } from "../../ConnectionError.ts"
import * as Nonce from "../../Nonce.ts"
import * as Transport from "../../Transport.ts"
import { WaitList } from "../../primitives/waitList.ts"
import { withoutStackTrace } from "../../primitives/withoutStackTrace.ts"
import { makeDice } from "./dice.ts"
import { describeBytes, Journal } from "./journal.ts"
import { Line, systemError } from "./line.ts"
import { Link, type LinkNumbers } from "./links.ts"
import type { Host, HostOptions, LinkOptions, Listener, ListenOptions, Options, Target } from "./options.ts"
import { type Timer, Timers } from "./timers.ts"

const defaultPort = 8333
/** Seconds after which a dial is tried again: the kernel sends a lost SYN again. */
const retries = [0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000]
/** How long a dial waits for one address of a name before it tries the next one, in milliseconds (as Node). */
const attemptTimeout = 250
/** The most time in milliseconds that a connection may flush after its scope has ended. */
const lingerTimeout = 500

export const addressOf = (of: Address.Address | string): Address.Address =>
  typeof of === "string" ? Result.getOrThrow(Address.parse(of, defaultPort)) : of
const keyOf = (host: Address.Host): string => Address.formatHost(Address.canonical(host))
const endpointOf = (address: Address.Address): Endpoint => ({ host: Address.formatHost(address), port: address.port })
const isEndpoint = (target: Target): target is Endpoint => "host" in target

/** The number of /16 in which hosts without an address are put before two of them share one. */
const groups = 190 * 256

/** The IPv4 addresses that hosts get by default, one of each /16 first. */
function* ordinaryAddresses(): Generator<Address.Address, never> {
  for (let n = 0; ; n++) {
    const group = n % groups
    const address = Uint8Array.of(11 + (group % 190), Math.floor(group / 190), 7, 1 + (Math.floor(n / groups) % 254))
    const made = { networkId: Address.NetworkId.ipv4, address, port: defaultPort }
    if (Address.isRoutable(made)) yield made
  }
}

const needsProxy = (networkId: number): boolean =>
  networkId === Address.NetworkId.torV3 || networkId === Address.NetworkId.torV2 || networkId === Address.NetworkId.i2p

const dialFailed = (problem: DialProblem, { host, port }: Endpoint, cause?: Error): ConnectionError =>
  withoutStackTrace(() => new ConnectionError({ reason: { _tag: "DialFailed", problem, host, port, cause } }))

/** The connections that wait at a listening port. */
interface Port {
  readonly backlog: number
  readonly pending: Array<readonly [Line, Connection.Connection]>
  readonly wake: () => void
  readonly close: (error: ConnectionError) => void
}

export class Machine implements Host {
  readonly number: number
  readonly name: string
  readonly addresses: NonEmptyReadonlyArray<Address.Address>
  readonly proxied: ReadonlySet<number>
  readonly ports = new Map<string, Port>()
  readonly layer: Host["layer"]
  private nextPort = 49_152
  private readonly network: Network

  constructor(network: Network, number: number, options: HostOptions) {
    const [first, ...others] = options.addresses ?? [network.nextAddress()]
    this.network = network
    this.number = number
    this.addresses = [addressOf(first), ...others.map(addressOf)]
    this.name = options.name ?? Address.format(this.addresses[0])
    this.proxied = new Set(options.proxied)
    const dice = network.dice.derive(`host ${number}`)
    const random = Layer.succeed(
      SecureRandom.SecureRandom,
      SecureRandom.make((size) => dice.bytes(size))
    )
    // A new `Nonce` for each program that runs on the host.
    this.layer = Layer.fresh(
      Layer.provideMerge(
        Layer.merge(Nonce.layerNoDeps, Layer.effect(Transport.Obfuscation, Transport.makeObfuscation())),
        random
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

export class Network {
  readonly seed: number | string
  readonly dice
  readonly timers: Timers
  readonly journal: Journal
  readonly machines: Array<Machine> = []
  /** The open connections. */
  readonly lines = new Set<Line>()
  readonly names = new Map<string, ReadonlyArray<Address.Host>>()
  private readonly context: Context.Context<never>
  private readonly options: Options
  private readonly byHost = new Map<string, Machine>()
  private readonly addresses = ordinaryAddresses()
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

  /** An address that no host has. */
  nextAddress(): Address.Address {
    while (true) {
      const { value } = this.addresses.next()
      if (!this.byHost.has(keyOf(value))) return value
    }
  }

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
    for (const line of this.lines) if (this.isOpen(line.hosts[0], line.hosts[1])) line.resume()
  }

  kill(machine: Machine): void {
    this.event(machine, "", "is killed")
    const cause = systemError("ECONNRESET", `${machine.name} was killed`)
    for (const port of machine.ports.values()) {
      port.close(new ConnectionError({ reason: { _tag: "Reset", cause } }))
    }
    machine.ports.clear()
    for (const line of this.lines) if (line.hosts.includes(machine.number)) line.reset(cause)
  }

  stop(): void {
    this.timers.stop()
    for (const { ends } of this.lines) {
      Effect.runSync(ends[0].destroy)
      Effect.runSync(ends[1].destroy)
    }
    this.lines.clear()
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

  private makeLine(from: Machine, to: Machine, target: Address.Address): Line {
    const machines = [from, to] as const
    const source = this.sourceOf(from, target)
    // I2P has no ports.
    const port = target.networkId === Address.NetworkId.i2p ? 0 : from.ephemeralPort()
    const isProxied = source === undefined || source === "proxy"
    const local = isProxied ? { host: "0.0.0.0", port: 0 } : { host: Address.formatHost(source), port }
    const seen = isProxied ? { host: "127.0.0.1", port } : local
    const remote = endpointOf(target)
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
        this.lines.delete(line)
        if (cause !== undefined) this.event(from, to, `is disconnected: ${cause.message}`)
      }
    })
    const pair = Connection.makePair({
      addresses: [local, remote],
      remoteAddresses: [remote, seen],
      carry: line.carry,
      window: this.options.window,
      closeTimeout: this.options.closeTimeout
    }).pipe(Scope.provide(Scope.makeUnsafe()), Effect.provideContext(this.context), Effect.runSync)
    line.connect(pair)
    this.lines.add(line)
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
      if (!line.isOver) line.linger(this.timers.after(lingerTimeout, () => Effect.runSync(end.destroy)))
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
      // An onion or I2P name that is not a valid address. It is never resolved (RFC 7686).
      if (hosts.length === 0 && from.proxied.size === 0 && /\.(?:onion|i2p)$/i.test(host)) {
        return dialFailed("NeedsProxy", goal)
      }
    }
    if (hosts.length === 0) {
      return dialFailed("HostNotFound", goal, systemError("ENOTFOUND", `getaddrinfo ${host}`))
    }
    const reachable = hosts.filter((address) => this.sourceOf(from, address) !== undefined)
    const [first, ...others] = reachable.map(({ address, networkId }) => ({ networkId, address, port }))
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
      let cancel: (() => void) | undefined
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
      return Effect.sync(() => cancel?.())
    })
  }

  /** Dials one address; the returned function gives up. */
  private attempt(from: Machine, target: Address.Address, goal: Endpoint, deadline: number, done: Dialled): () => void {
    const { timers } = this
    const to = Address.isLocal(target) ? from : this.byHost.get(keyOf(target))
    const text = Address.format(target)
    this.event(from, to ?? text, `dials ${text}`)
    const waiting: Array<Timer> = []
    let isOver = false
    const stop = (): void => {
      isOver = true
      for (const timer of waiting) timers.cancel(timer)
    }
    const finish: Dialled = (result) => {
      stop()
      done(result)
    }
    waiting.push(
      timers.add(deadline, () => {
        this.event(from, to ?? text, "gets no answer")
        finish(dialFailed("Timeout", goal))
      })
    )
    // Nobody has the address: the packets vanish.
    if (to === undefined) return stop
    const { latency } = this.linkOf(from.number, to.number).numbers
    let isAnswered = false
    const arrive = (): void => {
      if (isOver || isAnswered || !this.isOpen(from.number, to.number)) return
      const port = to.ports.get(portKey(target))
      if (port === undefined) {
        isAnswered = true
        waiting.push(
          timers.after(latency, () => {
            this.event(to, from, "refuses")
            finish(dialFailed("Refused", goal, systemError("ECONNREFUSED", `connect ${text}`)))
          })
        )
        return
      }
      if (port.pending.length >= port.backlog) return
      isAnswered = true
      const line = this.makeLine(from, to, target)
      port.pending.push([line, line.ends[1]])
      timers.after(latency, () => {
        if (line.isOver) return
        if (isOver) {
          Effect.runSync(line.ends[0].destroy)
          return
        }
        this.event(from, to, "is connected")
        finish([line, line.ends[0]])
      })
      port.wake()
    }
    for (const after of retries) {
      if (timers.now + after >= deadline) break
      const send = (): void => {
        if (!isAnswered && this.isOpen(from.number, to.number)) timers.after(latency, arrive)
      }
      waiting.push(timers.after(after, send))
    }
    return stop
  }

  listen(machine: Machine, options: ListenOptions): Effect.Effect<Listener, ConnectionError, Scope.Scope> {
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
