/**
 * A real node, on regtest, started by a test and stopped with its scope. What the tests may ask of one is the same for
 * every implementation ({@link ./bcoin.ts}, {@link ./bitcoind.ts}), so that one test runs over all of them
 * ({@link ./nodes.ts}).
 *
 * Nodes live in real time: use `it.live`. All of them mine to one script that anybody can spend (pay to the script
 * hash of `OP_TRUE`), so that a test has coins without keys or a wallet: see `spendCoinbase`.
 */
import { Data, Duration, Effect, Schedule, Schema, type Scope } from "effect"

/** Something the harness could not do. */
export class InteropError extends Data.TaggedError("InteropError")<{
  readonly node: string
  readonly operation: string
  readonly problem: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return `${this.node}: ${this.operation}: ${this.problem}`
  }
}

/** A row of `getpeerinfo`, as far as all nodes agree on it. */
export const PeerInfo = Schema.Struct({
  /** `host:port` of the remote side, that is of us. */
  addr: Schema.String,
  /** Whether we dialled the node. */
  inbound: Schema.Boolean,
  /** From the peer's version message; 0 or below before it arrived. */
  version: Schema.Number,
  /** User agent from the peer's version message; bcoin: null before it arrived. */
  subver: Schema.NullOr(Schema.String),
  /** Hex, of 8 (bcoin) or 16 digits. */
  services: Schema.String,
  bytessent: Schema.Number,
  bytesrecv: Schema.Number,
  /** Seconds; -1 (bcoin) or absent (bitcoind) before the first pong. */
  pingtime: Schema.optionalKey(Schema.Number)
})
export type PeerInfo = typeof PeerInfo.Type

export interface StartOptions {
  /** P2P port. Default: a free one. */
  readonly port?: number | undefined
  /** HTTP and RPC port. Default: a free one. */
  readonly httpPort?: number | undefined
  /** `host:port` of the one address that the node dials, and keeps dialling, over the version 1 transport. Default: none. */
  readonly only?: string | undefined
  /** Data directory, which then outlives the scope. Default: a fresh one, removed with the scope. */
  readonly prefix?: string | undefined
  /** More command line arguments, after the harness's own. */
  readonly args?: ReadonlyArray<string> | undefined
}

export interface InteropNode {
  /** For titles of tests: `bcoin` or `bitcoind`. */
  readonly name: string
  readonly host: "127.0.0.1"
  /** Where it accepts peers. */
  readonly port: number
  readonly httpPort: number
  /** What its version message says. */
  readonly userAgent: string
  readonly protocolVersion: number
  /** A call of its JSON-RPC. Decode the answer with {@link expecting}. */
  readonly rpc: (method: string, ...params: ReadonlyArray<unknown>) => Effect.Effect<unknown, InteropError>
  /** Mines `count` blocks; returns their hashes as printed, that is reversed, in hex. */
  readonly mine: (count: number) => Effect.Effect<ReadonlyArray<string>, InteropError>
  /**
   * Spends the coinbase of a block mined here, once 100 blocks are above it, to the same script. Returns the txid as
   * printed when the transaction is in the node's mempool, from where the node announces it to its peers.
   */
  readonly spendCoinbase: (blockHash: string) => Effect.Effect<string, InteropError>
  readonly peers: Effect.Effect<ReadonlyArray<PeerInfo>, InteropError>
  /** Has the node dial 127.0.0.1:`port`, once, over the version 1 transport. Returns before the handshake. */
  readonly connectTo: (port: number) => Effect.Effect<void, InteropError>
  /** Lines of its log so far. */
  readonly log: () => ReadonlyArray<string>
  /** First line of the log, past or future, that matches. Fails when none came in 30 s, or the node ended. */
  readonly awaitLog: (pattern: RegExp) => Effect.Effect<string, InteropError>
  /**
   * Lines of the log in which the node complains of a peer: warnings, errors, bans, refused or ignored messages. An
   * ordinary end of a connection is none. `who` is the peer's `host:port` or (a part of) its user agent; without it,
   * complaints of anybody. A line may come a little after what caused it: take the last look after `stop`.
   */
  readonly complaints: (who?: string) => ReadonlyArray<string>
  /** Asks the node to shut down; done when its process is gone and its log complete: 3 s with bcoin. */
  readonly stop: Effect.Effect<void, InteropError>
}

/** How tests start a node. */
export interface InteropNodeKind {
  readonly name: string
  readonly start: (options?: StartOptions) => Effect.Effect<InteropNode, InteropError, Scope.Scope>
}

/** Decodes the answer of an `rpc`. */
export const expecting =
  <A, I>(schema: Schema.Codec<A, I>) =>
  (self: Effect.Effect<unknown, InteropError>): Effect.Effect<A, InteropError> =>
    Effect.flatMap(self, (answer) =>
      Effect.mapError(
        Schema.decodeUnknownEffect(schema)(answer),
        (cause) =>
          new InteropError({
            node: "rpc",
            operation: "decode",
            problem: `${cause.message} in ${JSON.stringify(answer)}`,
            cause
          })
      )
    )

/** Repeats `self` every 50 ms until its answer satisfies `until`; fails after 30 s with the last answer. */
export const eventually = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  until: (answer: A) => boolean,
  timeout: Duration.Input = "30 seconds"
): Effect.Effect<A, E | InteropError, R> =>
  Effect.suspend(() => {
    let last: A | undefined
    return self.pipe(
      Effect.tap((answer) => Effect.sync(() => void (last = answer))),
      Effect.repeat({ schedule: Schedule.spaced("50 millis"), until }),
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.fail(
            new InteropError({
              node: "eventually",
              operation: until.toString(),
              problem: `not in ${Duration.format(Duration.fromInputUnsafe(timeout))}; last: ${JSON.stringify(last)}`
            })
          )
      })
    )
  })
