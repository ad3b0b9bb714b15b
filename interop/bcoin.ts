/**
 * bcoin, a full node in JavaScript, as a node to test against. `interop/package-lock.json` pins it and its dependencies;
 * `interop/run.sh` installs it.
 *
 * It keeps everything in memory, without a wallet or worker processes. It speaks protocol 70015: segwit, compact blocks,
 * bloom filters if `args` has `--bip37=true`; no wtxid relay, no addrv2, no v2 transport. A peer that it dials must offer
 * NETWORK and WITNESS. On regtest segwit is active from block 432 on.
 */
import { join } from "node:path"
import { Effect, Schema, type Scope } from "effect"
import * as Daemon from "./daemon.ts"
import { expecting, type InteropError, type InteropNode, type StartOptions } from "./InteropNode.ts"
import * as JsonRpc from "./jsonRpc.ts"
import { makeNode } from "./makeNode.ts"

const program = join(import.meta.dirname, "node_modules/bcoin/bin/node")

/** Starts a node and waits until it accepts peers. */
export const start = Effect.fnUntraced(function* (
  options: StartOptions = {}
): Effect.fn.Return<InteropNode, InteropError, Scope.Scope> {
  const free = yield* Daemon.freePorts(2)
  const port = options.port ?? free[0] ?? 0
  const httpPort = options.httpPort ?? free[1] ?? 0
  const prefix = options.prefix ?? (yield* Daemon.temporaryDirectory("bcoin"))
  const daemon = yield* Daemon.start({
    name: "bcoin",
    command: process.execPath,
    args: [
      program,
      "--network=regtest",
      "--memory=true",
      `--prefix=${prefix}`,
      "--listen=true",
      "--host=127.0.0.1",
      `--port=${port}`,
      // A routable address: with it, bcoin does not look up its own address by DNS, and advertises this one in an addr.
      "--public-host=8.8.4.4",
      // Bans are by host, and all peers here are 127.0.0.1. The default limit is 8 peers.
      "--max-inbound=1000",
      ...(options.only === undefined ? [] : [`--only=${options.only}`]),
      `--http-port=${httpPort}`,
      "--no-wallet=true",
      "--workers=false",
      `--coinbase-address=${address}`,
      "--log-level=spam",
      ...(options.args ?? [])
    ],
    // NODE_BACKEND: cryptography in JavaScript, because the native add-on is not built.
    env: { PATH: process.env["PATH"] ?? "", NODE_BACKEND: "js", NODE_NO_WARNINGS: "1" },
    cwd: prefix
  })
  const rpc = JsonRpc.make({ node: "bcoin", port: httpPort, headers: Effect.succeed({}) })
  return yield* makeNode({
    name: "bcoin",
    port,
    httpPort,
    daemon,
    rpc,
    // HTTP is ready before the P2P port.
    ready: rpc("getnetworkinfo").pipe(expecting(Schema.Struct({ networkactive: Schema.Literal(true) }))),
    address,
    addNode: (address) => [address, "onetry"],
    complaints
  })
})

/** Pay to the script hash of OP_TRUE, with the version byte of bcoin's regtest (0x26; bitcoind's is 0xc4). */
const address = "Gdj5bzLLUhMjQFe3WiukAMfxBTHTuWgw7f"

// The format of its log is `[level] (module) text (host:port)`. Most complaints about a peer are only debug lines: errors
// of the connection (`Error: text (host:port)`) and ignored messages.
const complains = new RegExp(
  [
    String.raw`^\[(warning|error)\] \((net|peer)\)`,
    String.raw`^\[debug\] \(net\) Error: `,
    "Rejecting ",
    "Ban(ning| threshold)",
    "Punishing",
    "Ignoring (peer|banned|repeated)",
    "Peer sent (a |an |us |duplicate |verack |unsolicited |unrequested )",
    "Peer requested (item with the wrong type|a merkleblock without|mempool without)",
    "Peer has not responded",
    "Peer does not support",
    "Timing mismatch",
    "Compact block DoS"
  ].join("|")
)
const harmless = new RegExp(
  [
    // The end of a connection by either side. On regtest, without seeds, bcoin dials 127.0.0.1:48444.
    String.raw`Error: Socket hangup`,
    String.raw`Error: Socket Error: (ECONNREFUSED|ENETUNREACH|ECONNRESET|EPIPE)`,
    // Warnings that are not about a peer.
    "Could not find enough peers",
    "Hitting DNS seeds"
  ].join("|")
)

const complaints = (log: ReadonlyArray<string>, who: string | undefined): ReadonlyArray<string> => {
  const lines = log.filter((line) => complains.test(line) && !harmless.test(line))
  if (who === undefined) return lines
  const addresses = [who]
  for (const line of log) {
    // Received version (127.0.0.1:40000): version=70015 height=0 services=1001 agent=/x:1/
    const [, host, agent] = /Received version \((\S+)\): .* agent=(.*)$/.exec(line) ?? []
    if (host !== undefined && agent?.includes(who)) addresses.push(host)
  }
  return lines.filter((line) => addresses.some((address) => line.includes(`(${address})`)))
}
