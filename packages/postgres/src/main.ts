#!/usr/bin/env node
/** A runner of the fleet as a process: `btcpeer-fleet --database URL`. Start as many as you like, on as many machines. */
import { NodeClusterSocket, NodeRuntime, NodeServices } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import * as Cause from "effect/Cause"
import { CliError, Command, Flag } from "effect/cli"
import { RunnerAddress } from "effect/cluster"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Address from "effect-bitcoin-peer/Address"
import * as Network from "effect-bitcoin-peer/Network"
import * as Nonce from "effect-bitcoin-peer/Nonce"
import * as NodeDialer from "effect-bitcoin-peer/server/NodeDialer"
import * as FleetCrawler from "./FleetCrawler.ts"

const flags = {
  // An error must not repeat the password.
  database: Flag.Redacted("database").pipe(Flag.withDescription("postgres://USER:PASSWORD@HOST/NAME")),
  network: Flag.Literals("network", Network.names).pipe(Flag.withDefault("mainnet")),
  seeds: Flag.String("seed").pipe(
    Flag.withMetavar("ADDRESS[:PORT]"),
    Flag.withDescription("A node to start from, as often as you like"),
    Flag.atLeast(0)
  ),
  host: Flag.String("host").pipe(
    Flag.withDescription("The address of this machine, at which the other runners reach this one"),
    Flag.withDefault("127.0.0.1")
  ),
  port: Flag.Int("port").pipe(
    Flag.withDescription("The port at which the other runners reach this one"),
    Flag.withDefault(34_431)
  ),
  shards: Flag.Int("shards").pipe(Flag.withDescription("The same for all runners, for ever"), Flag.withDefault(16)),
  concurrency: Flag.Int("concurrency").pipe(Flag.withDescription("Visits at once in a shard"), Flag.withDefault(16)),
  rate: Flag.Finite("rate").pipe(Flag.withDescription("Dials each second of this runner"), Flag.withDefault(50)),
  contact: Flag.String("contact").pipe(Flag.withDescription("A comment in the user agent"), Flag.optional),
  allowPrivate: Flag.Boolean("allow-private").pipe(
    Flag.withDescription("Visit addresses such as 127.0.0.1, too"),
    Flag.withDefault(false)
  )
}

const command = Command.make(
  "btcpeer-fleet",
  flags,
  Effect.fnUntraced(function* ({ allowPrivate, contact, database, host, port, seeds: texts, network: name, ...rest }) {
    const network = Network.fromName(name)
    const seeds = yield* Effect.forEach(texts, (text) => Effect.fromResult(Address.parse(text, network.port)))
    const Cluster = NodeClusterSocket.layer({
      storage: "sql",
      shardingConfig: {
        runnerAddress: Option.some(RunnerAddress.make(host, port)),
        // The shards of the cluster, of which ours are entities. Each has a lock, which is taken and given back one by one.
        shardsPerGroup: 32,
        // A runner that was killed is replaced within seconds: its locks end with its connection to the database.
        shardLockExpiration: "10 seconds",
        shardLockRefreshInterval: "2 seconds",
        runnerHealthCheckInterval: "2 seconds",
        entityMaxIdleTime: "Infinity",
        simulateRemoteSerialization: false
      }
    })
    const Runner = FleetCrawler.layer({
      ...rest,
      network,
      seeds,
      contact: Option.getOrUndefined(contact),
      allowUnroutable: allowPrivate,
      runner: `${host}:${port}`
    }).pipe(
      Layer.provide([Cluster, NodeDialer.layerDirect({ names: false }), Nonce.layer]),
      Layer.provide(PgClient.layer({ url: database, maxConnections: 10 }))
    )
    yield* Effect.log(`runner ${host}:${port} crawls ${network.name}`)
    return yield* Layer.launch(Runner)
  })
)

if (import.meta.main) {
  Command.runWith(command, { version: "0.1.0" })(process.argv.slice(2)).pipe(
    // The cluster dies of a database that it cannot reach.
    Effect.tapCause((cause) => {
      const problem = Cause.squash(cause)
      // Help, with what is wrong with the flags, is printed already.
      return Cause.hasInterruptsOnly(cause) || CliError.isCliError(problem)
        ? Effect.void
        : Console.error(`btcpeer-fleet: ${problem instanceof Error ? problem.message : String(problem)}`)
    }),
    Effect.provide(NodeServices.layer),
    NodeRuntime.runMain({ disableErrorReporting: true })
  )
}
