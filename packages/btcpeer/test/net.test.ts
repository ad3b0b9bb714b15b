/** `btcpeer net` without a network: what it asks, what it prints, and how it fails. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { FetchHttpClient } from "effect/http"
import * as Layer from "effect/Layer"
import { TestClock } from "effect/testing"
import { run } from "../src/command.ts"
import { net, parseUrl } from "../src/net.ts"
import { makeMemory } from "../src/output.ts"
import { networkInfo } from "./support/networkInfo.ts"

const network = networkInfo({
  localservices: "0000000000000009",
  localservicesnames: ["NETWORK", "WITNESS"],
  networks: [{ name: "ipv4", limited: false, reachable: true, proxy: "", proxy_randomize_credentials: false }]
})

const status = (body: unknown, status = 200): Response =>
  new Response(typeof body === "string" ? body : JSON.stringify(body), {
    status,
    headers: { "content-type": typeof body === "string" ? "text/html" : "application/json" }
  })

type Answer = (url: URL) => Response | Promise<Response>
const idle: Answer = ({ pathname }) => status(pathname === "/peers" ? [] : network)

const table = [
  "btcpeer client v0.1.0 - server 70016/us:1/ - services nw",
  "",
  "         ipv4   total   block",
  "in          0       0",
  "out         0       0       0",
  "total       0       0",
  "",
  "Local addresses: n/a"
]

const asking = (answer: Answer) => {
  const asked: Array<string> = []
  const fetch = async (input: string | URL | Request): Promise<Response> => {
    const url = new URL(input instanceof Request ? input.url : input)
    asked.push(url.href)
    return answer(url)
  }
  return { asked, provide: Effect.provideService(FetchHttpClient.Fetch, fetch as typeof globalThis.fetch) }
}

/** Runs the command, and returns what it wrote. */
const command = Effect.fnUntraced(function* (answer: Answer, ...argv: ReadonlyArray<string>) {
  const memory = makeMemory()
  const { asked, provide } = asking(answer)
  const code = yield* run(["net", ...argv]).pipe(provide, Effect.provide(Layer.merge(NodeServices.layer, memory.layer)))
  return { asked, code, lines: memory.lines, errors: memory.errors }
})

/** An error as Node's `fetch` fails. */
const failed =
  (code: string): Answer =>
  () => {
    throw new TypeError("fetch failed", { cause: Object.assign(new Error(code), { code }) })
  }

