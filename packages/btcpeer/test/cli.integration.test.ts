/** `connect`, `listen` and `decode` as real processes that talk over loopback. */
import { assert, describe } from "@effect/vitest"
import { once } from "node:events"
import type * as Events from "../src/events.ts"
import { btcpeer, frames, listen, live, messagesOf, oneLine, serve, taken, until } from "./support/processes.ts"

describe("connect and listen", () => {
  live("connect, shake hands, ping, and disconnect after --for, and every line is an event", async () => {
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

    live(
      `${signal} is a clean end of listen: its peers see the end, and connect says that the peer ended it`,
      async () => {
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
      }
    )
  }

  live("agree on the transport over TCP, in all combinations, and print it", async () => {
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

  live("listen reports a failed handshake, and goes on", async () => {
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

  live("a reader that stops after the first lines, as head does, ends it without an error", async () => {
    const many = frames(...Array.from({ length: 50_000 }, () => ({ _tag: "verack" }) as const))
    const decoder = btcpeer("decode", "-")
    decoder.child.stdin.end(many)
    await once(decoder.child.stdout, "data")
    decoder.child.stdout.destroy()
    const { code, stderr } = await decoder.ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })

  live("Ctrl-C ends it while it waits for the rest of its input", async () => {
    const decoder = btcpeer("decode")
    await taken(decoder, new Uint8Array(4_000_000))
    decoder.child.kill("SIGINT")
    assert.deepInclude(await decoder.ended, { code: 130, stderr: "", stdout: "" })
  })
})

const messagesOfFile = (events: ReadonlyArray<Events.Event>): ReadonlyArray<string> =>
  events.flatMap((event) => (event.event === "message" ? [event.command] : []))
