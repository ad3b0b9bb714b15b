/**
 * The command `btcpeer`: its subcommands, flags and errors. `run` takes the arguments and gives the exit code; nothing here
 * reads or ends the process.
 */
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import { Argument, CliConfig, CliOutput, Command, Flag, GlobalFlag, TerminalCapabilities } from "effect/cli"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import { defaultUserAgent } from "effect-bitcoin-peer/Handshake"
import * as Network from "effect-bitcoin-peer/Network"
import * as Nonce from "effect-bitcoin-peer/Nonce"
import * as Policy from "effect-bitcoin-peer/Policy"
import * as Crawler from "effect-bitcoin-peer/server/Crawler"
import * as Transport from "effect-bitcoin-peer/Transport"
import * as Wire from "effect-bitcoin-peer/Wire"
import { parseAddress, unbracketed } from "./address.ts"
import { connect, type Way } from "./connect.ts"
import { crawl } from "./crawl.ts"
import { decode } from "./decode.ts"
import { demo } from "./demo.ts"
import { Failure } from "./failure.ts"
import { forms } from "./scan.ts"
import { listen } from "./listen.ts"
import { defaultUrl, net, parseUrl } from "./net.ts"
import { Output } from "./output.ts"
import { parseHostPort, parseProxy } from "./proxy.ts"
import { formats, peers } from "./peers.ts"
import { recordIn } from "./record.ts"
import { replay } from "./replay.ts"
import { parseServices } from "./services.ts"
import type { Format } from "./summary.ts"
import type { Settings } from "./watch.ts"
import { clean, wrappedHelp } from "./text.ts"

/** The version of the package. */
export const version = "0.1.0"

const units = new Map([
  ...["ms", "millis"].map((unit) => [unit, 1] as const),
  ...["s", "second", "seconds"].map((unit) => [unit, 1000] as const),
  ...["m", "minute", "minutes"].map((unit) => [unit, 60_000] as const),
  ...["h", "hour", "hours"].map((unit) => [unit, 3_600_000] as const),
  ...["d", "day", "days"].map((unit) => [unit, 86_400_000] as const)
])

/** Reads `30s`, `1.5m`, `500ms`, `2 hours`, or a number of seconds. A timer cannot wait longer than 24 days. */
export const parseDuration = (text: string): Duration.Duration => {
  const [, number, unit = "s"] = /^(\d+(?:\.\d+)?)\s*([a-z]+)?$/.exec(text.trim()) ?? []
  const millis = Number(number) * (units.get(unit) ?? NaN)
  if (!(millis < 2 ** 31)) throw new Error("a duration of at most 24 days: 500ms, 30s, 5m, 2h, 1d")
  return Duration.millis(millis)
}

const durationFlag = (name: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("DURATION"),
    Flag.mapTryCatch(parseDuration, (error) => (error instanceof Error ? error.message : String(error)))
  )

/** Refuses a duration of 0. */
const positive = Flag.filter(
  (duration: Duration.Duration) => Duration.isPositive(duration),
  () => "a duration above 0"
)

const isUserAgent = (text: string): boolean => text.length <= Wire.maxUserAgentLength && /^[\x20-\x7e]*$/.test(text)

const json = Flag.Literals("json", ["summary", "full"]).pipe(
  Flag.withOptionalValue("summary"),
  Flag.withDescription("Print one JSON object a line: a summary of each message, with --json=full all of it"),
  Flag.optional
)

const formatOf = (json: Option.Option<"summary" | "full">): Format => Option.getOrElse(json, () => "text" as const)

const capture = Flag.String("capture").pipe(
  Flag.withMetavar("DIR"),
  Flag.filter(
    (directory) => directory !== "",
    () => "a directory"
  ),
  Flag.withDescription("Record all messages in DIR/message_capture, in Bitcoin Core's format"),
  Flag.optional
)

const limitFlag = (description: string) =>
  durationFlag("for").pipe(positive, Flag.withDescription(description), Flag.optional)

