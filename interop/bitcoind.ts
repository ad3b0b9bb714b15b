/**
 * Bitcoin Core as a node to test against: the binary in the environment variable `BITCOIND`, version 26 or newer. It is
 * optional, because it is not part of this project.
 *
 * It runs without a wallet and without discovery, and logs addresses. It starts in initial block download, in which it
 * neither announces nor requests transactions, until it has a recent block: `mine(1)`. Announcements to peers that dialed it
 * wait 5 s on average; with `args: ["-whitelist=noban@127.0.0.1"]` it announces at once (and never punishes a peer).
 */
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import * as Daemon from "./daemon.ts"
import { InteropError, type InteropNode, type StartOptions } from "./InteropNode.ts"
import * as JsonRpc from "./jsonRpc.ts"
import { makeNode } from "./makeNode.ts"

/** The binary to test against, if any. */
export const program: string | undefined = process.env["BITCOIND"] || undefined

/** Starts a node and waits until it accepts peers. */
export const start = Effect.fnUntraced(function* (
  options: StartOptions = {}
): Effect.fn.Return<InteropNode, InteropError, Scope.Scope> {
  if (program === undefined) {
    return yield* Effect.fail(
      new InteropError({ node: "bitcoind", operation: "start", problem: "BITCOIND is not set" })
    )
  }
  const free = yield* Daemon.freePorts(2)
  const port = options.port ?? free[0] ?? 0
  const httpPort = options.httpPort ?? free[1] ?? 0
  const prefix = options.prefix ?? (yield* Daemon.temporaryDirectory("bitcoind"))
  const daemon = yield* Daemon.start({
    name: "bitcoind",
    command: program,
    args: [
      "-regtest",
      `-datadir=${prefix}`,
      "-listen=1",
      `-bind=127.0.0.1:${port}`,
      // Without v2 for its automatic dials: it would begin with v2, and fall back to v1 only when that connection ends.
      ...(options.only !== undefined
        ? [`-connect=${options.only}`, "-v2transport=0"]
        : options.automatic === true
          ? []
          : ["-connect=0"]),
      "-dnsseed=0",
      "-fixedseeds=0",
      "-discover=0",
      "-listenonion=0",
      "-natpmp=0",
      "-server=1",
      `-rpcport=${httpPort}`,
      "-rpcbind=127.0.0.1",
      "-rpcallowip=127.0.0.1",
      "-disablewallet=1",
      "-persistmempool=0",
      "-debug=net",
      "-debug=mempoolrej",
      "-logips=1",
      "-printtoconsole=1",
      "-nodebuglogfile",
      ...(options.args ?? [])
    ],
    env: { PATH: process.env["PATH"] ?? "", HOME: prefix },
    cwd: prefix
  })
  const cookie = Effect.tryPromise({
    try: () => readFile(join(prefix, "regtest", ".cookie"), "utf8"),
    catch: (cause) => new InteropError({ node: "bitcoind", operation: "cookie", problem: String(cause), cause })
  })
  const rpc = JsonRpc.make({
    node: "bitcoind",
    port: httpPort,
    headers: Effect.map(cookie, (text) => ({
      authorization: `Basic ${Buffer.from(text.trim()).toString("base64")}`
    }))
  })
  const node = yield* makeNode({
    name: "bitcoind",
    port,
    httpPort,
    daemon,
    rpc,
    // This call is refused ("in warmup") until the node accepts peers.
    ready: rpc("getnetworkinfo"),
    address: "2ND8PB9RrfCaAcjfjP1Y6nAgFd9zWHYX4DN",
    // The last argument disables v2 for this dial.
    addNode: (address) => [address, "onetry", false],
    complaints
  })
  // The node's network code processes a new block shortly after the call that mined it has returned.
  const settled = rpc("syncwithvalidationinterfacequeue")
  return { ...node, mine: (count) => Effect.tap(node.mine(count), () => settled) }
})

// With -debug=net a line about a peer contains `peer=7`, `peer 7`, or its address.
const complains = new RegExp(
  [
    String.raw`\[([\w-]+:)?(warning|error)\]`,
    "Warning: ",
    "Misbehaving",
    "[Dd]isconnecting (peer=|and discouraging|but not)",
    "Header error",
    "transport error",
    "[Ii]gnor(e|ing)",
    " ignored",
    "redundant",
    "duplicate",
    "non-version message",
    "Unsupported message",
    "[Uu]nknown (message|inv)",
    "Exception ",
    "violation",
    "[Uu]nexpected",
    "weren't expecting",
    "we don't have",
    "multiple times",
    "obsolete",
    "mutated",
    "[Ss]tall",
    "pong peer=",
    "socket no message",
    "timeout",
    "was not accepted",
    "connection from .* dropped"
  ].join("|")
)
const harmless = new RegExp(
  [
    // The end of a connection: by the remote side, by an RPC, or by the shutdown of the node.
    "socket closed, disconnecting",
    "socket (recv|send) error",
    "disconnect by",
    "(feeler|addrfetch) connection completed",
    "Stopping node, disconnecting",
    // It may receive a transaction that it has already, because it requests each announced one. That is not an error.
    "txn-already-(in-mempool|known)"
  ].join("|")
)

const complaints = (log: ReadonlyArray<string>, who: string | undefined): ReadonlyArray<string> => {
  const lines = log.filter((line) => complains.test(line) && !harmless.test(line))
  if (who === undefined) return lines.filter((line) => /peer[= ]\d+|127\.0\.0\.1:\d+/.test(line))
  const ids = new Set<string>()
  for (const line of log) {
    // receive version message: /x:1/: version 70016, blocks=0, us=127.0.0.1:1, txrelay=1, peer=7, peeraddr=127.0.0.1:2
    const [, agent, id, address] =
      /receive version message: (.*): version .* peer=(\d+), peeraddr=([^,\s]+)/.exec(line) ?? []
    if (id !== undefined && (address === who || agent?.includes(who))) ids.add(id)
  }
  return lines.filter((line) => {
    const [, id] = /peer[= ](\d+)/.exec(line) ?? []
    return (id !== undefined && ids.has(id)) || line.split(/[\s,]/).includes(who)
  })
}
