/** `btcpeer crawl`: visits all nodes that it hears of, and says what it found. */
import { SingleBar } from "cli-progress"
import * as Clock from "effect/Clock"
import { SecureRandom } from "effect/crypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { SqlClient } from "effect/sql/SqlClient"
import * as Stream from "effect/Stream"
import * as Address from "effect-bitcoin-peer/Address"
import type { Endpoint } from "effect-bitcoin-peer/Connection"
import type * as Network from "effect-bitcoin-peer/Network"
import type { Socks5Proxy } from "effect-bitcoin-peer/NodeConnection"
import * as Nonce from "effect-bitcoin-peer/Nonce"
import type { Transport } from "effect-bitcoin-peer/Transport"
import * as Crawler from "effect-bitcoin-peer/server/Crawler"
import * as NodeDialer from "effect-bitcoin-peer/server/NodeDialer"
import * as NodeSqlite from "effect-bitcoin-peer/server/NodeSqlite"
import * as dns from "node:dns/promises"
import * as fs from "node:fs"
import * as path from "node:path"
import { summaryEvent, summaryLines, visitEvent } from "./crawlReport.ts"
import { Failure, failure } from "./failure.ts"
import { Output } from "./output.ts"
import type { Format } from "./summary.ts"
import { cleanJson, counted, grouped } from "./text.ts"

export interface CrawlSettings {
  readonly network: Network.Network
  readonly seeds: ReadonlyArray<Endpoint>
  /** Whether the DNS seeds of the network are asked. */
  readonly dns: boolean
  readonly db: string | undefined
  /** Crawl for ever, with this time between two visits of an address. */
  readonly every: Duration.Duration | undefined
  readonly limit: Duration.Duration | undefined
  readonly concurrency: number
  readonly rate: number
  readonly answerTimeout: Duration.Duration | undefined
  readonly proxy: Socks5Proxy | undefined
  readonly allowPrivate: boolean
  readonly contact: string | undefined
  readonly userAgent: string | undefined
  readonly transport: Transport
  readonly snapshot: string | undefined
  readonly seedDump: string | undefined
  readonly format: Format
}

// ---- what could not work is said before anything is dialled

/** Descriptors for what is no visit. */
const otherFiles = 64

/** The files that this process may open; `undefined` where the system does not tell. */
const openFiles = (): number | undefined => {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(fs.readFileSync("/proc/self/limits", "utf8")) ?? []
    return soft === undefined ? undefined : Number(soft)
  } catch {
    return undefined
  }
}

const checkFiles = (concurrency: number, networks: number): Effect.Effect<void, Failure> => {
  const needed = concurrency * networks + otherFiles
  const allowed = openFiles()
  return allowed === undefined || needed <= allowed
    ? Effect.void
    : Effect.fail(
        new Failure({
          message: `--concurrency: ${grouped(concurrency)} visits in ${networks} networks need ${grouped(needed)} open files, and this process may have ${grouped(allowed)} (ulimit -n)`
        })
      )
}

/** A crawl takes long, so that a file that cannot be written must not be noticed at its end. */
const checkFolder = (flag: string, file: string | undefined): Effect.Effect<void, Failure> =>
  file === undefined
    ? Effect.void
    : Effect.try({
        try: () => fs.accessSync(path.dirname(path.resolve(file)), fs.constants.W_OK),
        catch: (error) => new Failure({ message: `${flag}: ${(error as Error).message}` })
      })

const write = (flag: string, file: string | undefined, text: () => string): Effect.Effect<void, Failure> =>
  file === undefined
    ? Effect.void
    : Effect.try({
        try: () => {
          // A reader never sees half of the file.
          fs.writeFileSync(`${file}.new`, text())
          fs.renameSync(`${file}.new`, file)
        },
        catch: (error) => new Failure({ message: `${flag}: ${(error as Error).message}` })
      })

// ---- where to start

const lookUp = (name: string) =>
  Effect.tryPromise({
    try: () => dns.lookup(name, { all: true }),
    catch: (error) => new Failure({ message: `${name}: ${(error as Error).message}` })
  })