const timeoutFlag = (description: string) =>
  durationFlag("timeout").pipe(positive, Flag.withDescription(description), Flag.optional)

const userAgentFlag = (byDefault: string) =>
  Flag.String("user-agent").pipe(
    Flag.filter(isUserAgent, () => `at most ${Wire.maxUserAgentLength} characters of ASCII`),
    Flag.withDescription(`The user agent that we send, '' for an empty one; ${byDefault} by default`),
    Flag.optional
  )

const peerFlags = {
  network: Flag.Literals("network", Network.names).pipe(
    Flag.withAlias("n"),
    Flag.withDescription("The network of the peer; mainnet by default"),
    Flag.withDefault("mainnet")
  ),
  limit: limitFlag("Disconnect after this time, counted from the handshake; without it, on Ctrl-C"),
  policy: Flag.Literals("policy", Policy.names).pipe(
    Flag.withDescription("Answer bad behaviour as Bitcoin Core or as btcd does; core by default"),
    Flag.withDefault("core")
  ),
  transport: Flag.Literals("transport", Transport.names).pipe(
    Flag.withDescription("Encrypted (v2, BIP324), plain (v1), or v2 with nodes that speak it (auto, the default)"),
    Flag.withDefault("auto")
  ),
  userAgent: userAgentFlag(defaultUserAgent),
  json
}

interface PeerFlags {
  readonly network: Network.Name
  readonly limit: Option.Option<Duration.Duration>
  readonly timeout: Option.Option<Duration.Duration>
  readonly policy: Policy.Name
  readonly transport: Transport.Transport
  readonly userAgent: Option.Option<string>
  readonly json: Option.Option<"summary" | "full">
}

/** A connection to an onion service takes many seconds. An I2P router may look for a destination for minutes. */
const timeouts = { Direct: Duration.seconds(10), Socks5: Duration.minutes(1), I2p: Duration.minutes(3) }

const settings = (flags: PeerFlags, way: Way["_tag"] = "Direct"): Settings => ({
  network: Network.fromName(flags.network),
  policy: Policy.fromName(flags.policy),
  transport: flags.transport,
  userAgent: Option.getOrUndefined(flags.userAgent),
  timeout: Option.getOrElse(flags.timeout, () => timeouts[way]),
  limit: Option.getOrUndefined(flags.limit),
  format: formatOf(flags.json)
})

const wayOf = (proxy: Option.Option<string>, sam: Option.Option<string>): Way => {
  if (Option.isSome(proxy)) {
    if (Option.isSome(sam)) throw new Error("cannot be used together with --i2p-sam")
    return { _tag: "Socks5", proxy: parseProxy(proxy.value) }
  }
  return Option.isSome(sam) ? { _tag: "I2p", sam: parseHostPort(sam.value) } : { _tag: "Direct" }
}

/** The endpoint; in I2P, where there are no ports, its port is 0. */
const endpointOf = (address: string, way: Way, network: Network.Network) => {
  const endpoint = parseAddress(address, way._tag === "I2p" ? 0 : network.port)
  if (way._tag === "I2p" && endpoint.port !== 0) throw new Error("there are no ports in I2P")
  return endpoint
}

const orFailure = <A>(what: string, parse: () => A): Effect.Effect<A, Failure> =>
  Effect.try({
    try: parse,
    catch: (error) => new Failure({ message: `${what}: ${error instanceof Error ? error.message : String(error)}` })
  })

