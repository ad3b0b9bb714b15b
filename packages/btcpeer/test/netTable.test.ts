/** The table of `btcpeer net`, against what `bitcoin-cli -netinfo 4` printed for the same data. */
import { assert, describe, it } from "@effect/vitest"
import type { NetworkInfo } from "effect-bitcoin-peer/server/NetworkInfo"
import { PeerInfo } from "effect-bitcoin-peer/server/PeerInfo"
import * as fs from "node:fs"
import { screen } from "../src/net.ts"
import { netTable } from "../src/netTable.ts"
import { networkInfo } from "./support/networkInfo.ts"

interface Case {
  readonly now: number
  readonly network: Partial<NetworkInfo>
  readonly peers: ReadonlyArray<Partial<PeerInfo>>
  readonly printed: ReadonlyArray<string>
}

const { cases } = JSON.parse(fs.readFileSync(new URL("support/netinfo.json", import.meta.url), "utf8")) as {
  readonly cases: ReadonlyArray<Case>
}

const now = 1_800_000_000

const peer = (fields: Partial<PeerInfo> = {}): PeerInfo =>
  new PeerInfo({
    id: 0,
    addr: "1.2.3.4:8333",
    network: "ipv4",
    services: "0000000000000009",
    servicesnames: ["NETWORK", "WITNESS"],
    relaytxes: true,
    last_inv_sequence: 0,
    inv_to_send: 0,
    lastsend: now - 3,
    lastrecv: now - 4,
    last_transaction: 0,
    last_block: 0,
    bytessent: 0,
    bytesrecv: 0,
    conntime: now - 600,
    timeoffset: 0,
    version: 70_016,
    subver: "/Satoshi:31.0.0/",
    inbound: false,
    bip152_hb_to: false,
    bip152_hb_from: false,
    presynced_headers: -1,
    synced_headers: -1,
    synced_blocks: -1,
    inflight: [],
    addr_relay_enabled: true,
    addr_processed: 0,
    addr_rate_limited: 0,
    permissions: [],
    minfeefilter: 0,
    bytessent_per_msg: {},
    bytesrecv_per_msg: {},
    connection_type: "outbound-full-relay",
    transport_protocol_type: "v2",
    session_id: "",
    ...fields
  })

const table = (peers: ReadonlyArray<PeerInfo>, of = networkInfo()) => netTable(of, peers, now, "us")
const rowOf = (fields: Partial<PeerInfo>): string => table([peer(fields)])[3]!

describe("the table", () => {
  for (const { now, network: of, peers, printed } of cases) {
    it(`is that of bitcoin-cli for ${peers.length} peers, but for the first line`, () => {
      const lines = netTable(networkInfo(of), peers.map(peer), now, "us")
      assert.deepStrictEqual(lines.slice(1), printed.slice(1))
      const [, services = ""] = / - services (.*)$/.exec(printed[0]!) ?? []
      assert.strictEqual(lines[0], `us - server 70016/us:1/ - services ${services}`)
    })
  }

  it("has inbound peers first, then the smallest ping, and equal ones in their order", () => {
    const peers = [
      peer({ id: 1, minping: 0.2 }),
      peer({ id: 2, minping: 0.1 }),
      peer({ id: 3 }),
      peer({ id: 4, minping: 0.1 }),
      peer({ id: 5, inbound: true, connection_type: "inbound", minping: 0.9 })
    ]
    const ids = table(peers).flatMap((line) => /^(?: in|out).* (\d+) 1\.2\.3\.4/.exec(line)?.[1] ?? [])
    assert.deepStrictEqual(ids, ["5", "3", "2", "4", "1"])
  })

  it("keeps every cell below its head, however large the numbers are", () => {
    const lines = table([peer({ addr_processed: 123_456_789, addr_rate_limited: 987_654_321, conntime: 1, id: 1e9 })])
    const [head = "", row = "", units = ""] = lines.slice(2)
    for (const [name, cell] of [
      ["addrp", "123456789"],
      ["addrl", "987654321"],
      ["age", "29999999"],
      ["id", "1000000000"]
    ] as const) {
      assert.strictEqual(head.indexOf(` ${name} `) + name.length + 1, row.indexOf(cell) + cell.length, name)
    }
    assert.strictEqual(units.length, head.indexOf(" age ") + 4)
  })

  it("rounds pings to milliseconds, and has a dash for 1,000 seconds and more", () => {
    assert.match(rowOf({ minping: 0.0004, pingtime: 0.0016 }), / 2 {6}0 {6}2 /)
    assert.match(rowOf({ minping: 999.9994, pingtime: 1_000 }), / 2 999999 {6}- /)
  })

  it("escapes text of remotes, so that it is no command for the terminal", () => {
    const lines = table(
      [peer({ subver: "/\u001b[2J\n\u009b1m/", addr: "\u001b]0;x\u0007:1", servicesnames: ["\u001b", ""] })],
      networkInfo({
        subversion: "\u001b",
        localaddresses: [{ address: "\u001b[1m", port: 1, score: 1 }],
        warnings: ["\u001b[5m"],
        networkactive: false
      })
    )
    // oxlint-disable-next-line no-control-regex
    for (const line of lines) assert.notMatch(line, /[^\x20-\x7e]/)
    assert.strictEqual(lines.at(-1), "Warning: \\x1b[5m")
    assert.strictEqual(lines.at(-2), "The network is switched off.")
  })
})

describe("a screen", () => {
  const lines = ["first line", "second", "third", "fourth"]

  it("writes over the last one, and clears what is left of it", () => {
    assert.deepStrictEqual(screen(lines.slice(0, 2), 80, 24, false), [
      "\u001b[Hfirst line\u001b[K",
      "second\u001b[K\u001b[J"
    ])
    assert.isTrue(screen(lines, 80, 24, true)[0]!.startsWith("\u001b[2J\u001b[Hfirst"))
  })

  it("is no larger than the terminal, whose last row stays empty", () => {
    assert.deepStrictEqual(screen(lines, 5, 3, false), ["\u001b[Hfirst\u001b[K", "secon\u001b[K\u001b[J"])
    assert.strictEqual(screen(lines, 80, 0, false).length, 1)
  })
})
