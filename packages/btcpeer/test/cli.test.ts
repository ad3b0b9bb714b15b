/** The command without its process: what it prints, and how it reads its arguments. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { TestConsole } from "effect/testing"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { parseAddress, unbracketed } from "../src/address.ts"
import { parseDuration, run, version } from "../src/command.ts"
import * as Events from "../src/events.ts"
import { makeMemory } from "../src/output.ts"
import { describe as describeSummary, textLines } from "../src/print.ts"
import { parseProxy } from "../src/proxy.ts"
import { summarise } from "../src/summary.ts"
import { bitcoin, clean, cleanBytes, grouped } from "../src/text.ts"
import * as Wire from "effect-bitcoin-peer/Wire"
import { concat, messages } from "../../../test/support/generators.ts"
import { decodeLine, hash, header, transaction, txid } from "./support/fixtures.ts"

const plain = (_: unknown, text: string): string => text
// oxlint-disable-next-line no-control-regex
const control = /[\u0000-\u001f\u007f-\u009f]/

const hex = (byte: string): string => byte.repeat(32)
const noAddress = { services: 0n, address: new Uint8Array(16), port: 0 }
const blockHash = Wire.hashToHex(Wire.blockHash(header))
const filtered = { ...header, merkleRoot: hash(0xaa) }
const filteredHash = Wire.hashToHex(Wire.blockHash(filtered))

const alert = (text: string): Wire.Alert => ({
  _tag: "alert",
  payload: hash(0),
  signature: hash(0),
  version: 1,
  relayUntil: 2_147_483_647,
  expiration: 2_147_483_647,
  id: 1011,
  cancel: 0,
  alsoCancel: [],
  minimumVersion: 0,
  maximumVersion: 70_000,
  userAgents: [],
  priority: 0,
  comment: text,
  statusBar: text,
  reserved: text
})

/** A message of each type, and its line. */
const lines: ReadonlyArray<readonly [Wire.Message, string]> = [
  [
    {
      _tag: "version",
      protocolVersion: 70016,
      services: 9n,
      timestamp: 1_700_000_000,
      receiver: noAddress,
      sender: noAddress,
      nonce: 1n,
      userAgent: "/Satoshi:28.1.0/",
      startHeight: 130,
      relay: false
    },
    '70016 "/Satoshi:28.1.0/"  height 130  NETWORK WITNESS  no relay  2023-11-14T22:13:20Z'
  ],
  [{ _tag: "verack" }, ""],
  [{ _tag: "wtxidrelay" }, ""],
  [{ _tag: "sendaddrv2" }, ""],
  [{ _tag: "sendheaders" }, ""],
  [{ _tag: "getaddr" }, ""],
  [{ _tag: "mempool" }, ""],
  [{ _tag: "sendcmpct", announce: true, version: 2n }, "version 2, high bandwidth"],
  [{ _tag: "feature", id: "abcd", data: Uint8Array.of(1, 0xff) }, '"abcd"  01ff'],
  [{ _tag: "ping", nonce: 255n }, "nonce 00000000000000ff"],
  [{ _tag: "ping", nonce: undefined }, "no nonce"],
  [{ _tag: "pong", nonce: 2n ** 64n - 1n }, "nonce ffffffffffffffff"],
  [
    {
      _tag: "addr",
      addresses: [
        { ...noAddress, timestamp: 0, address: concat(new Uint8Array(10), [255, 255, 1, 2, 3, 4]), port: 8333 },
        { ...noAddress, timestamp: 0 }
      ]
    },
    "2 addresses (1 ipv4, 1 ipv6), first 1.2.3.4:8333"
  ],
  [
    {
      _tag: "addrv2",
      addresses: [{ timestamp: 0, services: 0n, networkId: 1, address: Uint8Array.of(1, 2, 3, 4), port: 8333 }]
    },
    "1 address (1 ipv4), first 1.2.3.4:8333"
  ],
  [{ _tag: "addr", addresses: [] }, "no addresses"],
  [
    {
      _tag: "inv",
      items: [
        { type: Wire.InventoryType.wtx, hash: hash(0xaa) },
        { type: Wire.InventoryType.block, hash: hash(1) },
        { type: Wire.InventoryType.wtx, hash: hash(2) },
        { type: 77, hash: hash(2) }
      ]
    },
    `2 wtx, 1 block, 1 other, first ${hex("aa")}`
  ],
  [
    {
      _tag: "getdata",
      items: [{ type: Wire.InventoryType.tx + Wire.InventoryType.witnessFlag, hash: hash(0xbb) }]
    },
    `1 witnessTx, first ${hex("bb")}`
  ],
  [{ _tag: "notfound", items: [] }, "nothing"],
  [
    { _tag: "getheaders", protocolVersion: 70016, locator: [hash(0xcc), hash(1)], stopHash: hash(0) },
    `from ${hex("cc")}  (2 hashes)`
  ],
  [
    { _tag: "getblocks", protocolVersion: 70016, locator: [hash(0xcc)], stopHash: hash(0xdd) },
    `from ${hex("cc")}  (1 hash)  to ${hex("dd")}`
  ],
  [{ _tag: "headers", headers: [] }, "no headers"],
  [{ _tag: "headers", headers: [header] }, `1 header ${blockHash}`],
  [{ _tag: "headers", headers: [header, header] }, `2 headers ${blockHash} to ${blockHash}`],
  [{ _tag: "feefilter", feeRate: 1000 }, "1,000 sat/kvB"],
  [{ _tag: "tx", transaction }, `${txid}  1 input, 2 outputs  1.50000001 BTC  witness`],
  [
    { _tag: "block", block: { header, transactions: [transaction] } },
    `${blockHash}  1 transaction  2023-11-14T22:13:20Z`
  ],
  [
    { _tag: "filterload", filter: new Uint8Array(1200), hashFunctions: 11, tweak: 5, flags: 2 },
    "1,200 bytes  11 hash functions  tweak 5  update p2pubkeyOnly"
  ],
  [{ _tag: "filteradd", data: Uint8Array.of(1, 0xff) }, "01ff"],
  [{ _tag: "filterclear" }, ""],
  [
    {
      _tag: "merkleblock",
      header: filtered,
      transactionCount: 1,
      hashes: [hash(0xaa)],
      flags: Uint8Array.of(1)
    },
    `${filteredHash}  1 of 1 transaction  first ${hex("aa")}  2023-11-14T22:13:20Z`
  ],
  [
    { _tag: "merkleblock", header, transactionCount: 2, hashes: [], flags: Uint8Array.of(1) },
    `${blockHash}  proves nothing: MissingHashes  2023-11-14T22:13:20Z`
  ],
  [{ _tag: "reject", rejected: "tx", code: 16, reason: "no", hash: hash(0xee) }, `tx: "no" (0x10)  ${hex("ee")}`],
  [
    {
      _tag: "cmpctblock",
      header,
      nonce: 1n,
      shortIds: [1, 2, 3],
      prefilled: [{ index: 0, transaction }]
    },
    `${blockHash}  4 transactions, 1 prefilled  2023-11-14T22:13:20Z`
  ],
  [{ _tag: "getblocktxn", blockHash: hash(0xcc), indexes: [1, 7] }, `${hex("cc")}  2 transactions`],
  [{ _tag: "blocktxn", blockHash: hash(0xcc), transactions: [transaction] }, `${hex("cc")}  1 transaction`],
  [
    { _tag: "getcfilters", filterType: 0, startHeight: 1000, stopHash: hash(0xaa) },
    `from height 1,000 to ${hex("aa")}`
  ],
  [
    { _tag: "getcfheaders", filterType: 1, startHeight: 0, stopHash: hash(0xaa) },
    `from height 0 to ${hex("aa")}  filter type 1`
  ],
  [{ _tag: "cfilter", filterType: 0, blockHash: hash(0xaa), filter: hash(1) }, `${hex("aa")}  32 bytes`],
  [
    {
      _tag: "cfheaders",
      filterType: 0,
      stopHash: hash(0xaa),
      previousFilterHeader: hash(0),
      filterHashes: [hash(1), hash(2)]
    },
    `2 hashes to ${hex("aa")}`
  ],
  [{ _tag: "getcfcheckpt", filterType: 0, stopHash: hash(0xaa) }, `to ${hex("aa")}`],
  [
    { _tag: "cfcheckpt", filterType: 2, stopHash: hash(0xaa), filterHeaders: [hash(1)] },
    `1 filter header to ${hex("aa")}  filter type 2`
  ],
  [{ _tag: "sendtxrcncl", version: 1, salt: 255n }, "version 1  salt 00000000000000ff"],
  [{ _tag: "sendpackages", versions: 3n }, "versions 0000000000000003"],
  [{ _tag: "ancpkginfo", wtxids: [hash(0xaa), hash(1)] }, `2 transactions, first ${hex("aa")}`],
  [{ _tag: "getpkgtxns", wtxids: [] }, "no transactions"],
  [{ _tag: "pkgtxns", transactions: [transaction] }, `1 transaction, first ${Wire.hashToHex(Wire.wtxid(transaction))}`],
  [alert("URGENT\x1b"), '1011: "URGENT\\x1b"  until 2038-01-19T03:14:07Z'],
  [{ _tag: "Unknown", command: "unheardof", payload: hash(0) }, "unknown command"]
]