const connectCommand = Command.make(
  "connect",
  {
    ...peerFlags,
    timeout: timeoutFlag(
      "How long connecting and the handshake may take together; by default 10s, through a proxy 1m, through I2P 3m"
    ),
    proxy: Flag.String("proxy").pipe(
      Flag.withMetavar("URL"),
      Flag.withDescription(
        "Connect through this SOCKS5 proxy, socks5://[USER:PASSWORD@]HOST:PORT, which also resolves the name. Tor: socks5://127.0.0.1:9050"
      ),
      Flag.optional
    ),
    sam: Flag.String("i2p-sam").pipe(
      Flag.withMetavar("HOST:PORT"),
      Flag.withDescription("Connect to .i2p names through the SAM of this I2P router, usually 127.0.0.1:7656"),
      Flag.optional
    ),
    capture,
    services: Flag.String("services").pipe(
      Flag.withMetavar("NAMES"),
      Flag.withDescription(
        "The services of the node, if you know them, such as NETWORK,WITNESS,P2P_V2. Without P2P_V2, --transport auto begins with v1"
      ),
      Flag.optional
    ),
    address: Argument.String("address").pipe(
      Argument.withMetavar("HOST[:PORT]"),
      Argument.withDescription("A name, an IPv4 address, or an IPv6 address in brackets; the network's port by default")
    )
  },
  Effect.fnUntraced(function* ({ address, capture, proxy, sam, services, ...flags }) {
    // Flags repeat their input in errors, and this one may hold a password. So it is parsed here.
    const way = yield* orFailure(Option.isSome(proxy) ? "--proxy" : "--i2p-sam", () => wayOf(proxy, sam))
    const options = settings(flags, way._tag)
    const endpoint = yield* orFailure(`"${address}"`, () => endpointOf(address, way, options.network))
    const known = yield* orFailure("--services", () => Option.getOrUndefined(Option.map(services, parseServices)))
    return yield* recordIn(capture)(connect(endpoint, way, options, known))
  })
).pipe(
  Command.withShortDescription("Connect to a node and show its messages"),
  Command.withDescription(
    `Connect to a node, ping it, show every message of both sides, and count them at the end.

Exit code 0: disconnected after --for, or by Ctrl-C or SIGTERM. 1: no connection, no handshake, or the node disconnected. 130: stopped before the end of the handshake.`
  ),
  Command.withExamples([
    { command: "btcpeer connect 127.0.0.1 --network regtest", description: "Watch a node on this machine" },
    { command: "btcpeer connect [::1]:18444 -n regtest --for 30s --json", description: "Half a minute, for a program" },
    {
      command: "btcpeer connect NAME.onion --proxy socks5://127.0.0.1:9050",
      description: "An onion service, through Tor"
    }
  ])
)

const listenCommand = Command.make(
  "listen",
  {
    ...peerFlags,
    limit: limitFlag("Stop listening and disconnect all after this time; without it, on Ctrl-C"),
    timeout: timeoutFlag("How long to wait for the handshake; 10s by default"),
    capture,
    host: Flag.String("host").pipe(
      Flag.map(unbracketed),
      Flag.withDescription(
        "The address to listen on; other machines can connect to 0.0.0.0 and ::; 127.0.0.1 by default"
      ),
      Flag.withDefault("127.0.0.1")
    ),
    port: Flag.Int("port").pipe(
      Flag.filter(
        (port) => port >= 0 && port <= 65_535,
        () => "a port from 0 to 65535, where 0 takes a free one"
      ),
      Flag.withDescription("The network's port by default; 0 takes a free one"),
      Flag.optional
    )
  },
  ({ capture, host, port, ...flags }) => {
    const options = settings(flags)
    return recordIn(capture)(listen({ host, port: Option.getOrElse(port, () => options.network.port) }, options))
  }
).pipe(
  Command.withShortDescription("Accept peers and show their messages"),
  Command.withDescription(
    `Accept peers, and show every message of each. Other peers stay when one disconnects.

Exit code 0: ended after --for, or by Ctrl-C or SIGTERM. 1: cannot listen.`
  ),
  Command.withExamples([
    { command: "btcpeer listen --network regtest --port 0 --json", description: "On a free port, for a program" }
  ])
)

