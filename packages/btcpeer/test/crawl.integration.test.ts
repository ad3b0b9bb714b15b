/** `btcpeer crawl` as a real process, over nodes on loopback addresses of this machine. */
import { assert, describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Address from "effect-bitcoin-peer/Address"
import * as Network from "effect-bitcoin-peer/Network"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import * as Nonce from "effect-bitcoin-peer/Nonce"
import * as PeerServer from "effect-bitcoin-peer/PeerServer"
import * as Wire from "effect-bitcoin-peer/Wire"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { serveSocks5 } from "../../../test/support/proxies.ts"
import { freePort } from "../../../test/support/sockets.ts"
import { btcpeer, live, oneLine, type Running, until } from "./support/processes.ts"

const count = 20
const hostOf = (index: number): string => `127.3.${index >> 2}.${(index & 3) + 1}`

const told = (host: string, port: number): Wire.AddressV2 => ({
  ...Result.getOrThrow(Address.parse(`${host}:${port}`)),
  services: Wire.Service.network | Wire.Service.witness,
  timestamp: 1_700_000_000
})

interface World extends AsyncDisposable {
  readonly port: number
  readonly folder: string
  readonly file: (name: string) => string
  /** How many connections each node accepted. */
  readonly connections: ReadonlyArray<number>
  readonly userAgents: Set<string>
}

/** Twenty nodes, each of which knows the next three, and one address at which nobody listens. */
const serve = async (): Promise<World> => {
  const port = await Effect.runPromise(freePort)
  const connections = Array.from({ length: count }, () => 0)
  const userAgents = new Set<string>()
  const scope = Scope.makeUnsafe()
  const node = (index: number) =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ host: hostOf(index), port })
      const others = [...[1, 2, 3].map((step) => told(hostOf((index + step) % count), port)), told("127.4.0.1", port)]
      const peer = () => {
        connections[index]!++
        return {
          network: Network.regtest,
          services: 9n,
          userAgent: index % 2 === 0 ? "/even:1/" : "/odd:\u007e/",
          handlers: {
            getaddr: (
              _: unknown,
              peer: { sendAddresses: (all: ReadonlyArray<Wire.AddressV2>) => Effect.Effect<unknown, unknown> }
            ) => peer.sendAddresses(others)
          },
          onVersion: (version: Wire.Version) => Effect.sync(() => void userAgents.add(version.userAgent))
        }
      }
      yield* Effect.forkScoped(PeerServer.serve(listener, { peer }))
    })
  await Effect.runPromise(
    Effect.forEach(connections, (_, index) => node(index), { discard: true }).pipe(
      Scope.provide(scope),
      Effect.provide(Nonce.layer)
    )
  )
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "btcpeer-crawl-"))
  return {
    port,
    folder,
    file: (name) => path.join(folder, name),
    connections,
    userAgents,
    [Symbol.asyncDispose]: async () => {
      await Effect.runPromise(Scope.close(scope, Exit.void))
      fs.rmSync(folder, { recursive: true, force: true })
    }
  }
}

type Line = Readonly<Record<string, unknown>>

const linesOf = (stdout: string): ReadonlyArray<Line> =>
  stdout
    .slice(0, stdout.lastIndexOf("\n") + 1)
    .split("\n")
    .filter((line) => line !== "")
    .map((line): Line => JSON.parse(line))

const visitsOf = (stdout: string): ReadonlyArray<Line> => linesOf(stdout).filter(({ event }) => event === "visit")
const addressesOf = (stdout: string): ReadonlyArray<unknown> => visitsOf(stdout).map(({ address }) => address)

const crawl = ({ port }: World, ...argv: ReadonlyArray<string>): Running =>
  btcpeer("crawl", "-n", "regtest", "--seed", `127.3.0.1:${port}`, "--allow-private", ...argv)

const ones = Array.from({ length: count }, () => 1)