describe("btcpeer net", () => {
  it.effect("asks the status of this machine and prints the table", () =>
    Effect.gen(function* () {
      const { asked, code, errors, lines } = yield* command(idle)
      assert.deepStrictEqual({ code, errors, lines }, { code: 0, errors: [], lines: table })
      assert.deepStrictEqual(asked.toSorted(), ["http://127.0.0.1:8330/network", "http://127.0.0.1:8330/peers"])
    })
  )

  it.effect("asks the URL that it is given, below its path", () =>
    Effect.gen(function* () {
      const { asked } = yield* command(idle, "--url", "http://localhost:9000/node/")
      assert.deepStrictEqual(asked.toSorted(), [
        "http://localhost:9000/node/network",
        "http://localhost:9000/node/peers"
      ])
    })
  )

  for (const [what, answer, expected] of [
    ["nothing answers", failed("ECONNREFUSED"), "nothing answers at http://127.0.0.1:8330: the connection was refused"],
    ["the host is unknown", failed("ENOTFOUND"), "nothing answers at http://127.0.0.1:8330: no such host"],
    ["the error is another one", failed("EPROTO"), "nothing answers at http://127.0.0.1:8330: EPROTO"],
    [
      "a web page answers",
      () => status("<html>hello</html>"),
      "no status of a server at http://127.0.0.1:8330: the answer is something else"
    ],
    [
      "the answer lacks fields",
      () => status([{ id: 1 }]),
      "no status of a server at http://127.0.0.1:8330: the answer is something else"
    ],
    [
      "the path does not exist",
      () => status("", 404),
      "no status of a server at http://127.0.0.1:8330: HTTP status 404"
    ],
    [
      "the server fails",
      () => status({ error: "x" }, 500),
      "no status of a server at http://127.0.0.1:8330: HTTP status 500"
    ],
    [
      "the status refuses",
      () => status({ _tag: "RequestRefused", message: "not\u001b you" }, 403),
      "http://127.0.0.1:8330 refuses the request: not\\x1b you"
    ]
  ] as const) {
    it.effect(`is one line on stderr and exit code 1 if ${what}`, () =>
      Effect.gen(function* () {
        const { code, errors, lines } = yield* command(answer)
        assert.deepStrictEqual({ code, errors, lines }, { code: 1, errors: [`btcpeer: ${expected}`], lines: [] })
      })
    )
  }

  it.effect("waits 5 seconds for an answer", () =>
    Effect.gen(function* () {
      const asked = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(
        command(() => {
          Deferred.doneUnsafe(asked, Effect.void)
          return new Promise<Response>(() => {})
        })
      )
      yield* Deferred.await(asked)
      yield* TestClock.adjust("5 seconds")
      const { code, errors } = yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        { code, errors },
        { code: 1, errors: ["btcpeer: no answer from http://127.0.0.1:8330 within 5s"] }
      )
    })
  )

  it.effect("does not repeat a password", () =>
    Effect.gen(function* () {
      for (const url of ["http://user:secret@127.0.0.1/", "socks5://user:secret@127.0.0.1"]) {
        const { asked, code, errors } = yield* command(idle, "--url", url)
        assert.strictEqual(code, 1)
        assert.match(errors[0]!, /^btcpeer: --url: /)
        assert.notInclude(errors.join(""), "secret")
        assert.deepStrictEqual(asked, [])
      }
    })
  )

  it("takes http and https URLs", () => {
    assert.strictEqual(parseUrl("https://[::1]:1/x").href, "https://[::1]:1/x")
    for (const text of ["", "8330", "127.0.0.1:8330", "file:///etc/passwd", "http://"])
      assert.throws(() => parseUrl(text))
  })
})

describe("btcpeer net --watch", () => {
  /** Shows the table, asks `check` after each answer, and stops. Answers come at once, but not in the same turn. */
  const watch = Effect.fnUntraced(function* (columns: number | undefined, TERM?: string) {
    const stop = yield* Deferred.make<string>()
    const memory = makeMemory(Deferred.await(stop), columns)
    const { asked, provide } = asking(idle)
    const fiber = yield* net(new URL("http://127.0.0.1:8330"), true, "0.1.0", { rows: () => 24, TERM }).pipe(
      provide,
      Effect.provide(memory.layer),
      Effect.forkChild({ startImmediately: true })
    )
    const shown = Effect.fnUntraced(function* (times: number) {
      while (memory.lines.filter((line) => line.includes("Local addresses")).length < times)
        yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
    })
    return { asked, fiber, shown, stop: Deferred.succeed(stop, "interrupted"), lines: memory.lines }
  })

  it.effect("asks again every 2 seconds, and ends when the user stops it", () =>
    Effect.gen(function* () {
      const { asked, fiber, lines, shown, stop } = yield* watch(undefined)
      yield* shown(1)
      assert.deepStrictEqual(lines, table)
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(asked.length, 2)
      yield* TestClock.adjust("1 millis")
      yield* shown(2)
      assert.deepStrictEqual(lines, [...table, "", ...table])
      yield* stop
      yield* Fiber.join(fiber)
    })
  )

  it.effect("writes over the last table on a terminal that can", () =>
    Effect.gen(function* () {
      const { lines, shown, stop } = yield* watch(40)
      yield* shown(1)
      yield* TestClock.adjust("2 seconds")
      yield* shown(2)
      yield* stop
      assert.strictEqual(lines.length, 2 * table.length)
      assert.strictEqual(lines[0], `\u001b[2J\u001b[H${table[0]!.slice(0, 40)}\u001b[K`)
      assert.strictEqual(lines[table.length], `\u001b[H${table[0]!.slice(0, 40)}\u001b[K`)
      const dumb = yield* watch(40, "dumb")
      yield* dumb.shown(1)
      yield* dumb.stop
      assert.deepStrictEqual(dumb.lines, table)
    })
  )
})
