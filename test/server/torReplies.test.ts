/** Replies of Tor's control port: the cases of Bitcoin Core's torcontrol_tests, limits, cuts, and SAFECOOKIE. */
import { assert, describe, it } from "@effect/vitest"
import { createHmac } from "node:crypto"
import {
  cookieProof,
  equalInConstantTime,
  parseMapping,
  quoted,
  type Reply,
  ReplyParser,
  socksListeners,
  splitLine
} from "../../src/server/internal/torReplies.ts"
import { dice } from "../support/dice.ts"

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0))

describe("splitLine, as Core's unit tests have it", () => {
  it("splits at the first space", () => {
    const cases: ReadonlyArray<readonly [line: string, type: string, rest: string]> = [
      ["PROTOCOLINFO PIVERSION", "PROTOCOLINFO", "PIVERSION"],
      ['AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/a"', "AUTH", 'METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/a"'],
      ["AUTH METHODS=NULL", "AUTH", "METHODS=NULL"],
      ['VERSION Tor="0.2.9.8 (git-a0df013ea241b026)"', "VERSION", 'Tor="0.2.9.8 (git-a0df013ea241b026)"'],
      ["AUTHCHALLENGE SERVERHASH=aaaa SERVERNONCE=bbbb", "AUTHCHALLENGE", "SERVERHASH=aaaa SERVERNONCE=bbbb"],
      ["COMMAND", "COMMAND", ""],
      ["COMMAND SOME  ARGS", "COMMAND", "SOME  ARGS"],
      ["COMMAND  ARGS", "COMMAND", " ARGS"],
      ["COMMAND   EVEN+more  ARGS", "COMMAND", "  EVEN+more  ARGS"]
    ]
    for (const [line, type, rest] of cases) assert.deepStrictEqual(splitLine(line), { type, rest }, line)
  })
})

