/**
 * A real node on regtest, started by a test and stopped with its scope. The interface is the same for every
 * implementation ({@link ./bcoin.ts}, {@link ./bitcoind.ts}), so that one test runs with all of them ({@link ./nodes.ts}).
 *
 * Nodes run in real time: use `it.live`. All of them mine to one script that anyone can spend (pay to the script hash of
 * `OP_TRUE`), so that a test has coins without keys or a wallet: see `spendCoinbase`.
 */
import { Data, Duration, Effect, Schedule, Schema, type Scope } from "effect"

/** An operation of the harness that failed. */
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

/** A row of `getpeerinfo`: the fields that all nodes have in common. */
export const PeerInfo = Schema.Struct({
  /** `host:port` of the remote side, which is ours. */
  addr: Schema.String,
  /** Whether we dialled the node. */
  inbound: Schema.Boolean,
  /** From the peer's version message; 0 or below before it arrived. */
  version: Schema.Number,
  /** User agent from the peer's version message; bcoin: null before it arrived. */
  subver: Schema.NullOr(Schema.String),
  /** Hexadecimal, 8 (bcoin) or 16 digits. */
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
  /** `host:port` of the only address that the node dials, repeatedly and over v1. Default: the node dials no address. */
  readonly only?: string | undefined
  /** bitcoind: whether the node dials addresses of its own book. False by default. */
  readonly automatic?: boolean | undefined
  /** Data directory, which stays after the scope. Default: a new one, removed with the scope. */
  readonly prefix?: string | undefined
  /** Further command line arguments, after those of the harness. */
  readonly args?: ReadonlyArray<string> | undefined
}

export interface InteropNode {
  /** The name in titles of tests: `bcoin` or `bitcoind`. */
  readonly name: string
  readonly host: "127.0.0.1"
  /** The address at which it accepts peers. */
  readonly port: number
  readonly httpPort: number
  /** The fields of its version message. */
  readonly userAgent: string
  readonly protocolVersion: number
  /** Calls its JSON-RPC. Decode the answer with {@link expecting}. */
  readonly rpc: (method: string, ...params: ReadonlyArray<unknown>) => Effect.Effect<unknown, InteropError>
  /** Mines `count` blocks; returns their hashes as printed: reversed, in hex. */
  readonly mine: (count: number) => Effect.Effect<ReadonlyArray<string>, InteropError>
  /**
   * Spends the coinbase of a block that this node mined, with at least 100 blocks after it, to the same script. Returns the
   * txid as printed when the transaction is in the mempool, from which the node announces it to its peers.
   */
  readonly spendCoinbase: (blockHash: string) => Effect.Effect<string, InteropError>
  readonly peers: Effect.Effect<ReadonlyArray<PeerInfo>, InteropError>
  /** Makes the node dial 127.0.0.1:`port`, once and over v1. Returns before the handshake. */
  readonly connectTo: (port: number) => Effect.Effect<void, InteropError>
  /** Lines of its log so far. */
  readonly log: () => ReadonlyArray<string>
  /** The first line of the log, past or future, that matches. Fails if no line matches in 30 s, or when the node ends. */
  readonly awaitLog: (pattern: RegExp) => Effect.Effect<string, InteropError>
  /**
   * Lines of the log in which the node complains about a peer: warnings, errors, bans, refused or ignored messages; not the
   * ordinary end of a connection. `who` is the peer's `host:port` or (a part of) its user agent; without it, the lines about
   * all peers. A line may appear shortly after its cause, so check finally after `stop`.
   */
  readonly complaints: (who?: string) => ReadonlyArray<string>
  /** Shuts the node down; completes when its process has ended and its log is complete: 3 s with bcoin. */
  readonly stop: Effect.Effect<void, InteropError>
}

/** One implementation, which tests can start. */
export interface InteropNodeKind {
  readonly name: string
  readonly start: (options?: StartOptions) => Effect.Effect<InteropNode, InteropError, Scope.Scope>
}

/** Decodes the answer of `rpc` with a schema. */
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

/** Repeats `self` every 50 ms until its result satisfies `until`; fails after 30 s with the last result. */
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