const addressesOf = (
  { host, port }: Endpoint,
  hasProxy: boolean
): Effect.Effect<ReadonlyArray<Address.Address>, Failure> => {
  const literal = Address.parseHost(host)
  if (Result.isSuccess(literal)) return Effect.succeed([{ ...literal.success, port }])
  if (/\.(onion|i2p)\.?$/i.test(host)) return Effect.fail(failure(literal.failure))
  if (hasProxy)
    return Effect.fail(new Failure({ message: `--seed ${host}: give an address: with --proxy no name is looked up` }))
  return Effect.map(lookUp(host), (found) =>
    found.flatMap(({ address }) => {
      const host = Address.parseHost(address)
      return Result.isSuccess(host) ? [{ ...host.success, port }] : []
    })
  )
}

const seedsOf = Effect.fnUntraced(function* (
  settings: CrawlSettings,
  warn: (line: string) => void
): Effect.fn.Return<ReadonlyArray<Address.Address>, Failure> {
  const { network, proxy } = settings
  const given = yield* Effect.forEach(settings.seeds, (seed) => addressesOf(seed, proxy !== undefined))
  if (!settings.dns) return given.flat()
  if (proxy !== undefined)
    return yield* new Failure({
      message: "--dns: cannot be used together with --proxy: a lookup does not go through it"
    })
  if (network.dnsSeeds.length === 0) return yield* new Failure({ message: `--dns: ${network.name} has no DNS seeds` })
  const asked = yield* Effect.forEach(
    network.dnsSeeds,
    (host) =>
      Effect.catch(addressesOf({ host, port: network.port }, false), ({ message }) => {
        warn(`DNS seed ${message}`)
        return Effect.succeed([])
      }),
    { concurrency: "unbounded" }
  )
  const found = [...given.flat(), ...asked.flat()]
  return found.length > 0 ? found : yield* new Failure({ message: "--dns: no DNS seed answered" })
})

// ---- the crawl

/** The progress moves this often. */
const look = Duration.millis(200)