describe("parseMapping, as Core's unit tests have it", () => {
  const reads = (text: string, expected: Readonly<Record<string, string>>) =>
    assert.deepStrictEqual(Object.fromEntries(parseMapping(text)), expected, text)

  it("reads what Tor sends", () => {
    reads('METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/home/x/.tor/control_auth_cookie"', {
      METHODS: "COOKIE,SAFECOOKIE",
      COOKIEFILE: "/home/x/.tor/control_auth_cookie"
    })
    reads("METHODS=NULL", { METHODS: "NULL" })
    reads('Tor="0.2.9.8 (git-a0df013ea241b026)"', { Tor: "0.2.9.8 (git-a0df013ea241b026)" })
    reads("SERVERHASH=aaaa SERVERNONCE=bbbb", { SERVERHASH: "aaaa", SERVERNONCE: "bbbb" })
    reads("ServiceID=exampleonion1234", { ServiceID: "exampleonion1234" })
    reads("PrivateKey=RSA1024:BLOB", { PrivateKey: "RSA1024:BLOB" })
    reads("ClientAuth=bob:BLOB", { ClientAuth: "bob:BLOB" })
  })

  it("reads values with equals signs and spaces", () => {
    reads("Foo=Bar=Baz Spam=Eggs", { Foo: "Bar=Baz", Spam: "Eggs" })
    reads('Foo="Bar=Baz"', { Foo: "Bar=Baz" })
    reads('Foo="Bar Baz"', { Foo: "Bar Baz" })
  })

  it("reads escapes", () => {
    reads(String.raw`Foo="Bar\ Baz"`, { Foo: "Bar Baz" })
    reads(String.raw`Foo="Bar\Baz"`, { Foo: "BarBaz" })
    reads(String.raw`Foo="Bar\@Baz"`, { Foo: "Bar@Baz" })
    reads(String.raw`Foo="Bar\"Baz" Spam="\"Eggs\""`, { Foo: 'Bar"Baz', Spam: '"Eggs"' })
    reads(String.raw`Foo="Bar\\Baz"`, { Foo: "Bar\\Baz" })
    reads(String.raw`Foo="Bar\nBaz\t" Spam="\rEggs" Octals="\1a\11\17\18\81\377\378\400\2222" Final=Check`, {
      Foo: "Bar\nBaz\t",
      Spam: "\rEggs",
      Octals: "\x01a\x09\x0f\x01881\xff\x1f8\x200\x922",
      Final: "Check"
    })
    reads(String.raw`Valid=Mapping Escaped="Escape\\"`, { Valid: "Mapping", Escaped: "Escape\\" })
    reads(String.raw`OneOctal="OneEnd\1" TwoOctal="TwoEnd\11"`, { OneOctal: "OneEnd\x01", TwoOctal: "TwoEnd\x09" })
    reads(String.raw`Null="\0"`, { Null: "\0" })
  })

  it("gives nothing where a quote is not closed", () => {
    reads(String.raw`Valid=Mapping Bare="Escape\"`, {})
    reads('Foo="', {})
    reads('Foo="a', {})
  })

  it("leaves out arguments without a value, and all that follow", () => {
    reads("SOME=args,here MORE optional=arguments  here", { SOME: "args,here" })
    reads("Foo=Bar  Spam=Eggs", { Foo: "Bar" })
    for (const text of ["", "ARGS", "MORE ARGS", "MORE  ARGS", "EVEN more=ARGS", "EVEN+more ARGS"]) reads(text, {})
  })

  it("reads what quoted writes", () => {
    for (const text of ["", "secret", 'a"b', "a\\", '\\"', "a\r\nQUIT", "0\\0"]) {
      assert.notMatch(quoted(text), /[\r\n]/)
      reads(`Foo=${quoted(text)} End=1`, { Foo: text, End: "1" })
    }
  })

  it("ends soon on the longest lines", () => {
    const start = performance.now()
    for (const part of ["a", "\\", "\\\\", '"', "a=", '="', " ", "=", "\\1"]) {
      for (const head of ["", 'A="', "A="]) parseMapping(head + part.repeat(100_000 / part.length))
    }
    assert.isBelow(performance.now() - start, 2_000)
  })
})