const replayCommand = Command.make(
  "replay",
  {
    network: peerFlags.network,
    policy: peerFlags.policy,
    limit: peerFlags.limit,
    json,
    speed: Flag.Finite("speed").pipe(
      Flag.withMetavar("FACTOR"),
      Flag.filter(
        (speed) => speed > 0,
        () => "a number above 0"
      ),
      Flag.withDescription("How many times as fast as it was recorded; 1 by default"),
      Flag.optional
    ),
    atOnce: Flag.Boolean("at-once").pipe(
      Flag.withDescription("Do not wait between the messages"),
      Flag.withDefault(false)
    ),
    file: Argument.String("file").pipe(
      Argument.withMetavar("FILE"),
      Argument.withDescription("msgs_recv.dat has the messages of the peer, msgs_sent.dat those of the other side")
    )
  },
  ({ atOnce, file, json, limit, network, policy, speed }) =>
    atOnce && Option.isSome(speed)
      ? Effect.fail(new Failure({ message: "--at-once: cannot be used together with --speed" }))
      : replay(file, atOnce ? Infinity : Option.getOrElse(speed, () => 1), {
          network: Network.fromName(network),
          // A file without a handshake says so at once: no version comes later, as it could from a node.
          policy: { ...Policy.fromName(policy), notVersionFirst: "disconnect" },
          limit: Option.getOrUndefined(limit),
          format: formatOf(json)
        })
).pipe(
  Command.withShortDescription("Play a capture to a peer of this program, as if it were its connection"),
  Command.withDescription(
    `Play one side of a recorded connection (connect --capture, or bitcoind -capturemessages) to a peer of this program, and show the same as connect. The recorded side answers no questions. A capture does not hold its network, which matters for the output only.

Exit code 0: the whole capture was played, or ended after --for or by Ctrl-C. 1: not a capture, a damaged one, or its messages made the peer disconnect. 130: stopped before the end of the handshake.`
  ),
  Command.withExamples([
    { command: "btcpeer replay msgs_recv.dat --at-once --json", description: "The whole capture, for a program" },
    { command: "btcpeer replay msgs_recv.dat --speed 60", description: "A minute in a second" }
  ])
)

const decodeCommand = Command.make(
  "decode",
  {
    json,
    network: Flag.Literals("network", Network.names).pipe(
      Flag.withAlias("n"),
      Flag.withDescription(
        "The network of addresses in --json=full, if the input does not hold it; mainnet by default"
      ),
      Flag.withDefault("mainnet")
    ),
    as: Flag.String("as").pipe(
      Flag.withMetavar("FORM"),
      Flag.filter(
        (as) => /^[!-~]{1,12}$/.test(as),
        () => `${forms.join(", ")}, or a command such as headers`
      ),
      Flag.withDescription(
        `The form of the input, if decode cannot recognise it: ${forms.join(", ")}, or the command of a payload`
      ),
      Flag.optional
    ),
    file: Argument.String("file").pipe(
      Argument.withMetavar("FILE"),
      Argument.withDescription("The file; - or no argument for standard input"),
      Argument.withDefault("-")
    )
  },
  ({ as, file, json, network }) =>
    decode(file, { format: formatOf(json), as: Option.getOrUndefined(as), network: Network.fromName(network) })
).pipe(
  Command.withShortDescription("Show the messages in a file or in standard input"),
  Command.withDescription(
    `Show the messages in a capture of Bitcoin Core (-capturemessages), a stream of version 1 frames, a block file, a block, whole or filtered, a transaction, or the hexadecimal digits of one of them. What is damaged is shown as such, and the rest is decoded.

Exit code 1: the input cannot be read, or a part of it is damaged.`
  ),
  Command.withExamples([
    { command: "btcpeer decode msgs_recv.dat", description: "A capture of Bitcoin Core" },
    {
      command: "bitcoin-cli getrawtransaction TXID | btcpeer decode --json=full",
      description: "Hexadecimal, with the fields of decoderawtransaction"
    },
    { command: "btcpeer decode --as headers payload.raw", description: "The payload of a message" }
  ])
)