/** On a terminal that can move its cursor: one line with how far the crawl is, until the effect ends. */
const withProgress = <A, E, R>(
  crawl: Crawler.Crawl,
  progress: { readonly visited: number; readonly reached: number },
  use: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | Output> =>
  Effect.flatMap(Output, ({ columns, flush, paint }) => {
    const width = columns()
    if (width === undefined || width === 0 || process.env["TERM"] === "dumb") return use
    const bar = new SingleBar({
      stream: process.stdout,
      format: `${paint("cyan", "crawling")} {bar} {value} of {total}  {reached} reached  {visiting} at once`,
      barsize: Math.max(5, Math.min(40, width - 60)),
      barCompleteChar: "█",
      barIncompleteChar: "░",
      hideCursor: true,
      clearOnComplete: true,
      gracefulExit: false
    })
    const show = Effect.map(crawl.counts, (counts) => {
      const { reached, visited } = progress
      bar.setTotal(visited + counts.waiting + counts.visiting)
      bar.update(visited, { visiting: counts.visiting, reached: grouped(reached) })
    })
    return Effect.acquireUseRelease(
      Effect.andThen(
        flush,
        Effect.map(crawl.counts, ({ visiting, waiting }) => bar.start(waiting + visiting, 0, { visiting, reached: 0 }))
      ),
      () => Effect.raceFirst(use, Effect.forever(Effect.andThen(show, Effect.sleep(look)))),
      () => Effect.sync(() => bar.stop())
    )
  })

const frontierOf = (db: string | undefined): Layer.Layer<Crawler.Frontier, Failure> => {
  if (db === undefined) return Crawler.layerMemory
  const opened = Layer.catch(NodeSqlite.layer({ filename: db }), (error) =>
    Layer.effect(SqlClient, Effect.fail(new Failure({ message: `--db: ${error.message}` })))
  )
  return Layer.provide(Crawler.layerSql, opened)
}

/** Tor builds a circuit for each connection, to IPv4 and IPv6 too. */
const throughProxy: Crawler.Timeouts = { connect: "100 seconds", handshake: "40 seconds", answer: "90 seconds" }

/** Visits each address that is due, until none is left, the time is over, or the user stops it. */
export const crawl = Effect.fnUntraced(function* (settings: CrawlSettings): Effect.fn.Return<void, Failure, Output> {
  const output = yield* Output
  const { db, every, format, network, proxy } = settings
  const warn = (line: string): void => output.error(`btcpeer: ${line}`)
  // IPv4 and IPv6, and Tor through a proxy.
  yield* checkFiles(settings.concurrency, proxy === undefined ? 2 : 3)
  yield* checkFolder("--snapshot", settings.snapshot)
  yield* checkFolder("--seed-dump", settings.seedDump)
  const seeds = yield* seedsOf(settings, warn)
  const limits: Crawler.Timeouts = {
    ...(proxy === undefined ? {} : throughProxy),
    ...(settings.answerTimeout === undefined ? {} : { answer: settings.answerTimeout })
  }
  const options: Crawler.Options = {
    network,
    seeds,
    once: every === undefined,
    ...(every === undefined ? {} : { revisit: every }),
    concurrency: settings.concurrency,
    rate: settings.rate,
    timeouts: { ipv4: limits, ipv6: limits, onion: limits },
    allowUnroutable: settings.allowPrivate,
    contact: settings.contact,
    userAgent: settings.userAgent,
    transport: settings.transport
  }

  yield* Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const now = (): number => clock.currentTimeMillisUnsafe()
    const started = now()
    const crawl = yield* Effect.mapError(Crawler.make(options), failure)
    const { known, visiting, waiting } = yield* crawl.counts
    if (known === 0) {
      return yield* new Failure({
        message:
          seeds.length > 0 && !settings.allowPrivate
            ? "no address to start from: those of --seed are private, and need --allow-private"
            : "no address to start from: give --seed HOST:PORT, --dns, or a --db of an earlier crawl"
      })
    }
    if (every === undefined) {
      const cutShort = (yield* crawl.entries).filter(
        ({ dueAt, state, visitedAt }) => state === "new" && visitedAt > 0 && dueAt > started
      )
      const last = cutShort.reduce((last, { dueAt }) => Math.max(last, dueAt), 0)
      const until = new Date(last).toISOString().slice(11, 16)
      if (last > 0)
        warn(`cut short last time: ${counted(cutShort.length, "visit")}; the crawl waits for them until ${until} UTC`)
    }
    if (waiting + visiting === 0) warn("no address is due: each was visited in the last hour")

    const progress = { visited: 0, reached: 0 }
    const visits = Stream.runForEach(crawl.visits, (visit) => {
      progress.visited++
      if (visit._tag === "Reached") progress.reached++
      if (format === "text") return Effect.void
      output.line(cleanJson(JSON.stringify(visitEvent(visit, format === "full"))))
      return output.room() ?? Effect.void
    })
    const asked = Effect.raceFirst(
      output.stop,
      settings.limit === undefined ? Effect.never : Effect.as(Effect.sleep(settings.limit), "the time is over")
    )
    const running = Effect.raceFirst(Effect.as(visits, undefined), asked)
    const stopped = yield* Effect.mapError(
      format === "text" ? withProgress(crawl, progress, running) : running,
      failure
    )

    const entries = yield* crawl.entries
    yield* write("--snapshot", settings.snapshot, () => Crawler.formatSnapshot(entries, now()))
    yield* write("--seed-dump", settings.seedDump, () => Crawler.formatSeedDump(entries, network))
    const summary = summaryEvent({ network: network.name, millis: now() - started, stopped, ...progress, entries })
    if (format === "text") for (const line of summaryLines(output, summary)) output.line(line)
    else output.line(cleanJson(JSON.stringify(summary)))
    if (progress.visited > 0 && progress.reached === 0 && stopped === undefined) {
      return yield* new Failure({ message: "no node was reached" })
    }
  }).pipe(
    Effect.scoped,
    Effect.provide([
      frontierOf(db),
      proxy === undefined
        ? NodeDialer.layerDirect({ names: false })
        : NodeDialer.layerSocks({ proxy, connectTimeout: "100 seconds" }),
      // The self-check of a handshake needs the nonces of all visits that run.
      Layer.effect(Nonce.Nonce, Nonce.make({ capacity: settings.concurrency * 3 + otherFiles })).pipe(
        Layer.provide(SecureRandom.layerWebCrypto)
      )
    ])
  )
})
