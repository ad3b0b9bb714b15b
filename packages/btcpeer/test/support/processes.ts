/** The command as real processes, and servers for them on loopback. */
import { assert, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import * as Network from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"
import type * as Events from "../../src/events.ts"
import { decodeLine } from "./fixtures.ts"

const root = path.resolve(import.meta.dirname, "../..")

export interface Running {
  readonly child: ChildProcessWithoutNullStreams
  /** What it has printed so far. */
  readonly stdout: () => string
  readonly events: () => ReadonlyArray<Events.Event>
  /** Waits for an event, or the end of the process. */
  readonly until: <E extends Events.Event["event"]>(event: E) => Promise<Extract<Events.Event, { readonly event: E }>>
  readonly ended: Promise<{
    readonly code: number | null
    readonly stdout: string
    /** Without the lines that `connect` writes while it waits, which a busy machine may cause at any time. */
    readonly stderr: string
  }>
}

const waiting = /^btcpeer: connect(?:ing|ed) to .*\n/gm

export const running = new Set<ChildProcessWithoutNullStreams>()

export const btcpeer = (...argv: ReadonlyArray<string>): Running => {
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
    return { code: code as number | null, stdout, stderr: stderr.replace(waiting, "") }
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
export const live = (name: string, test: () => Promise<void>): void => it(name, leavingNone(test), limit)
live.linux = (name: string, test: () => Promise<void>): void =>
  it.skipIf(process.platform !== "linux")(name, leavingNone(test), limit)

/** Looks until something is true that tells nobody when it becomes so. */
export const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
}

/** How many dials to a port of 127.0.0.1 wait for an answer. */
export const dialsTo = (port: number): number => {
  const remote = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`
  const sockets = fs.readFileSync("/proc/net/tcp", "utf8").split("\n")
  return sockets.filter((line) => {
    const [, , address, state] = line.trim().split(/\s+/)
    return address === remote && state === "02"
  }).length
}

/** Writes more than any pipe holds: once it has all been written the process is reading. */
export const taken = ({ child }: Running, bytes: Uint8Array): Promise<void> =>
  new Promise((resolve, reject) => {
    child.stdin.write(bytes, (error) => (error == null ? resolve() : reject(error)))
  })

export const listen = async (...argv: ReadonlyArray<string>) => {
  const listener = btcpeer("listen", "--network", "regtest", "--port", "0", "--json", ...argv)
  const { address } = await listener.until("listening")
  return { ...listener, address }
}

/** A server that is no `listen`: whatever the test makes of a connection. */
export const serve = async (onSocket: (socket: net.Socket) => void): Promise<{ address: string } & AsyncDisposable> => {
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

export const frames = (...messages: ReadonlyArray<Wire.Message>): Uint8Array =>
  Result.getOrThrow(Wire.encodeFrames(Network.regtest.magic, messages))

const noAddress = { services: 0n, address: new Uint8Array(16), port: 0 }
export const hello = (userAgent: string): Uint8Array =>
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

export const oneLine = (stderr: string, expected: RegExp): void => {
  assert.match(stderr, expected)
  assert.match(stderr, /^btcpeer: [^\n]*\n$/)
}

export const messagesOf = (events: ReadonlyArray<Events.Event>, direction: "in" | "out"): ReadonlyArray<string> =>
  events.flatMap((event) => (event.event === "message" && event.direction === direction ? [event.command] : []))