const crawlCommand = Command.make(
  "crawl",
  {
    network: peerFlags.network,
    seeds: Flag.String("seed").pipe(
      Flag.withMetavar("HOST[:PORT]"),
      Flag.withDescription("A node to start from, as often as you like; a name stands for all its addresses"),
      Flag.atLeast(0)
    ),
    dns: Flag.Boolean("dns").pipe(
      Flag.withDescription(
        "Ask the DNS seeds of the network for nodes to start from; without this no DNS seed is asked"
      ),
      Flag.withDefault(false)
    ),
    db: Flag.String("db").pipe(
      Flag.withMetavar("FILE"),
      Flag.filter(
        (file) => file !== "",
        () => "a file"
      ),
      Flag.withDescription("Keep the crawl in this SQLite database, and go on where an earlier one was"),
      Flag.optional
    ),
    every: durationFlag("every").pipe(
      Flag.filter(
        (every) => Duration.toMillis(every) >= 600_000,
        () => "a duration of at least 10m"
      ),
      Flag.withDescription(
        "Go on for ever, and visit each address again after this time, at least 10m; without it, once"
      ),
      Flag.optional
    ),
    limit: limitFlag("End the crawl after this time"),
    concurrency: Flag.Int("concurrency").pipe(
      Flag.filter(
        (count) => count >= 1 && count <= 100_000,
        () => "a number from 1 to 100000"
      ),
      Flag.withDescription("Visits at once, for each of IPv4, IPv6 and Tor; 64 by default"),
      Flag.withDefault(64)
    ),
    rate: Flag.Finite("rate").pipe(
      Flag.filter(
        (rate) => rate > 0,
        () => "a number above 0"
      ),
      Flag.withDescription("Dials each second; 50 by default"),
      Flag.withDefault(50)
    ),
    answerTimeout: durationFlag("answer-timeout").pipe(
      positive,
      Flag.withDescription("How long to wait for the addresses of a node; 70s by default, and 90s through a proxy"),
      Flag.optional
    ),
    proxy: Flag.String("proxy").pipe(
      Flag.withMetavar("URL"),
      Flag.withDescription(
        "Visit all nodes, onion services too, through this SOCKS5 proxy. Tor: socks5://127.0.0.1:9050"
      ),
      Flag.optional
    ),
    allowPrivate: Flag.Boolean("allow-private").pipe(
      Flag.withDescription("Visit addresses such as 127.0.0.1 and 192.168.0.1, too; for networks of your own"),
      Flag.withDefault(false)
    ),
    contact: Flag.String("contact").pipe(
      Flag.withMetavar("TEXT"),
      Flag.withDescription("How an operator can reach you: a comment in the user agent, without / : ( and )"),
      Flag.optional
    ),
    userAgent: userAgentFlag(Crawler.defaultUserAgent),
    transport: peerFlags.transport,
    snapshot: Flag.String("snapshot").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("Write the nodes that were reached as JSON, in the form of bitnodes"),
      Flag.optional
    ),
    seedDump: Flag.String("seed-dump").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("Write the nodes that were ever reached in the form of dnsseed.dump"),
      Flag.optional
    ),
    json: Flag.Literals("json", ["summary", "full"]).pipe(
      Flag.withOptionalValue("summary"),
      Flag.withDescription(
        "Print one JSON object a visit, and a summary; with --json=full also the addresses of each node"
      ),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ network: name, ...flags }) {
    const network = Network.fromName(name)
    const seeds = yield* Effect.forEach(flags.seeds, (seed) =>
      orFailure(`--seed "${seed}"`, () => parseAddress(seed, network.port))
    )
    return yield* crawl({
      network,
      seeds,
      dns: flags.dns,
      db: Option.getOrUndefined(flags.db),
      every: Option.getOrUndefined(flags.every),
      limit: Option.getOrUndefined(flags.limit),
      concurrency: flags.concurrency,
      rate: flags.rate,
      answerTimeout: Option.getOrUndefined(flags.answerTimeout),
      proxy: yield* orFailure("--proxy", () => Option.getOrUndefined(Option.map(flags.proxy, parseProxy))),
      allowPrivate: flags.allowPrivate,
      contact: Option.getOrUndefined(flags.contact),
      userAgent: Option.getOrUndefined(flags.userAgent),
      transport: flags.transport,
      snapshot: Option.getOrUndefined(flags.snapshot),
      seedDump: Option.getOrUndefined(flags.seedDump),
      format: formatOf(flags.json)
    })
  })
).pipe(
  Command.withShortDescription("Visit all nodes of a network and count them"),
  Command.withDescription(
    `Visit the seeds, ask each node for the addresses that it knows, visit these, and so on. A node answers after half a minute on average. With manners: no more than 2 visits at once in a /24 or /64, no address twice within 10 minutes.

Exit code 0: each address was visited, or ended after --for, or by Ctrl-C or SIGTERM. 1: wrong flags, no address to start from, no node reached, or the database or a file cannot be written.`
  ),
  Command.withExamples([
    {
      command: "btcpeer crawl --dns --db mainnet.db --contact me@example.org",
      description: "All of mainnet, in several sittings"
    },
    {
      command: "btcpeer crawl -n regtest --seed 127.0.0.1 --allow-private --json",
      description: "A network on this machine, for a program"
    }
  ])
)

