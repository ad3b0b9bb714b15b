/** `connect` as a real process: how it fails, is stopped, and is slowed down by its reader. */
import { assert, describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as http from "node:http"
import * as net from "node:net"
import * as Network from "effect-bitcoin-peer/Network"
import { serveSocks5 } from "../../../test/support/proxies.ts"
import { decodeLine } from "./support/fixtures.ts"
import { btcpeer, dialsTo, frames, hello, listen, live, oneLine, running, serve, until } from "./support/processes.ts"

/** `btcpeer connect` to a node of regtest, in plain version 1. */
const connectV1 = (address: string, ...flags: ReadonlyArray<string>) =>
  btcpeer("connect", address, "-n", "regtest", "--transport", "v1", ...flags)

describe("connect", () => {
  const fails = (
    name: string,
    onSocket: (socket: net.Socket) => void,
    expected: RegExp,
    ...argv: ReadonlyArray<string>
  ): void =>
    live(`${name}: one line and exit code 1`, async () => {
      await using server = await serve(onSocket)
      const args = argv.includes("--transport") ? argv : ["--transport", "v1", ...argv]
      const { code, stderr } = await btcpeer("connect", server.address, "-n", "regtest", ...args).ended
      assert.strictEqual(code, 1)
      oneLine(stderr, expected)
    })

  live("no listener at the address: one line and exit code 1", async () => {
    const { address } = await serve(() => {}).then(async (server) => {
      await server[Symbol.asyncDispose]()
      return server
    })
    const { code, stderr, stdout } = await btcpeer("connect", address, "-n", "regtest").ended
    assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
    oneLine(stderr, /connection refused/)
  })

  live("a dial that fails, and a handshake, is an event for programs", async () => {
    const { address } = await serve(() => {}).then(async (server) => {
      await server[Symbol.asyncDispose]()
      return server
    })
    const dialing = btcpeer("connect", address, "-n", "regtest", "--json")
    assert.strictEqual((await dialing.ended).code, 1)
    const message = `connect ${address}: connection refused`
    assert.deepStrictEqual(dialing.events(), [{ event: "failed", address, reason: "Refused", message }])
    await using server = await serve((socket) => void socket.end())
    const shaking = btcpeer("connect", server.address, "-n", "regtest", "--json")
    assert.strictEqual((await shaking.ended).code, 1)
    assert.deepInclude(shaking.events().at(-1), { event: "failed", address: server.address, reason: "Disconnected" })
  })

  live("an onion service through a SOCKS5 proxy, on the port of the network; without one no DNS is asked", async () => {
    const onion = "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid.onion"
    const listener = await listen("--user-agent", "")
    const port = Number(listener.address.split(":")[1])
    await Effect.runPromise(
      Effect.gen(function* () {
        const login = { user: "me", password: "p@ss" }
        const proxy = yield* serveSocks5({ login, to: { host: "127.0.0.1", port } })
        const to = (login: string) => [
          "--proxy",
          `socks5://${login}@127.0.0.1:${proxy.port}`,
          "-n",
          "regtest",
          "--json"
        ]
        const connector = btcpeer("connect", onion, ...to("me:p%40ss"), "--for", "200ms")
        assert.deepInclude(yield* Effect.promise(() => connector.ended), { code: 0, stderr: "" })
        const handshake = connector.events().find((event) => event.event === "handshake")
        assert.deepInclude(handshake, { address: `${onion}:18444`, userAgent: "" })
        assert.deepInclude(proxy.asked[0], { ...login, host: onion, port: 18_444 })
        const refused = btcpeer("connect", onion, ...to("me:wrong"))
        const { code, stderr } = yield* Effect.promise(() => refused.ended)
        assert.strictEqual(code, 1)
        oneLine(stderr, /the proxy does not take this user and password/)
        assert.deepInclude(refused.events()[0], { event: "failed", reason: "ProxyAuthFailed" })
      }).pipe(Effect.scoped)
    )
    const { code, stderr } = await btcpeer("connect", onion).ended
    assert.strictEqual(code, 1)
    oneLine(stderr, /an \.onion name is reached through Tor/)
  })

  fails("a node that sends nothing", () => {}, /no version message within 300ms/, "--timeout", "300ms")
  fails("closed at once", (socket) => socket.end(), /the peer closed the connection during the handshake/)
  fails(
    "an HTTP server",
    (socket) => http.createServer().emit("connection", socket),
    /not a Bitcoin node of regtest: its first bytes are 48545450 \("HTTP"\)/
  )
  fails(
    "an HTTP server that got a key",
    (socket) => http.createServer().emit("connection", socket),
    /not a Bitcoin node of regtest: its first bytes are 48545450 \("HTTP"\)/,
    "--transport",
    "auto"
  )
  for (const transport of ["v1", "auto"]) {
    fails(
      `an SSH server, with ${transport}`,
      (socket) => socket.write("SSH-2.0-OpenSSH_9.6\r\n"),
      /not a Bitcoin node of regtest: its first bytes are 5353482d \("SSH-"\)/,
      "--transport",
      transport,
      "--timeout",
      "1s"
    )
  }
  fails(
    "closed on our key",
    (socket) => socket.once("data", () => socket.end()),
    /the peer does not speak the version 2 transport: it closed the connection when our key came/,
    "--transport",
    "v2"
  )
  fails(
    "a node of another network",
    (socket) => socket.write(Network.mainnet.magic),
    /the peer is on mainnet, not on regtest/
  )
  fails(
    "a peer that breaks the rules",
    (socket) => socket.write(Buffer.concat([hello("/x/"), frames({ _tag: "verack" })])),
    /protocol violation by "verack"/,
    // Bitcoin Core's policy, the default, ignores it.
    "--policy",
    "btcd"
  )

  live("Ctrl-C during the handshake ends it at once, with exit code 130", async () => {
    await using server = await serve(() => {})
    const connector = connectV1(server.address, "--timeout", "10m", "--json")
    await connector.until("message")
    connector.child.kill("SIGINT")
    assert.deepInclude(await connector.ended, { code: 130, stderr: "" })
  })

  live.linux("a dial without an answer ends after --timeout, and at once by Ctrl-C", async () => {
    // A stopped process accepts no connections, and once its queue is full the kernel answers no dial.
    const script = `require("net").createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 }, function () { console.log(this.address().port) })`
    const stopped = spawn(process.execPath, ["-e", script])
    running.add(stopped)
    const [line] = (await once(stopped.stdout.setEncoding("utf8"), "data")) as [string]
    const port = Number(line)
    stopped.kill("SIGSTOP")
    // The process stops a little later. If it accepted connections until then, its queue would never be full.
    await until(() => / T /.test(fs.readFileSync(`/proc/${stopped.pid}/stat`, "utf8")))
    const fillers = Array.from({ length: 4 }, () => net.connect(port, "127.0.0.1").on("error", () => {}))
    try {
      // The connections that fit into the queue are made, the others wait for an answer.
      await until(() => dialsTo(port) > 0 && fillers.filter(({ connecting }) => connecting).length === dialsTo(port))
      const address = `127.0.0.1:${port}`
      const { code, stderr } = await btcpeer("connect", address, "--timeout", "300ms").ended
      assert.strictEqual(code, 1)
      oneLine(stderr, /timed out/)
      const before = dialsTo(port)
      const connector = btcpeer("connect", address, "--timeout", "10m")
      await until(() => dialsTo(port) > before)
      connector.child.kill("SIGINT")
      assert.deepInclude(await connector.ended, { code: 130, stdout: "", stderr: "" })
    } finally {
      for (const filler of fillers) filler.destroy()
    }
  })

  live("the text of a peer holds no commands for the terminal", async () => {
    const evil = "/\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\xe9/"
    await using server = await serve((socket) => {
      socket.write(hello(evil))
      socket.write(frames({ _tag: "reject", rejected: "\x1b[1m", code: 1, reason: evil, hash: undefined }))
    })
    for (const json of [[], ["--json"]]) {
      const { stdout } = await connectV1(server.address, "--for", "300ms", ...json).ended
      assert.include(stdout, "owned")
      // oxlint-disable-next-line no-control-regex
      assert.notMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
    }
  })

  live("a closed output ends it without an error", async () => {
    const listener = await listen()
    const connector = btcpeer("connect", listener.address, "-n", "regtest", "--json")
    await connector.until("message")
    connector.child.stdout.destroy()
    const { code, stderr } = await connector.ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    await listener.until("disconnected")
  })

  live("an output that is read slowly slows the remote side down, and loses nothing", async () => {
    const batch = frames(...Array.from({ length: 2000 }, () => ({ _tag: "sendheaders" }) as const))
    let written = 0
    await using server = await serve((socket) => {
      socket.write(hello("/flood/"))
      const flood = (): void => {
        do written += 2000
        while (written < 1_000_000 && socket.write(batch))
      }
      socket.on("drain", flood)
      flood()
    })
    const connector = connectV1(server.address, "--json")
    await connector.until("handshake")
    connector.child.stdout.pause()
    const settle = async (): Promise<number> => {
      for (let last = -1; last !== written;) {
        last = written
        await new Promise((resolve) => setTimeout(resolve, 700))
      }
      return written
    }
    const stalled = await settle()
    assert.isBelow(stalled, 1_000_000, "the remote side could send everything, though the output was not read")
    connector.child.stdout.resume()
    for (let now = stalled; now === stalled; now = written) await once(connector.child.stdout, "data")
    connector.child.kill("SIGTERM")
    const { code, stderr } = await connector.ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    const lines = connector.stdout().trimEnd().split("\n")
    const last = decodeLine(lines.at(-1)!)
    if (last.event !== "disconnected") return assert.fail(`the last event is ${last.event}`)
    const printed = lines.filter((line) => line.includes('"direction":"in"')).length
    assert.strictEqual(printed, last.stats.messagesReceived)
  })
})