describe("ReplyParser", () => {
  const text =
    '250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor="0.4.8"\r\n250 OK\r\n' +
    "650 CIRC 1000 EXTENDED\r\n\r\nab\r\n512 Unrecognized option\r\nxyz what\r\n"
  const replies: ReadonlyArray<Reply> = [
    { code: 250, lines: ["PROTOCOLINFO 1", "AUTH METHODS=NULL", 'VERSION Tor="0.4.8"', "OK"] },
    { code: 512, lines: ["Unrecognized option"] },
    { code: 0, lines: ["what"] }
  ]

  it("reads replies, and skips events and short lines", () => {
    assert.deepStrictEqual(new ReplyParser().push(bytes(text)), replies)
  })

  it("reads the same replies from pieces of any size, and from a single byte at a time", () => {
    const whole = bytes(text)
    for (let size = 1; size <= 20; size++) {
      const parser = new ReplyParser()
      const read: Array<Reply> = []
      for (let from = 0; from < whole.length; from += size) read.push(...parser.push(whole.subarray(from, from + size)))
      assert.deepStrictEqual(read, replies)
    }
  })

  it("waits for the end of a line", () => {
    const parser = new ReplyParser()
    assert.deepStrictEqual(parser.push(bytes("250-AUTH METHODS=NULL\r\n250 OK")), [])
    assert.deepStrictEqual(parser.push(bytes("\r\n")), [{ code: 250, lines: ["AUTH METHODS=NULL", "OK"] }])
  })

  it("fails at a line of more than 100,000 bytes, and before it ends", () => {
    const line = (size: number) => `250-${"A".repeat(size - 5)}\r`
    const good = new ReplyParser()
    assert.deepStrictEqual(good.push(bytes(`${line(100_000)}\n250 OK\r\n`))[0]!.lines.length, 2)
    assert.isUndefined(good.failure)
    const bad = new ReplyParser()
    assert.deepStrictEqual(bad.push(bytes(`${line(100_001)}\n`)), [])
    assert.strictEqual(bad.failure, "a line has more than 100000 bytes")
    const endless = new ReplyParser()
    for (let n = 0; n < 100; n++) endless.push(bytes("A".repeat(1_000)))
    assert.isUndefined(endless.failure)
    endless.push(bytes("A"))
    assert.isDefined(endless.failure)
    assert.deepStrictEqual(endless.push(bytes("\r\n250 OK\r\n")), [])
  })

  it("fails at a reply of more than 1,000 lines", () => {
    const good = new ReplyParser()
    assert.strictEqual(good.push(bytes(`${"250-Go on\r\n".repeat(999)}250 OK\r\n`))[0]!.lines.length, 1_000)
    // The next reply has a count of its own.
    assert.strictEqual(good.push(bytes(`${"250-Go on\r\n".repeat(999)}250 OK\r\n`))[0]!.lines.length, 1_000)
    const bad = new ReplyParser()
    assert.deepStrictEqual(bad.push(bytes("250-Go on\r\n".repeat(1_001))), [])
    assert.strictEqual(bad.failure, "a reply has more than 1000 lines")
  })

  it("takes random bytes", () => {
    const random = dice(1)
    for (let round = 0; round < 300; round++) {
      const parser = new ReplyParser()
      for (let n = 0; n < 10; n++) {
        for (const { lines } of parser.push(random.bytes(random.below(400)))) {
          assert.isAtLeast(lines.length, 1)
          for (const line of lines) parseMapping(splitLine(line).rest)
        }
      }
    }
  })
})

describe("socksListeners", () => {
  const of = (...lines: ReadonlyArray<string>) => socksListeners({ code: 250, lines })

  it("finds listeners with and without quotes, and leaves out sockets of the file system", () => {
    assert.deepStrictEqual(of('net/listeners/socks="127.0.0.1:9050"', "OK"), ["127.0.0.1:9050"])
    assert.deepStrictEqual(of(`net/listeners/socks="10.0.0.1:9050" '127.0.0.1:9150' 127.0.0.2:9`), [
      "10.0.0.1:9050",
      "127.0.0.1:9150",
      "127.0.0.2:9"
    ])
    assert.deepStrictEqual(of('net/listeners/socks="unix:/run/tor/socks" "" ""', "OK"), [])
    assert.deepStrictEqual(of("net/listeners/socks=", "OK"), [])
    assert.deepStrictEqual(of("something else"), [])
  })
})

describe("SAFECOOKIE", () => {
  const cookie = new Uint8Array(32).fill(1)
  const client = new Uint8Array(32).fill(2)
  const server = new Uint8Array(32).fill(3)

  it("proves the cookie with the texts of control-spec", () => {
    const expected = (key: string) =>
      new Uint8Array(createHmac("sha256", key).update(cookie).update(client).update(server).digest())
    const proof = (side: "server" | "controller") => cookieProof(side, cookie, client, server)
    assert.deepStrictEqual(proof("server"), expected("Tor safe cookie authentication server-to-controller hash"))
    assert.deepStrictEqual(proof("controller"), expected("Tor safe cookie authentication controller-to-server hash"))
  })

  it("compares all bytes", () => {
    assert.isTrue(equalInConstantTime(cookie, cookie.slice()))
    for (let i = 0; i < 32; i++) {
      const other = cookie.slice()
      other[i]! ^= 0x80
      assert.isFalse(equalInConstantTime(cookie, other))
    }
    assert.isFalse(equalInConstantTime(cookie, cookie.subarray(1)))
    assert.isFalse(equalInConstantTime(cookie, new Uint8Array(0)))
  })
})