const peersCommand = Command.make(
  "peers",
  {
    network: Flag.Literals("network", Network.names).pipe(
      Flag.withAlias("n"),
      Flag.withDescription("The network of the addresses, if the file does not say it; mainnet by default"),
      Flag.withDefault("mainnet")
    ),
    json: Flag.Boolean("json").pipe(Flag.withDescription("Print one JSON object a line"), Flag.withDefault(false)),
    to: Flag.Literals("to", formats).pipe(
      Flag.withDescription("Convert to this format instead of printing"),
      Flag.optional
    ),
    output: Flag.String("output").pipe(
      Flag.withMetavar("FILE"),
      Flag.filter(
        (output) => output !== "",
        () => "a file"
      ),
      Flag.withDescription("The file that --to writes. It must not exist"),
      Flag.optional
    ),
    file: Argument.String("file").pipe(
      Argument.withMetavar("FILE"),
      Argument.withDescription(
        "peers.dat, anchors.dat, banlist.json, a peers.json of btcd, a JSON array, or lines; - for standard input"
      )
    )
  },
  ({ file, json, network, output, to }) => {
    if (Option.isSome(to) !== Option.isSome(output)) {
      return Effect.fail(new Failure({ message: Option.isSome(to) ? "--to: needs --output" : "--output: needs --to" }))
    }
    return peers(file, {
      network: Network.fromName(network),
      format: json ? "json" : "text",
      to: Option.getOrUndefined(Option.zipWith(to, output, (format, file) => ({ format, file })))
    })
  }
).pipe(
  Command.withShortDescription("Show the addresses of nodes in a file, or convert them"),
  Command.withDescription(
    `Show the addresses in the peers.dat or anchors.dat of Bitcoin Core, in a peers.json of btcd, in a JSON array (of getnodeaddresses, or a snapshot of bitnodes), or in lines of HOST[:PORT]. Or convert them, with --to and --output. Or show the bans in a banlist.json.

Exit code 1: the file cannot be read, or a part of it was lost. The rest is shown or converted then.`
  ),
  Command.withExamples([
    { command: "btcpeer peers ~/.bitcoin/peers.dat", description: "The address manager of Bitcoin Core" },
    {
      command: "btcpeer peers peers.json --to peers.dat --output peers.dat",
      description: "The addresses of btcd, for Bitcoin Core"
    }
  ])
)