describe("summaries", () => {
  for (const [message, line] of lines) {
    it(`${Wire.command(message)}: ${line === "" ? "says nothing" : line}`, () => {
      assert.strictEqual(describeSummary(summarise(message)), line)
    })
  }

  it("are there for every message type", () => {
    assert.deepStrictEqual(new Set(lines.map(([{ _tag }]) => _tag)), new Set([...Object.keys(messages), "alert"]))
  })

  it("an unknown message with the name of a known command is still unknown", () => {
    assert.strictEqual(describeSummary({ command: "block", unknown: true }), "unknown command")
  })
})

describe("events", () => {
  for (const [tag, arbitrary] of Object.entries(messages)) {
    const message = Arbitrary.map(arbitrary as Arbitrary.Arbitrary<Wire.Message>, (message) => message)
    it.prop(
      `${tag}: the line decodes to the event, and neither it nor the text can act upon a terminal`,
      [message],
      ([message]) => {
        const summary = summarise(message)
        const event = { event: "message", direction: "in", peer: 3, address: "[::1]:1", bytes: 24, ...summary } as const
        const line = Events.toLine(event)
        assert.deepStrictEqual(decodeLine(line), event)
        assert.notMatch(line, control)
        for (const text of textLines(plain, event, { when: "now" })) assert.notMatch(text, control)
      }
    )
  }

  it("statistics and times are encoded as the schema of Peer says", () => {
    const event = {
      event: "disconnected",
      reason: "RemoteClosed",
      message: "the peer closed the connection",
      stats: {
        connectedAt: DateTime.makeUnsafe(0),
        bytesReceived: 1,
        bytesSent: 2,
        messagesReceived: 1,
        messagesSent: 0,
        messagesDropped: 3,
        received: { ping: { messages: 1, bytes: 32 } },
        sent: {},
        lastPing: Duration.millis(1.5),
        queuedMessages: 0,
        queuedBytes: 0,
        id: 1,
        direction: "outbound",
        localAddress: "127.0.0.1:1",
        remoteAddress: "127.0.0.1:2",
        network: "regtest",
        transport: "v1",
        userAgent: "/x/",
        services: [],
        protocolVersion: 70_017,
        remoteProtocolVersion: 70_017,
        timeOffset: Duration.zero,
        startHeight: 0,
        feeFilter: 0,
        waitingAnnouncements: 0,
        knownInventory: 0,
        openRequests: 0
      }
    } as const
    const line = Events.toLine(event)
    assert.include(line, '"connectedAt":"1970-01-01T00:00:00.000Z"')
    assert.include(line, '"lastPing":1.5')
    assert.deepStrictEqual(Schema.encodeSync(Events.Event)(decodeLine(line)), JSON.parse(line))
    assert.deepStrictEqual(textLines(plain, event, {}), [
      "Disconnected: the peer closed the connection",
      "          received   bytes   sent   bytes",
      "  ping           1      32      -       -",
      "  total          1       1      0       2",
      "  last ping 1.50 ms, 3 messages dropped"
    ])
  })
})

