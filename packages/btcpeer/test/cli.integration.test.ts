/** The command as real processes that talk over loopback. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as http from "node:http"
import * as net from "node:net"
import * as path from "node:path"
import * as Events from "../src/events.ts"
import * as Network from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"
import { serveSocks5 } from "../../../test/support/proxies.ts"

const root = path.resolve(import.meta.dirname, "..")
const decodeLine = Schema.decodeUnknownSync(Events.FromLine)

interface Running {
  readonly child: ChildProcessWithoutNullStreams
  /** What it has printed so far. */
  readonly stdout: () => string
  readonly events: () => ReadonlyArray<Events.Event>
  /** Waits for an event, or the end of the process. */
  readonly until: <E extends Events.Event["event"]>(event: E) => Promise<Extract<Events.Event, { readonly event: E }>>
  readonly ended: Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>
}

const running = new Set<ChildProcessWithoutNullStreams>()

const btcpeer = (...argv: ReadonlyArray<string>): Running => {
  const child = spawn(process.execPath, ["--conditions=@effect-bitcoin-peer/source", "src/main.ts", ...argv], {
    cwd: root,
    env: { ...process.env, NO_COLOR: "1" }
  })
  running.add(child)
  let stdout = ""
  let stderr = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
  child.stdin.on("error", () => {})
  const ended = once(child, "close").then(([code]: Array<unknown>) => {
    running.delete(child)
    return { code: code as number | null, stdout, stderr }
  })
  let over = false
  void ended.then(() => (over = true))
  const events = () =>
    stdout
      .slice(0, stdout.lastIndexOf("\n") + 1)
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => decodeLine(line))
  return {
    child,
    stdout: () => stdout,
    events,
    until: async (event) => {
      while (true) {
        for (const found of events()) if (found.event === event) return found as never
        if (over) throw new Error(`ended without "${event}": ${stdout}${stderr}`)
        await Promise.race([once(child.stdout, "data"), ended])
      }
    },
    ended
  }
}

/** What takes longer hangs, on a machine that does ten things at once too. */
const limit = 120_000

const leavingNone = (test: () => Promise<void>) => async (): Promise<void> => {
  try {
    await test()
  } finally {
    for (const child of running) child.kill("SIGKILL")
  }
}

/** Runs a test, and leaves no process behind. */
const live = (name: string, test: () => Promise<void>): void => it(name, leavingNone(test), limit)
live.linux = (name: string, test: () => Promise<void>): void =>
  it.skipIf(process.platform !== "linux")(name, leavingNone(test), limit)

/** Looks until something is true that tells nobody when it becomes so. */
const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
}

/** How many dials to a port of 127.0.0.1 wait for an answer. */
const dialsTo = (port: number): number => {
  const remote = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`
  const sockets = fs.readFileSync("/proc/net/tcp", "utf8").split("\n")
  return sockets.filter((line) => {
    const [, , address, state] = line.trim().split(/\s+/)
    return address === remote && state === "02"
  }).length
}

/** Writes more than any pipe holds: once it has all been written the process is reading. */
const taken = ({ child }: Running, bytes: Uint8Array): Promise<void> =>
  new Promise((resolve, reject) => {
    child.stdin.write(bytes, (error) => (error == null ? resolve() : reject(error)))
  })

const listen = async (...argv: ReadonlyArray<string>) => {
  const listener = btcpeer("listen", "--network", "regtest", "--port", "0", "--json", ...argv)
  const { address } = await listener.until("listening")
  return { ...listener, address }
}

/** A server that is no `listen`: whatever the test makes of a connection. */
const serve = async (onSocket: (socket: net.Socket) => void): Promise<{ address: string } & AsyncDisposable> => {
  const sockets = new Set<net.Socket>()
  const server = net.createServer((socket) => {
    sockets.add(socket)
    socket.on("error", () => {})
    onSocket(socket)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    address: `127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, "close")
    }
  }
}

const frames = (...messages: ReadonlyArray<Wire.Message>): Uint8Array =>
  Result.getOrThrow(Wire.encodeFrames(Network.regtest.magic, messages))

