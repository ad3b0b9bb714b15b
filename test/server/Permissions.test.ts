import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import { formatSubnet } from "../../src/server/BanList.ts"
import * as Permissions from "../../src/server/Permissions.ts"

const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))
const whitelist = (text: string) => Result.getOrThrow(Permissions.parseWhitelist(text))
const whitebind = (text: string) => Result.getOrThrow(Permissions.parseWhitebind(text))
const badWhitelist = (text: string) => Result.getOrThrow(Result.flip(Permissions.parseWhitelist(text)))
const badWhitebind = (text: string) => Result.getOrThrow(Result.flip(Permissions.parseWhitebind(text)))

/** The permissions that a text for a bind names. */
const granted = (text: string): ReadonlyArray<string> | "implicit" => {
  const { permissions } = whitebind(`${text}@1.2.3.4:32`)
  return permissions === "implicit" ? permissions : [...permissions]
}

describe("a whitebind", () => {
  it("needs an address and a port", () => {
    assert.strictEqual(badWhitebind("").reason._tag, "InvalidAddress")
    assert.strictEqual(badWhitebind("example.com:8333").reason._tag, "InvalidAddress")
    assert.strictEqual(badWhitebind("noban@1.2.3.4:99999").reason._tag, "InvalidAddress")
    assert.strictEqual(badWhitebind("127.0.0.1").reason._tag, "NoPort")
    assert.include(badWhitebind("127.0.0.1").message, "needs a port")
    assert.deepStrictEqual(whitebind("1.2.3.4:32").address, { ...host("1.2.3.4"), port: 32 })
    assert.deepStrictEqual(whitebind("noban@[::1]:32").address, { ...host("::1"), port: 32 })
  })

  it("without permissions has the implicit ones", () => {
    assert.strictEqual(whitebind("1.2.3.4:32").permissions, "implicit")
    assert.deepStrictEqual([...Permissions.implicit()], ["noban", "relay", "mempool", "download"])
    assert.deepStrictEqual([...Permissions.implicit({ relay: false })], ["noban", "mempool", "download"])
    assert.deepStrictEqual(
      [...Permissions.implicit({ relay: false, forceRelay: true })],
      ["noban", "forcerelay", "relay", "mempool", "download"]
    )
  })

  it("has the permissions that it names", () => {
    assert.deepStrictEqual(granted("bloom"), ["bloomfilter"])
    assert.deepStrictEqual(granted("bloomfilter"), ["bloomfilter"])
    assert.deepStrictEqual(granted(""), [])
    assert.deepStrictEqual(granted("bloom,relay,noban"), ["bloomfilter", "noban", "relay", "download"])
    assert.deepStrictEqual(granted("all"), [
      "bloomfilter",
      "noban",
      "forcerelay",
      "relay",
      "mempool",
      "download",
      "addr"
    ])
    assert.deepStrictEqual(granted("all"), [...Permissions.all])
  })

  it("has those that are implied: noban has download, forcerelay has relay, and not the reverse", () => {
    assert.deepStrictEqual(granted("noban"), ["noban", "download"])
    assert.deepStrictEqual(granted("noban,download"), granted("noban"))
    assert.deepStrictEqual(granted("download,noban"), granted("noban"))
    assert.deepStrictEqual(granted("download"), ["download"])
    assert.deepStrictEqual(granted("bloom,forcerelay"), ["bloomfilter", "forcerelay", "relay"])
    assert.deepStrictEqual(granted("relay"), ["relay"])
  })

  it("may name a permission twice, or none between two commas", () => {
    assert.deepStrictEqual(granted("bloom,relay,noban,noban"), granted("bloom,relay,noban"))
    assert.deepStrictEqual(granted("bloom,relay,,noban"), granted("bloom,relay,noban"))
    assert.deepStrictEqual(granted(","), [])
    assert.deepStrictEqual(granted(",,"), [])
  })

  it("has no outgoing direction", () => {
    const error = badWhitebind("out,forcerelay@1.2.3.4:32")
    assert.strictEqual(error.reason._tag, "OutOnBind")
    assert.include(error.message, '"out"')
    assert.deepStrictEqual(granted("in,relay"), ["relay"])
  })

  it("has no unknown permission", () => {
    const error = badWhitebind("bloom,forcerelay,oopsie@1.2.3.4:32")
    assert.deepStrictEqual(error.reason, { _tag: "UnknownPermission", name: "oopsie" })
    assert.include(error.message, '"oopsie"')
    assert.include(error.message, "bloomfilter, noban")
    assert.strictEqual(badWhitebind("toString@1.2.3.4:32").reason._tag, "UnknownPermission")
    assert.strictEqual(badWhitebind("NOBAN@1.2.3.4:32").reason._tag, "UnknownPermission")
  })
})

