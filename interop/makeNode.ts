/** The methods that all kinds of nodes have in common once they run. */
import { Effect, Schedule, Schema } from "effect"
import type { Daemon } from "./daemon.ts"
import { eventually, expecting, type InteropError, type InteropNode, PeerInfo } from "./InteropNode.ts"
import type { JsonRpc } from "./jsonRpc.ts"

const NetworkInfo = Schema.Struct({ subversion: Schema.String, protocolversion: Schema.Number })
const Hashes = Schema.Array(Schema.String)
const Block = Schema.Struct({ tx: Schema.NonEmptyArray(Schema.String) })
const Output = Schema.Struct({ value: Schema.Number })

// OP_HASH160 <hash160 of OP_TRUE> OP_EQUAL: a standard script that is spent without a signature.
const anyoneCanSpend = "a914da1745e9b549bd0bfa1a569971c77eba30cd5a4b87"

const littleEndian = (value: number, size: number): string => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes.toString("hex", 0, size)
}

/** A transaction that moves output 0 of `txid` (as printed) of `satoshi`, minus a fee, to the same script. */
const spend = (txid: string, satoshi: number): string =>
  [
    littleEndian(2, 4),
    "01",
    Buffer.from(Buffer.from(txid, "hex").toReversed()).toString("hex"),
    littleEndian(0, 4),
    // The input script pushes the redeem script: OP_TRUE.
    "020151",
    "ffffffff",
    "01",
    littleEndian(satoshi - 10_000, 8),
    `17${anyoneCanSpend}`,
    littleEndian(0, 4)
  ].join("")

/** Waits up to 30 s until the node accepts peers, and returns it with its methods. */
export const makeNode = Effect.fnUntraced(function* (options: {
  readonly name: string
  readonly port: number
  readonly httpPort: number
  readonly daemon: Daemon
  readonly rpc: JsonRpc
  /** Succeeds when the node accepts peers. A failure is retried. */
  readonly ready: Effect.Effect<unknown, InteropError>
  /** The address of {@link anyoneCanSpend} in the format of this node. */
  readonly address: string
  readonly addNode: (address: string) => ReadonlyArray<unknown>
  readonly complaints: (log: ReadonlyArray<string>, who: string | undefined) => ReadonlyArray<string>
}): Effect.fn.Return<InteropNode, InteropError> {
  const { daemon, rpc } = options

  let refused = "never tried"
  yield* options.ready.pipe(
    Effect.tapError((error) => Effect.sync(() => void (refused = error.message))),
    Effect.retry(Schedule.spaced("50 millis")),
    Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => daemon.fail("start", `not up in 30 s: ${refused}`) }),
    Effect.raceFirst(Effect.flatMap(daemon.exited, (how) => daemon.fail("start", `ended at once (${how})`)))
  )
  const info = yield* rpc("getnetworkinfo").pipe(expecting(NetworkInfo))

  return {
    name: options.name,
    host: "127.0.0.1",
    port: options.port,
    httpPort: options.httpPort,
    userAgent: info.subversion,
    protocolVersion: info.protocolversion,
    rpc,
    mine: (count) => rpc("generatetoaddress", count, options.address).pipe(expecting(Hashes)),
    spendCoinbase: Effect.fnUntraced(function* (blockHash) {
      const block = yield* rpc("getblock", blockHash).pipe(expecting(Block))
      const output = yield* rpc("gettxout", block.tx[0], 0).pipe(expecting(Output))
      const hex = spend(block.tx[0], Math.round(output.value * 1e8))
      const txid = yield* rpc("sendrawtransaction", hex).pipe(expecting(Schema.String))
      // bcoin answers before it has checked the transaction.
      yield* eventually(rpc("getrawmempool").pipe(expecting(Hashes)), (txids) => txids.includes(txid))
      return txid
    }),
    peers: rpc("getpeerinfo").pipe(expecting(Schema.Array(PeerInfo))),
    connectTo: (port) => Effect.asVoid(rpc("addnode", ...options.addNode(`127.0.0.1:${port}`))),
    log: daemon.log,
    awaitLog: daemon.awaitLog,
    complaints: (who) => options.complaints(daemon.log(), who),
    stop: rpc("stop").pipe(
      Effect.andThen(daemon.exited),
      Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => daemon.fail("stop", "still runs after 30 s") }),
      Effect.asVoid
    )
  }
})
