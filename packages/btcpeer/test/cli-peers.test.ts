/** `btcpeer peers`: the files that it recognises, what it prints and converts, and what it says about bad ones. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll, beforeAll } from "vitest"
import * as Address from "effect-bitcoin-peer/Address"
import * as Network from "effect-bitcoin-peer/Network"
import * as AddressBook from "effect-bitcoin-peer/server/AddressBook"
import { run } from "../src/command.ts"
import { makeMemory } from "../src/output.ts"
import { readVector, readVectorText, vectorPath } from "../../../test/support/vectors.ts"

const peersDat = vectorPath("core/peers.dat")
const raw: AddressBook.RawEntries = JSON.parse(readVectorText("core/getrawaddrman.json"))
const now = 1_795_800_000_000

let folder = ""
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "btcpeer-peers-"))
})
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

let files = 0
const fresh = (): string => path.join(folder, `file${files++}`)
const saved = (content: string | Uint8Array): string => {
  const file = fresh()
  fs.writeFileSync(file, content)
  return file
}

const btcpeer = Effect.fnUntraced(function* (...argv: ReadonlyArray<string>) {
  yield* TestClock.setTime(now)
  const memory = makeMemory()
  const code = yield* run(["peers", ...argv]).pipe(Effect.provide(Layer.merge(NodeServices.layer, memory.layer)))
  return { code, lines: memory.lines, errors: memory.errors }
})

/** The one line of an error, without the name of the file. */
const failure = Effect.fnUntraced(function* (file: string, ...argv: ReadonlyArray<string>) {
  const { code, errors } = yield* btcpeer(file, ...argv)
  assert.deepStrictEqual([code, errors.length], [1, 1])
  return errors[0]!.replace(`${file}: `, "")
})

describe("btcpeer peers", () => {
  it.effect("prints a peers.dat: how many addresses there are, then each place", () =>
    Effect.gen(function* () {
      const { code, errors, lines } = yield* btcpeer(peersDat)
      assert.deepStrictEqual([code, errors], [0, []])
      assert.deepStrictEqual(lines.slice(0, 8), [
        "peers.dat of regtest: 44 addresses",
        "  ipv4   20 new, 20 tried, 40 in all",
        "  ipv6   1 new, 0 tried, 1 in all",
        "  onion  0 new, 1 tried, 1 in all",
        "  i2p    1 new, 0 tried, 1 in all",
        "  cjdns  1 new, 0 tried, 1 in all",
        "  all    23 new, 21 tried, 44 in all",
        "new 21/10    15.15.1.5:8335           seen 2026-11-27 15:04  NETWORK,WITNESS  from 15.15.1.5"
      ])
      assert.strictEqual(lines.length, 7 + 44)
      assert.isTrue(lines.some((line) => line.startsWith("tried ") && line.includes(".onion:")))
    })
  )

  it.effect("prints the fields of getrawaddrman with --json", () =>
    Effect.gen(function* () {
      const { lines } = yield* btcpeer(peersDat, "--json")
      const printed: { new: Record<string, unknown>; tried: Record<string, unknown> } = { new: {}, tried: {} }
      for (const line of lines) {
        const { place, table, ...entry } = JSON.parse(line)
        printed[table as "new" | "tried"][place] = entry
      }
      assert.deepStrictEqual(printed as unknown, raw)
    })
  )

  it.effect("prints anchors.dat, JSON, lines and peers.json", () =>
    Effect.gen(function* () {
      const anchor = { ...Result.getOrThrow(Address.parse("1.2.3.4:8333")), services: 1n, timestamp: now / 1_000 }
      const anchors = yield* btcpeer(saved(AddressBook.encodeAnchors([anchor], Network.signet)))
      assert.strictEqual(anchors.lines[0], "anchors.dat of signet: 1 address")
      assert.match(anchors.lines.at(-1)!, /^1\.2\.3\.4:8333 +seen 2026-11-27 17:20 {2}NETWORK {2}from 1\.2\.3\.4$/)

      const json = yield* btcpeer(saved('[{"address":"1.2.3.4","port":18444}]'), "--network", "regtest")
      assert.strictEqual(json.lines[0], "json of regtest: 1 address")
      const lines = yield* btcpeer(saved("# mine\n1.2.3.4\n[2a01::1]:8333\n"))
      assert.strictEqual(lines.lines[0], "lines of mainnet: 2 addresses")
      const btcd = yield* btcpeer(saved('{"Version":2,"Addresses":[{"Addr":"1.2.3.4:8333"}]}'))
      assert.strictEqual(btcd.lines[0], "peers.json of mainnet: 1 address")
      for (const { code } of [anchors, json, lines, btcd]) assert.strictEqual(code, 0)
    })
  )

  it.effect("converts from every format to every other one", () =>
    Effect.gen(function* () {
      const addresses = (file: string) =>
        Effect.map(btcpeer(file, "--json", "--network", "regtest"), ({ lines }) =>
          lines.map((line) => `${JSON.parse(line).address} ${JSON.parse(line).port}`).toSorted()
        )
      const all = yield* addresses(peersDat)
      for (const first of ["peers.dat", "json", "lines", "peers.json"]) {
        const file = fresh()
        const { code, lines } = yield* btcpeer(peersDat, "--to", first, "--output", file)
        assert.strictEqual(code, 0)
        const isBtcd = first === "peers.json"
        assert.deepStrictEqual(lines, [
          isBtcd
            ? `${file}: 42 addresses of regtest, as peers.json (without 2 of I2P and CJDNS, which btcd does not have)`
            : `${file}: 44 addresses of regtest, as ${first}`
        ])
        const expected = isBtcd ? all.filter((text) => !/i2p|fc00/.test(text)) : all
        for (const second of ["peers.dat", "json", "lines"]) {
          const again = fresh()
          yield* btcpeer(file, "--network", "regtest", "--to", second, "--output", again)
          const found = yield* addresses(again)
          // A new book has a random key. One in 70 times two of these addresses want the same place.
          if (first !== "peers.dat" && second === "peers.dat") {
            assert.isAtLeast(found.length, expected.length - 2)
            assert.includeMembers([...expected], [...found])
          } else assert.deepStrictEqual(found, expected, `${first} to ${second}`)
        }
      }
      const same = fresh()
      yield* btcpeer(peersDat, "--to", "peers.dat", "--output", same)
      assert.deepStrictEqual(new Uint8Array(fs.readFileSync(same)), readVector("core/peers.dat"))
    })
  )

  it.effect("says what is wrong with a file in one line, and ends with code 1", () =>
    Effect.gen(function* () {
      const file = readVector("core/peers.dat")
      const newer = file.slice()
      newer[4] = 9
      newer[5] = 41
      for (const [content, message] of [
        ["", "btcpeer: is empty"],
        [file.subarray(0, 40), "btcpeer: neither peers.dat nor anchors.dat, or too damaged to read"],
        [newer, "btcpeer: is a peers.dat of version 9, which only newer programs can read"],
        [Uint8Array.of(1, 2, 3, 4, 5), "btcpeer: is not text, and does not begin with the magic of a known network"],
        ["[1", "btcpeer: cannot be read as json: it is not JSON"],
        ['{"addresses":[]}', "btcpeer: cannot be read as peers.json: it is not a peers.json of btcd"],
        [
          "what\nis this",
          'btcpeer: 2 entries lost, 0 addresses read: line 1: "what" is not an IPv4, IPv6, Tor, I2P or CJDNS address'
        ],
        [
          "1.2.3.4\n1.2.3.4:x",
          'btcpeer: 1 entry lost, 1 address read: line 2: "1.2.3.4:x": the port "x" is not a number from 0 to 65535'
        ]
      ] as const) {
        assert.strictEqual(yield* failure(saved(content)), message)
      }
      assert.strictEqual(yield* failure(fresh()), "btcpeer: no such file")
      assert.strictEqual(yield* failure(folder), "btcpeer: is a directory")
    })
  )

  it.effect("prints and converts what can be read of a damaged file", () =>
    Effect.gen(function* () {
      const file = saved(readVector("core/peers.dat").subarray(0, 1_000))
      const { code, errors, lines } = yield* btcpeer(file)
      assert.deepStrictEqual([code, lines[0]], [1, "peers.dat of regtest: 23 addresses"])
      assert.deepStrictEqual(errors, [
        `btcpeer: ${file}: 21 entries lost, 23 addresses read: address 23 at byte 959 cannot be read`
      ])
      const output = fresh()
      assert.strictEqual((yield* btcpeer(file, "--to", "lines", "--output", output)).code, 1)
      assert.strictEqual(fs.readFileSync(output, "utf8").trim().split("\n").length, 23)
    })
  )

  it.effect("overwrites nothing, and wants --to and --output together", () =>
    Effect.gen(function* () {
      const existing = saved("mine")
      assert.strictEqual(
        yield* failure(peersDat, "--to", "lines", "--output", existing),
        `btcpeer: --output: ${existing}: exists already`
      )
      assert.strictEqual(fs.readFileSync(existing, "utf8"), "mine")
      assert.strictEqual(yield* failure(peersDat, "--to", "lines"), "btcpeer: --to: needs --output")
      assert.strictEqual(yield* failure(peersDat, "--output", fresh()), "btcpeer: --output: needs --to")
      const nowhere = path.join(folder, "no", "file")
      assert.strictEqual(
        yield* failure(peersDat, "--to", "lines", "--output", nowhere),
        `btcpeer: --output: ${nowhere}: no such file`
      )
    })
  )
})