describe("an entry of a whitelist", () => {
  it("needs a subnet", () => {
    const error = badWhitelist("bloom,forcerelay,noban@1.2.3.4:32")
    assert.strictEqual(error.reason._tag, "InvalidSubnet")
    assert.include(error.message, "does not end with a subnet")
    assert.strictEqual(badWhitelist("").reason._tag, "InvalidSubnet")
    assert.include(badWhitelist("noban@1.2.3.4/99").message, "at most 32 bits")
  })

  it("has permissions for a host or a subnet", () => {
    const entry = whitelist("bloom,forcerelay,noban,relay@1.2.3.4/32")
    assert.strictEqual(formatSubnet(entry.subnet), "1.2.3.4/32")
    assert.deepStrictEqual(entry.permissions, Permissions.of("bloomfilter", "forcerelay", "noban", "relay"))
    assert.deepStrictEqual(whitelist("noban@1.2.3.4").permissions, Permissions.of("noban"))
    assert.strictEqual(formatSubnet(whitelist("1.2.3.0/24").subnet), "1.2.3.0/24")
    assert.strictEqual(whitelist("1.2.3.0/24").permissions, "implicit")
  })

  it("holds for incoming connections unless it says otherwise", () => {
    const directions = (text: string) => {
      const { in: incoming, out } = whitelist(text)
      return { in: incoming, out }
    }
    assert.deepStrictEqual(directions("1.2.3.4"), { in: true, out: false })
    assert.deepStrictEqual(directions("bloom@1.2.3.4"), { in: true, out: false })
    assert.deepStrictEqual(directions("in,relay@1.2.3.4"), { in: true, out: false })
    assert.deepStrictEqual(directions("out,bloom@1.2.3.4"), { in: false, out: true })
    assert.deepStrictEqual(directions("in,out,bloom@1.2.3.4"), { in: true, out: true })
  })

  it.each(["in@1.2.3.4", "out@1.2.3.4", "in,out@1.2.3.4", "in,,@1.2.3.4"])("is not %s", (text) => {
    assert.strictEqual(badWhitelist(text).reason._tag, "OnlyDirection")
    assert.include(badWhitelist(text).message, "no permission")
  })
})

describe("the permissions of a peer", () => {
  const entries = ["noban@10.0.0.0/8", "addr@10.1.0.0/16", "out,mempool@10.0.0.0/8", "192.168.0.0/16"].map(whitelist)
  const inbound = (text: string, rules?: Partial<Parameters<typeof Permissions.forInbound>[1]>) => [
    ...Permissions.forInbound(host(text), { whitelist: entries, ...rules })
  ]

  it("that connected are those of all subnets that contain it", () => {
    assert.deepStrictEqual(inbound("8.8.8.8"), [])
    assert.deepStrictEqual(inbound("10.2.0.1"), ["noban", "download"])
    assert.deepStrictEqual(inbound("10.1.0.1"), ["noban", "download", "addr"])
    assert.deepStrictEqual(inbound("192.168.0.1"), ["noban", "relay", "mempool", "download"])
    assert.deepStrictEqual(inbound("192.168.0.1", { implicit: { relay: false } }), ["noban", "mempool", "download"])
  })

  it("are those of the bind, too", () => {
    const bind = Permissions.of("mempool")
    assert.deepStrictEqual(inbound("8.8.8.8", { bind }), ["mempool"])
    assert.deepStrictEqual(inbound("10.2.0.1", { bind }), ["noban", "mempool", "download"])
    assert.deepStrictEqual(inbound("8.8.8.8", { bind: "implicit" }), [...Permissions.implicit()])
  })

  it("are only those of the bind of an onion service, where the address says nothing", () => {
    assert.deepStrictEqual(inbound("10.2.0.1", { isOnionBind: true }), [])
    const bind = Permissions.of("relay")
    assert.deepStrictEqual(inbound("10.2.0.1", { isOnionBind: true, bind }), ["relay"])
  })

  it("that the operator dialled are those with the direction out", () => {
    assert.deepStrictEqual([...Permissions.forManual(host("10.1.0.1"), entries)], ["mempool"])
    assert.deepStrictEqual([...Permissions.forManual(host("8.8.8.8"), entries)], [])
  })
})