describe("text of a remote", () => {
  const evil = "/ok\x1b[31m\x1b]0;title\x07\x9b2J\r\n\x00\xe9/"

  it("has its control characters escaped", () => {
    assert.strictEqual(cleanBytes(evil), "/ok\\x1b[31m\\x1b]0;title\\x07\\x9b2J\\x0d\\x0a\\x00\\xe9/")
    assert.strictEqual(clean("a\u202eb\u2028c\u200bdé"), "a\\u202eb\\u2028c\\u200bdé")
  })

  it("is the same after JSON, which has no control character", () => {
    const line = Events.toLine({ event: "refused", reason: "Refused", message: evil })
    assert.notMatch(line, control)
    assert.strictEqual(JSON.parse(line).message, evil)
  })

  it("is escaped in the lines of a handshake, of a rejected and of a dropped message", () => {
    const handshake: Events.Handshake = {
      event: "handshake",
      address: "127.0.0.1:1",
      direction: "outbound",
      network: "regtest",
      transport: "v1",
      protocolVersion: 70016,
      services: [],
      userAgent: evil,
      startHeight: 0,
      relay: false,
      timeOffset: -3,
      features: { addrv2: true, wtxidRelay: false, announced: [{ id: evil, data: "" }] },
      milliseconds: 1
    }
    const dropped: Events.Dropped = { event: "dropped", command: evil, bytes: 24, reason: "BadCommand", message: evil }
    const rejected = summarise({ _tag: "reject", rejected: evil, code: 1, reason: evil, hash: undefined })
    const alerted = { event: "message", bytes: 1, ...summarise(alert(evil)) } as const
    const all = [handshake, dropped, { event: "message", bytes: 1, ...rejected } as const, alerted]
    for (const event of all) for (const text of textLines(plain, event, {})) assert.notMatch(text, control)
    assert.deepStrictEqual(decodeLine(Events.toLine(alerted)), alerted)
  })
})