describe("crawl", () => {
  live.linux(
    "finds all nodes from one and sums them up for people; its files are those of other crawlers",
    async () => {
      await using world = await serve()
      const files = ["--snapshot", world.file("snapshot.json"), "--seed-dump", world.file("dnsseed.dump")]
      const { code, stderr, stdout } = await crawl(world, "--contact", "me@example.org", ...files).ended
      assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
      const [head, ...tables] = stdout.split("\n")
      assert.match(head!, /^Crawled regtest for [\d.]+ s: found 21 addresses, visited 21, reached 20 nodes$/)
      assert.deepStrictEqual(tables, [
        "",
        "  network                found  visited  reached",
        "  not_publicly_routable     21       21       20",
        "",
        "  user agent  nodes",
        "  /even:1/       10",
        "  /odd:~/        10",
        "",
        "  protocol version  nodes",
        "  70017                20",
        "",
        "  not reached because  addresses",
        "  Refused                      1",
        ""
      ])
      assert.deepStrictEqual(world.connections, ones)
      assert.deepStrictEqual([...world.userAgents], ["/effect-bitcoin-crawler:0.1.0(me@example.org)/"])
      const snapshot = JSON.parse(fs.readFileSync(world.file("snapshot.json"), "utf8"))
      assert.strictEqual(snapshot.total_nodes, count)
      assert.deepStrictEqual(snapshot.nodes[`127.3.0.1:${world.port}`].slice(0, 2), [70_017, "/even:1/"])
      assert.lengthOf(fs.readFileSync(world.file("dnsseed.dump"), "utf8").trim().split("\n"), 1 + count)
      assert.lengthOf(fs.readdirSync(world.folder), 2)
    }
  )

  live.linux("prints a line for each visit and one at the end for programs", async () => {
    await using world = await serve()
    const { code, stdout } = await crawl(world, "--json=full", "--transport", "v1").ended
    assert.strictEqual(code, 0)
    const visits = visitsOf(stdout)
    assert.lengthOf(visits, 21)
    const first = visits.find(({ address }) => address === `127.3.0.1:${world.port}`)!
    assert.deepInclude(first, {
      network: "not_publicly_routable",
      result: "reached",
      userAgent: "/even:1/",
      protocolVersion: 70_017,
      services: ["NETWORK", "WITNESS", "P2P_V2"],
      transport: "v1",
      answer: "Answered",
      learnt: 4
    })
    assert.deepInclude(first["addresses"], {
      address: `127.3.0.2:${world.port}`,
      time: 1_700_000_000,
      services: "0000000000000009"
    })
    const failed = visits.find(({ result }) => result === "failed")!
    assert.deepInclude(failed, { address: `127.4.0.1:${world.port}`, reason: "Refused" })
    const { seconds, ...summary } = linesOf(stdout).at(-1)!
    assert.isNumber(seconds)
    assert.deepStrictEqual(summary, {
      event: "summary",
      network: "regtest",
      visited: 21,
      reached: 20,
      found: 21,
      networks: { not_publicly_routable: { found: 21, visited: 21, reached: 20 } },
      userAgents: { "/even:1/": 10, "/odd:~/": 10 },
      protocolVersions: { 70_017: 20 },
      transports: { v1: 20 },
      failed: { Refused: 1 }
    })
  })

  live.linux("killed in the middle, goes on with its database: no node is visited twice, none is lost", async () => {
    await using world = await serve()
    const db = ["--db", world.file("crawl.db"), "--json", "--rate", "5"]
    const first = crawl(world, ...db)
    await until(() => visitsOf(first.stdout()).length >= 6)
    first.child.kill("SIGKILL")
    const before = addressesOf((await first.ended).stdout)
    assert.isBelow(before.length, count)
    // Those that were being visited are due in an hour: the crawl would wait for them.
    const second = crawl(world, ...db, "--for", "8s")
    const { code, stdout } = await second.ended
    assert.strictEqual(code, 0)
    const all = [...before, ...addressesOf(stdout)]
    assert.strictEqual(new Set(all).size, all.length)
    // Each was dialled once, those that were cut short too.
    assert.deepStrictEqual(world.connections, ones)
    assert.isAtLeast(all.length, count - 4)
    assert.strictEqual(linesOf(stdout).at(-1)!["found"], 21)
    // Nothing is due any more.
    const third = await crawl(world, ...db, "--for", "1s").ended
    assert.deepStrictEqual(addressesOf(third.stdout), [])
  })

  live.linux("visits all nodes through a proxy, and looks up no name", async () => {
    await using world = await serve()
    await Effect.runPromise(
      Effect.gen(function* () {
        const proxy = yield* serveSocks5({ to: { host: hostOf(0), port: world.port } })
        const flags = ["--proxy", `socks5://127.0.0.1:${proxy.port}`, "--json", "--transport", "v1"]
        const { code, stderr, stdout } = yield* Effect.promise(() => crawl(world, ...flags).ended)
        assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
        // The proxy connects all of them to the same node, which knows four others.
        const visited = ["127.3.0.1", "127.3.0.2", "127.3.0.3", "127.3.0.4", "127.4.0.1"]
        assert.deepStrictEqual(proxy.asked.map(({ host }) => host).toSorted(), visited)
        assert.lengthOf(visitsOf(stdout), 5)
        assert.strictEqual(world.connections[0], 5)
      }).pipe(Effect.scoped)
    )
  })

  live.linux("Ctrl-C ends it with the summary", async () => {
    await using world = await serve()
    const crawling = crawl(world, "--rate", "2", "--json")
    await until(() => visitsOf(crawling.stdout()).length >= 2)
    crawling.child.kill("SIGINT")
    const { code, stderr, stdout } = await crawling.ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.deepInclude(linesOf(stdout).at(-1), { event: "summary", stopped: "interrupted" })
  })

  live("a wrong flag is one line and exit code 1, before anything is dialled", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "btcpeer-crawl-"))
    const text = path.join(folder, "text")
    fs.writeFileSync(text, "no database\n".repeat(1000))
    const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
      [[], /no address to start from: give --seed HOST:PORT, --dns, or a --db of an earlier crawl/],
      [["--seed", "127.0.0.1"], /no address to start from: those of --seed are private, and need --allow-private/],
      [["--seed", "127.0.0.1:99999"], /--seed "127.0.0.1:99999": port "99999" is not a number from 1 to 65535/],
      [["--seed", "http://x"], /--seed "http:\/\/x": a host is expected, not a URL/],
      [["--dns"], /--dns: regtest has no DNS seeds/],
      [
        ["--seed", "node.example", "--proxy", "socks5://127.0.0.1:9"],
        /give an address: with --proxy no name is looked up/
      ],
      [["--seed", "short.onion"], /"short.onion" does not have 56 digits/],
      [["--proxy", "http://127.0.0.1:9"], /--proxy: not of the form socks5/],
      [["--rate", "0"], /a number above 0/],
      [["--concurrency", "0"], /a number from 1 to 100000/],
      [["--every", "9m"], /a duration of at least 10m/],
      [["--contact", "http://x"], /contact must be printable ASCII without/],
      [["--snapshot", "/nonexistent/x"], /--snapshot: .*no such file or directory/],
      [["--db", "/nonexistent/x.db"], /--db: SQLite could not open \/nonexistent\/x.db/],
      [["--db", text], /--db: .*file is not a database/],
      [["--seed", "127.0.0.1:1", "--allow-private", "--transport", "v1"], /no node was reached/]
    ]
    for (const [argv, expected] of wrong) {
      const { code, stderr } = await btcpeer("crawl", "-n", "regtest", ...argv).ended
      assert.strictEqual(code, 1, argv.join(" "))
      oneLine(stderr, expected)
    }
    fs.rmSync(folder, { recursive: true })
  })

  live.linux("more visits at once than files may be open is an error with both numbers", async () => {
    const { code, stderr } = await btcpeer("crawl", "-n", "regtest", "--seed", "127.0.0.1", "--concurrency", "100000")
      .ended
    const allowed = Number(/^Max open files\s+(\d+)\s+(\d+)/m.exec(fs.readFileSync("/proc/self/limits", "utf8"))?.[2])
    assert.strictEqual(code, 1)
    if (allowed < 200_064)
      oneLine(
        stderr,
        /--concurrency: 100,000 visits in 2 networks need 200,064 open files, and this process may have [\d,]+ \(ulimit -n\)/
      )
  })
})