const noAddress = { services: 0n, address: new Uint8Array(16), port: 0 }
const hello = (userAgent: string): Uint8Array =>
  frames(
    {
      _tag: "version",
      protocolVersion: 70016,
      services: 9n,
      timestamp: 0,
      receiver: noAddress,
      sender: noAddress,
      nonce: 5n,
      userAgent,
      startHeight: 1,
      relay: true
    },
    { _tag: "verack" }
  )

const oneLine = (stderr: string, expected: RegExp): void => {
  assert.match(stderr, expected)
  assert.match(stderr, /^btcpeer: [^\n]*\n$/)
}

const messagesOf = (events: ReadonlyArray<Events.Event>, direction: "in" | "out"): ReadonlyArray<string> =>
  events.flatMap((event) => (event.event === "message" && event.direction === direction ? [event.command] : []))

describe("connect and listen", () => {
  live("meet, shake hands, ping, and part when --for is over, and every line is an event", async () => {
    const listener = await listen("--user-agent", "/inbound:1/")
    const { code, stderr } = await (async () => {
      const connector = btcpeer(
        "connect",
        listener.address,
        "-n",
        "regtest",
        "--for",
        "1s",
        "--json",
        "--user-agent",
        "/outbound:1/"
      )
      const ended = await connector.ended
      const events = connector.events()
      const handshake = events.find((event) => event.event === "handshake")
      assert.strictEqual(handshake?.userAgent, "/inbound:1/")
      assert.deepInclude(handshake, {
        direction: "outbound",
        address: listener.address,
        network: "regtest",
        transport: "v2"
      })
      assert.match(handshake?.sessionId ?? "", /^[0-9a-f]{64}$/)
      assert.strictEqual((await listener.until("handshake")).sessionId, handshake?.sessionId)
      assert.isTrue(handshake?.features.addrv2 && handshake.features.wtxidRelay)
      const pong = events.find((event) => event.event === "pong")
      assert.isAbove(pong?.milliseconds ?? 0, 0)
      assert.deepStrictEqual(messagesOf(events, "out").slice(0, 4), ["version", "wtxidrelay", "sendaddrv2", "verack"])
      for (const direction of ["in", "out"] as const)
        assert.includeMembers([...messagesOf(events, direction)], ["ping", "pong"])
      const last = events.at(-1)
      assert.deepInclude(last, { event: "disconnected", reason: "Requested", message: "after 1s" })
      const messages = events.filter((event) => event.event === "message" && event.direction === "in")
      assert.strictEqual(last?.event === "disconnected" ? last.stats.messagesReceived : 0, messages.length)
      return ended
    })()
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    const gone = await listener.until("disconnected")
    assert.deepInclude(gone, { peer: 1, reason: "RemoteClosed" })
    listener.child.kill("SIGINT")
    assert.deepInclude(await listener.ended, { code: 0, stderr: "" })
    assert.strictEqual((await listener.until("handshake")).userAgent, "/outbound:1/")
  })

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    live(`${signal} is a clean end of connect, and listen goes on and numbers its peers`, async () => {
      const listener = await listen()
      for (const peer of [1, 2]) {
        const connector = btcpeer("connect", listener.address, "-n", "regtest", "--json")
        await connector.until("pong")
        connector.child.kill(signal)
        const { code, stderr } = await connector.ended
        assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
        assert.deepInclude(connector.events().at(-1), {
          event: "disconnected",
          reason: "Requested",
          message: "interrupted"
        })
        await until(() => listener.events().some((event) => event.event === "handshake" && event.peer === peer))
      }
      assert.isNull(listener.child.exitCode)
    })

    live(`${signal} is a clean end of listen: its peers see the end, and connect says who ended it`, async () => {
      const listener = await listen()
      const connector = btcpeer("connect", listener.address, "-n", "regtest", "--json")
      await connector.until("pong")
      listener.child.kill(signal)
      assert.deepInclude(await listener.ended, { code: 0, stderr: "" })
      assert.deepInclude(listener.events().at(-1), { event: "disconnected", peer: 1, reason: "Requested" })
      const { code, stderr } = await connector.ended
      assert.strictEqual(code, 1)
      oneLine(stderr, /the peer closed the connection/)
      assert.deepInclude(connector.events().at(-1), { event: "disconnected", reason: "RemoteClosed" })
    })
  }

  live("agree on the transport over TCP, in all combinations, and say which it is", async () => {
    for (const [listening, connecting, expected] of [
      ["v1", "v1", "v1"],
      ["auto", "v1", "v1"],
      ["v1", "auto", "v1"],
      ["auto", "auto", "v2"],
      ["v2", "auto", "v2"],
      ["auto", "v2", "v2"],
      ["v1", "v2", undefined],
      ["v2", "v1", undefined]
    ] as const) {
      const listener = await listen("--transport", listening)
      const argv = ["connect", listener.address, "-n", "regtest", "--transport", connecting, "--for", "100ms"]
      const { code, stdout } = await btcpeer(...argv).ended
      assert.strictEqual(code, expected === undefined ? 1 : 0, `${connecting} to ${listening}`)
      if (expected === undefined) await listener.until("refused")
      else {
        assert.strictEqual((await listener.until("handshake")).transport, expected)
        assert.match(
          stdout,
          expected === "v2" ? /transport v2, encrypted\n +session id +[0-9a-f]{64}\n/ : /transport v1\n/
        )
      }
      listener.child.kill("SIGTERM")
      await listener.ended
    }
  })

  live("listen ends after --for", async () => {
    const listener = await listen("--for", "300ms")
    assert.deepInclude(await listener.ended, { code: 0, stderr: "" })
  })

  live("listen tells who did not become a peer, and goes on", async () => {
    const listener = await listen()
    const { code, stderr } = await btcpeer("connect", listener.address, "-n", "signet", "--transport", "v1").ended
    assert.strictEqual(code, 1)
    oneLine(stderr, /handshake failed/)
    assert.deepInclude(await listener.until("refused"), { peer: 1, reason: "WrongNetwork" })
    assert.strictEqual((await btcpeer("connect", listener.address, "-n", "regtest", "--for", "1ms").ended).code, 0)
  })

  live("over IPv6, for people: lines and a table", async () => {
    const listener = btcpeer("listen", "-n", "regtest", "--host", "[::1]", "--port", "0")
    while (!listener.stdout().includes("\n")) await once(listener.child.stdout, "data")
    const address = /^Listening on (\[::1\]:\d+) \(regtest\)\n/.exec(listener.stdout())?.[1]
    assert.isDefined(address)
    const { code, stderr, stdout } = await btcpeer("connect", address!, "-n", "regtest", "--for", "1s").ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.match(stdout, /<- {2}version {7} {3,}\d+ B {2}70017 "\/effect-bitcoin-peer:[\d.]+\/"/)
    assert.match(stdout, /<- {2}pong .* nonce [0-9a-f]{16} {2}\d+\.\d+ ms\n/)
    assert.include(stdout, `Connected to ${address} (regtest)`)
    assert.match(stdout, /Disconnected: after 1s\n {6,}received +bytes +sent +bytes\n/)
    assert.match(stdout, /\n {2}total +\d/)
  })
})

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

  live("nobody listens there: one line and exit code 1", async () => {
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

  fails("nobody answers", () => {}, /no version message within 300ms/, "--timeout", "300ms")
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
    const connector = btcpeer(
      "connect",
      server.address,
      "-n",
      "regtest",
      "--transport",
      "v1",
      "--timeout",
      "10m",
      "--json"
    )
    await connector.until("message")
    connector.child.kill("SIGINT")
    assert.deepInclude(await connector.ended, { code: 130, stderr: "" })
  })

  live.linux("a dial that nobody answers ends after --timeout, and at once by Ctrl-C", async () => {
    // A process that is stopped accepts nothing, and once its queue is full the kernel answers nobody.
    const script = `require("net").createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 }, function () { console.log(this.address().port) })`
    const stopped = spawn(process.execPath, ["-e", script])
    running.add(stopped)
    const [line] = (await once(stopped.stdout.setEncoding("utf8"), "data")) as [string]
    const port = Number(line)
    stopped.kill("SIGSTOP")
    const fillers = Array.from({ length: 4 }, () => net.connect(port, "127.0.0.1").on("error", () => {}))
    try {
      // Those that fit into the queue are connected, and the others dial on.
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

  live("what a peer says of itself cannot act upon a terminal", async () => {
    const evil = "/\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\xe9/"
    await using server = await serve((socket) => {
      socket.write(hello(evil))
      socket.write(frames({ _tag: "reject", rejected: "\x1b[1m", code: 1, reason: evil, hash: undefined }))
    })
    for (const json of [[], ["--json"]]) {
      const { stdout } = await btcpeer(
        "connect",
        server.address,
        "-n",
        "regtest",
        "--transport",
        "v1",
        "--for",
        "300ms",
        ...json
      ).ended
      assert.include(stdout, "owned")
      // oxlint-disable-next-line no-control-regex
      assert.notMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
    }
  })

  live("an output that nobody reads any more ends it quietly", async () => {
    const listener = await listen()
    const connector = btcpeer("connect", listener.address, "-n", "regtest", "--json")
    await connector.until("message")
    connector.child.stdout.destroy()
    const { code, stderr } = await connector.ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    await listener.until("disconnected")
  })

  live("an output that is read slowly slows the remote down, and loses nothing", async () => {
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
    const connector = btcpeer("connect", server.address, "-n", "regtest", "--transport", "v1", "--json")
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
    assert.isBelow(stalled, 1_000_000, "the remote could send all though nobody read it")
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

describe("listen", () => {
  live("a port that is in use: one line and exit code 1", async () => {
    await using server = await serve(() => {})
    const { code, stderr, stdout } = await btcpeer("listen", "--port", server.address.split(":")[1]!).ended
    assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
    oneLine(stderr, /address in use/)
    const listening = btcpeer("listen", "--port", server.address.split(":")[1]!, "--json")
    assert.strictEqual((await listening.ended).code, 1)
    const message = `listen ${server.address}: address in use`
    assert.deepStrictEqual(listening.events(), [
      { event: "failed", address: server.address, reason: "AddressInUse", message }
    ])
  })

  live("an address that is not of this machine: one line and exit code 1", async () => {
    const { code, stderr } = await btcpeer("listen", "--host", "192.0.2.1", "--port", "0").ended
    assert.strictEqual(code, 1)
    oneLine(stderr, /address not available/)
  })
})

describe("decode", () => {
  live("standard input, binary, in pieces", async () => {
    const decoder = btcpeer("decode", "--json")
    const many = Array.from({ length: 50_000 }, () => ({ _tag: "verack" }) as const)
    const bytes = frames(...many, { _tag: "ping", nonce: 1n })
    await taken(decoder, bytes.subarray(0, -10))
    decoder.child.stdin.end(bytes.subarray(-10))
    assert.deepInclude(await decoder.ended, { code: 0, stderr: "" })
    const found = messagesOfFile(decoder.events())
    assert.strictEqual(found.length, 50_001)
    assert.deepStrictEqual(found.slice(-2), ["verack", "ping"])
  })

  live("a reader that leaves after the first lines, as head does, ends it quietly", async () => {
    const many = frames(...Array.from({ length: 50_000 }, () => ({ _tag: "verack" }) as const))
    const decoder = btcpeer("decode", "-")
    decoder.child.stdin.end(many)
    await once(decoder.child.stdout, "data")
    decoder.child.stdout.destroy()
    const { code, stderr } = await decoder.ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })

  live("Ctrl-C while it waits for the rest of its input ends it", async () => {
    const decoder = btcpeer("decode")
    await taken(decoder, new Uint8Array(4_000_000))
    decoder.child.kill("SIGINT")
    assert.deepInclude(await decoder.ended, { code: 130, stderr: "", stdout: "" })
  })
})

const messagesOfFile = (events: ReadonlyArray<Events.Event>): ReadonlyArray<string> =>
  events.flatMap((event) => (event.event === "message" ? [event.command] : []))