describe("numbers", () => {
  it("are grouped, and bitcoin are exact", () => {
    assert.deepStrictEqual([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"])
    assert.strictEqual(bitcoin(2_099_999_997_690_000), "20,999,999.97690000 BTC")
    assert.strictEqual(bitcoin(-1), "-0.00000001 BTC")
    assert.strictEqual(bitcoin(2 ** 60), "1152921504606847000 sat")
  })
})

describe("parseAddress", () => {
  const good: ReadonlyArray<readonly [string, string, number]> = [
    ["example.com", "example.com", 8333],
    ["example.com:1", "example.com", 1],
    ["127.0.0.1:65535", "127.0.0.1", 65535],
    ["[::1]:8334", "::1", 8334],
    ["[2001:db8::1]", "2001:db8::1", 8333],
    ["::1", "::1", 8333],
    ["fe80::1%eth0", "fe80::1%eth0", 8333]
  ]
  for (const [text, host, port] of good) {
    it(`${text} is ${host}, port ${port}`, () => assert.deepStrictEqual(parseAddress(text, 8333), { host, port }))
  }
  for (const text of [
    "",
    ":1",
    "host:",
    "host:99999",
    "host:0",
    "host:1x",
    "[::1",
    "[]:1",
    "[host]:1",
    "a b",
    "http://host",
    "a\x1b[0m",
    "18444",
    "1.2.3:8333",
    "256.1.1.1"
  ]) {
    it(`${JSON.stringify(text)} is refused`, () => assert.throws(() => parseAddress(text, 8333), Error))
  }
})

describe("parseProxy", () => {
  it("takes an address, and a user with a password, % escapes in them", () => {
    const proxy = { host: "127.0.0.1", port: 9050 }
    for (const url of ["socks5://127.0.0.1:9050", "SOCKS5H://127.0.0.1:9050/"]) {
      assert.deepStrictEqual(parseProxy(url), proxy)
    }
    assert.deepStrictEqual(parseProxy("socks5://[::1]:1"), { host: "::1", port: 1 })
    assert.deepStrictEqual(parseProxy("socks5://me:p%40ss:@x@127.0.0.1:9050"), {
      ...proxy,
      user: "me",
      password: "p@ss:@x"
    })
  })

  const incomplete = [
    "",
    "socks5://",
    "socks5://host",
    "socks5://host:",
    "socks5://host:0",
    "socks5://host:65536",
    "socks5://:1"
  ]
  const more = ["socks5://::1:1", "socks4://host:1", "socks5:host:1", "socks5://host:1/path", "socks5://a b:1"]
  const logins = [
    "socks5://secret@host:1",
    "socks5://secret:@host:1",
    "socks5://:secret@host:1",
    "socks5://secret:%@host:1"
  ]
  for (const url of [...incomplete, ...more, ...logins, "socks5://me:secret@host:x", "socks5://me:secret@host"]) {
    it(`${JSON.stringify(url)} is refused, and the error does not hold its password`, () => {
      assert.throws(() => parseProxy(url), /^(?!.*secret)/)
    })
  }
})

describe("unbracketed", () => {
  it("removes the brackets of an IPv6 address, and of nothing else", () => {
    assert.deepStrictEqual(["[::1]", "::1", "host", "[host]", "[::1"].map(unbracketed), [
      "::1",
      "::1",
      "host",
      "[host]",
      "[::1"
    ])
  })
})

describe("parseDuration", () => {
  it("takes units, and seconds without one", () => {
    const texts = ["500ms", "30", "1.5s", "2 m", "1h", "1d", "0", "4 seconds", "1 minute"]
    assert.deepStrictEqual(
      texts.map((text) => Duration.toMillis(parseDuration(text))),
      [500, 30_000, 1500, 120_000, 3_600_000, 86_400_000, 0, 4_000, 60_000]
    )
    for (const text of ["", "abc", "-1s", "1y", "1e9", "25d"]) assert.throws(() => parseDuration(text), Error)
  })
})

/** The command as `main.ts` runs it. */
const btcpeer = Effect.fnUntraced(function* (...argv: ReadonlyArray<string>) {
  const memory = makeMemory()
  const code = yield* Effect.provide(run(argv), Layer.merge(NodeServices.layer, memory.layer))
  return { code, lines: memory.lines, errors: memory.errors, help: (yield* TestConsole.logLines).join("\n") }
})

describe("the command line", () => {
  it("has the version of the package", () => {
    const manifest = fs.readFileSync(path.resolve(import.meta.dirname, "../package.json"), "utf8")
    assert.strictEqual(version, JSON.parse(manifest).version)
  })

  it.effect("prints its help and its version on request", () =>
    Effect.gen(function* () {
      for (const argv of [["--help"], ["connect", "--help"], ["listen", "-h"], ["decode", "--help"], []]) {
        const { code, errors, help } = yield* btcpeer(...argv)
        assert.deepStrictEqual({ code, errors }, { code: 0, errors: [] })
        assert.include(help, "USAGE")
        // Every flag with a value says what it is without it, in one or more lines.
        for (const [flag] of help.matchAll(/^ {2}--(?:network|timeout|policy|user-agent|host)[ ,].*(?:\n {5,}.*)*/gm)) {
          assert.match(flag, /by\s+default/)
        }
      }
      assert.include((yield* btcpeer("--version")).help, version)
    })
  )

  const nowhere = path.join(os.tmpdir(), "no such file")
  const bad: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
    [["frobnicate"], /Unknown subcommand "frobnicate"/],
    [["connect"], /Missing required argument/],
    [["connect", "a", "b"], /Unexpected positional argument: "b"/],
    [["connect", "host:99999"], /port "99999" is not a number from 1 to 65535/],
    [["connect", "a\x1b[31m"], /"a\\x1b\[31m": not a host name/],
    [["connect", "host", "--network", "litecoin"], /--network: "litecoin"/],
    [["connect", "host", "--policy", "lenient"], /--policy: "lenient"/],
    [["connect", "host", "--for", "soon"], /--for: "soon"\. Expected: a duration/],
    [["connect", "host", "--timeout", ""], /--timeout/],
    [["connect", "host", "--timeout", "0"], /--timeout: .*a duration above 0/],
    [["connect", "host", "--for", "0s"], /--for: .*a duration above 0/],
    [["listen", "--for", "0"], /--for: .*a duration above 0/],
    [["connect", "host", "--proxy", "localhost"], /--proxy: not of the form socks5:/],
    [["connect", "host", "--proxy", "http://127.0.0.1:8080"], /--proxy: .*other proxies than SOCKS5/],
    [["connect", "host", "--proxy", "socks5://127.0.0.1:99999"], /--proxy: the port is not a number from 1 to 65535/],
    [["connect", "host", "--proxy", "socks5://127.0.0.1:1", "--i2p-sam", "a:1"], /--proxy: cannot be used together/],
    [["connect", "host", "--i2p-sam", "127.0.0.1"], /--i2p-sam: not HOST:PORT/],
    [["connect", "a.i2p:8333", "--i2p-sam", "127.0.0.1:7656"], /"a.i2p:8333": there are no ports in I2P/],
    [["connect", "host", "--user-agent", "x".repeat(257)], /at most 256 characters/],
    [["connect", "host", "--services", "NETWORK,NOPE"], /--services: unknown service "NOPE"; known: NETWORK, BLOOM, /],
    [["connect", "host", "--services", ""], /--services: a name is missing; known: NETWORK, BLOOM, /],
    [["connect", "http://127.0.0.1:8333"], /"http:.*": a host is expected, not a URL; leave out http:\/\/$/],
    [["decode", "f9beb4d976657261636b"], /no such file; to decode hexadecimal digits: echo HEX \| btcpeer decode$/],
    [["decode", "ab".repeat(5_000)], /no such file; to decode hexadecimal digits: echo HEX \| btcpeer decode$/],
    [["connect", "host", "--jason"], /Unrecognized flag: --jason/],
    [["listen", "--port", "99999"], /--port: "99999"\. Expected: a port/],
    [["listen", "--port", "http"], /--port: "http"/],
    [["connect", "a.onion", "-n", "regtest"], /connect a\.onion:18444: .* Tor: --proxy socks5:\/\/127\.0\.0\.1:9050$/],
    [["connect", "a.i2p"], /connect a\.i2p:8333: .* I2P router: --i2p-sam 127\.0\.0\.1:7656$/],
    [["replay", nowhere, "--at-once", "--speed", "2"], /--at-once: cannot be used together with --speed$/],
    [["replay", ""], /the name of the file is empty$/],
    [["decode", ""], /the name of the file is empty$/],
    [["decode", nowhere], /no such file$/],
    [["decode", os.tmpdir()], /is a directory$/],
    [["decode", "--as", "much too long a command"], /--as/]
  ]
  for (const [argv, expected] of bad) {
    it.effect(`${JSON.stringify(argv).slice(0, 300)} is one line on stderr and exit code 1`, () =>
      Effect.gen(function* () {
        const { code, errors, help, lines } = yield* btcpeer(...argv)
        assert.strictEqual(code, 1)
        assert.deepStrictEqual([lines, help], [[], ""])
        assert.strictEqual(errors.length, 1)
        assert.match(errors[0] ?? "", /^btcpeer: /)
        assert.match(errors[0] ?? "", expected)
        assert.notMatch(errors[0] ?? "", control)
      })
    )
  }
})