describe("btcpeer peers with a list of bans", () => {
  const banlist = vectorPath("core/banlist.json")

  it.effect("prints what Bitcoin Core has banned, and which bans have ended", () =>
    Effect.gen(function* () {
      const { code, errors, lines } = yield* btcpeer(banlist)
      assert.deepStrictEqual([code, errors], [0, []])
      assert.strictEqual(lines[0], "banlist.json: 3 bans")
      assert.strictEqual(lines.length, 4)
      const written = JSON.parse(readVectorText("core/banlist.json")).banned_nets
      for (const [index, { address, banned_until }] of written.entries()) {
        assert.include(lines[index + 1]!, address)
        assert.strictEqual(lines[index + 1]!.includes("(ended)"), banned_until * 1_000 <= now)
      }
      const json = (yield* btcpeer("--json", banlist)).lines.map((line) => JSON.parse(line))
      assert.deepStrictEqual(
        json,
        written.map(({ address, ban_created, banned_until }: Record<string, unknown>) => ({
          address,
          ban_created,
          banned_until
        }))
      )
    })
  )

  it.effect("says which entry is no ban after it has printed the others, and what it does not convert", () =>
    Effect.gen(function* () {
      const { banned_nets } = JSON.parse(readVectorText("core/banlist.json"))
      const file = saved(JSON.stringify({ banned_nets: [...banned_nets, { version: 2 }] }))
      assert.match(yield* failure(file), /^btcpeer: 1 entry lost, 3 bans read: entry 3: its version is 2/)
      assert.strictEqual(
        yield* failure(banlist, "--to", "lines", "--output", fresh()),
        "btcpeer: is a list of bans, which has no other format"
      )
      const cut = saved(readVectorText("core/banlist.json").slice(0, -30))
      assert.match(yield* failure(cut), /bans read: it is not JSON/)
    })
  )
})