const netCommand = Command.make(
  "net",
  {
    url: Flag.String("url").pipe(
      Flag.withMetavar("URL"),
      Flag.withDescription(`Where the program serves its status; ${defaultUrl} by default`),
      Flag.withDefault(defaultUrl)
    ),
    watch: Flag.Boolean("watch").pipe(
      Flag.withAlias("w"),
      Flag.withDescription("Show it anew every 2 seconds, until Ctrl-C"),
      Flag.withDefault(false)
    )
  },
  // Flags repeat their input in errors, and a URL may hold a password.
  ({ url, watch }) =>
    Effect.flatMap(
      orFailure("--url", () => parseUrl(url)),
      (from) => net(from, watch, version)
    )
).pipe(
  Command.withShortDescription("Show the peers of a running server"),
  Command.withDescription(
    `Show the peers of a server in a running program, in the table of bitcoin-cli -netinfo 4. The program serves its status with StatusApi of effect-bitcoin-peer.

serv: n NETWORK, b BLOOM, w WITNESS, c COMPACT_FILTERS, l NETWORK_LIMITED, 2 P2P_V2, u unknown. mping, ping: the smallest and the last round trip. send, recv: since the last message. txn, blk: since the last new transaction and block; * no transactions are relayed to the peer. hb: . we chose it for high-bandwidth compact blocks, * it chose us. addrp, addrl: addresses taken and refused; . none are relayed to the peer. age: since the handshake.

Exit code 0: shown, or stopped by Ctrl-C. 1: nothing answers, or no status of a server.`
  ),
  Command.withExamples([
    { command: "btcpeer net", description: "The program of examples/server.ts" },
    { command: "btcpeer net --url http://127.0.0.1:9000 --watch", description: "A live view" }
  ])
)

/** The command tree. */
export const btcpeer = Command.make("btcpeer").pipe(
  Command.withDescription("A Bitcoin peer for the command line"),
  Command.withSubcommands([
    connectCommand,
    listenCommand,
    crawlCommand,
    netCommand,
    peersCommand,
    replayCommand,
    decodeCommand,
    demo
  ])
)

const oneLine = (text: string): string => clean(text.replace(/\s+/g, " ").trim())

/** Where the output is no terminal, and tells no width. */
const defaultHelpColumns = 80

/**
 * Help goes to stdout, no wider than the terminal. An error in the arguments is one line on stderr, without the help.
 */
const presenter = (
  error: (text: string) => void,
  columns: number = defaultHelpColumns,
  colors: boolean
): CliOutput.Presenter => ({
  present: (event) => {
    switch (event._tag) {
      case "InvalidInvocation":
        return Effect.sync(() => error(`btcpeer: ${oneLine(event.errors[0]?.message ?? "bad arguments")} (see --help)`))
      case "Help":
        return Console.log(wrappedHelp(CliOutput.defaultFormatter({ colors }).formatHelpDoc(event.helpDoc), columns))
      default:
        return CliOutput.defaultPresenter.present(event)
    }
  }
})

const runCommand = Command.runWith(btcpeer, { version })

/** Runs the command with its arguments and returns the exit code. Every failure is one line on stderr. */
export const run = Effect.fnUntraced(function* (argv: ReadonlyArray<string>) {
  const { columns, error } = yield* Output
  const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
  return yield* runCommand(argv).pipe(
    Effect.as(0),
    Effect.catchTags({
      ShowHelp: ({ errors }) => Effect.succeed(errors.length === 0 ? 0 : 1),
      // Its error is printed already.
      DemoFailed: () => Effect.succeed(1)
    }),
    Effect.catchCause((cause) => {
      if (Cause.hasInterrupts(cause)) return Effect.interrupt
      const problem = Option.getOrUndefined(Cause.findErrorOption(cause))
      error(problem === undefined ? `btcpeer: ${Cause.pretty(cause)}` : `btcpeer: ${oneLine(problem.message)}`)
      return Effect.succeed(1)
    }),
    Effect.provideService(CliOutput.Presenter, presenter(error, columns(), canColor)),
    Effect.provide(
      CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel] })
    ),
    Effect.provideService(Logger.LogToStderr, true),
    Effect.provide(Nonce.layer)
  )
})
