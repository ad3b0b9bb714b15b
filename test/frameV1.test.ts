/** v1 frames: writing, parsing in any chunks, buffers, undecoded commands and onFrame. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { createHash } from "node:crypto"
import * as Wire from "../src/Wire.ts"
import { concat, encoded, examples, reasonOf } from "./support/generators.ts"

const magic = Uint8Array.of(0xfa, 0xbf, 0xb5, 0xda)

const frames = (...messages: ReadonlyArray<Wire.Message>): Uint8Array =>
  Result.getOrThrow(Wire.encodeFrames(magic, messages))

const ping = (nonce: bigint): Wire.Message => ({ _tag: "ping", nonce })

const unknown = (size: number): Wire.Message => ({
  _tag: "Unknown",
  command: "big",
  payload: new Uint8Array(size).fill(1)
})

/** Reads through a function, because TypeScript keeps the type that an assertion has narrowed. */
const failureOf = (parser: Wire.Parser): Wire.WireError | undefined => parser.failure

const patch = (bytes: Uint8Array, offset: number, ...values: ReadonlyArray<number>): Uint8Array => {
  const patched = bytes.slice()
  patched.set(values, offset)
  return patched
}

/** The events as one line of text. */
const summary = (events: ReadonlyArray<Wire.ParserEvent>): string =>
  events.map((event) => (event._tag === "Received" ? Wire.command(event.message) : event.error.reason._tag)).join(" ")

/** A header with the given command and length. */
const header = (command: ReadonlyArray<number>, length: number): Uint8Array => {
  const bytes = new Uint8Array(24)
  bytes.set(magic)
  bytes.set(command, 4)
  new DataView(bytes.buffer).setUint32(16, length, true)
  return bytes
}

const ascii = (text: string): Array<number> => Array.from(text, (character) => character.charCodeAt(0))

/** A frame without payload whose command is any 12 bytes. */
const named = (command: ReadonlyArray<number>): Uint8Array => patch(header(command, 0), 20, 0x5d, 0xf6, 0xe0, 0xe2)

const sha256 = (bytes: Uint8Array): Uint8Array => createHash("sha256").update(bytes).digest()

describe("the frame of a message", () => {
  it("is magic, padded command, length, checksum and payload", () => {
    assert.deepStrictEqual(
      Buffer.from(frames({ _tag: "verack" })).toString("hex"),
      "fabfb5da76657261636b000000000000000000005df6e0e2"
    )
    const payload = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0)
    assert.deepStrictEqual(
      frames(ping(1n)),
      concat(magic, ascii("ping"), new Uint8Array(8), [8, 0, 0, 0], sha256(sha256(payload)).subarray(0, 4), payload)
    )
  })

  it("follows the previous frame, and each call gives a new buffer", () => {
    const both = frames(ping(1n), { _tag: "verack" })
    assert.deepStrictEqual(both, concat(frames(ping(1n)), frames({ _tag: "verack" })))
    assert.strictEqual(both.buffer.byteLength, both.length)
    assert.deepStrictEqual(frames(), new Uint8Array(0))
  })

  it("can have a payload of 4,000,000 bytes and no more", () => {
    assert.strictEqual(frames(unknown(4_000_000)).length, 4_000_024)
    const result = Wire.encodeFrames(magic, [ping(1n), unknown(4_000_001)])
    assert.isTrue(Result.isFailure(result) && result.failure.reason._tag === "PayloadTooLarge")
  })

  it("is refused with a magic that is not 4 bytes", () => {
    const result = Wire.encodeFrames(Uint8Array.of(1, 2, 3), [])
    assert.isTrue(Result.isFailure(result) && result.failure.reason._tag === "BadValue")
  })
})

describe("the v1 parser", () => {
  it("fails on a wrong magic, and returns the messages before it", () => {
    const parser = Wire.makeParser({ magic })
    assert.strictEqual(summary(parser.push(concat(frames(ping(1n)), patch(frames(ping(2n)), 1, 0)))), "ping")
    assert.deepStrictEqual(parser.failure?.reason, {
      _tag: "WrongMagic",
      expected: magic,
      received: Uint8Array.of(0xfa, 0, 0xb5, 0xda)
    })
  })

  it("fails on a wrong magic at the first byte that differs", () => {
    for (let wrong = 0; wrong < 4; wrong++) {
      const bytes = patch(magic, wrong, magic[wrong] ^ 1)
      const parser = Wire.makeParser({ magic })
      for (let i = 0; i < wrong; i++) {
        parser.push(bytes.subarray(i, i + 1))
        assert.isUndefined(failureOf(parser))
      }
      parser.push(bytes.subarray(wrong, wrong + 1))
      assert.strictEqual(parser.failure?.reason._tag, "WrongMagic")
      assert.strictEqual(parser.buffered, 0)
    }
  })

  it("stays failed", () => {
    const parser = Wire.makeParser({ magic })
    parser.push(Uint8Array.of(0))
    const failure = parser.failure
    assert.deepStrictEqual(parser.push(frames(ping(1n))), [])
    assert.strictEqual(parser.failure, failure)
  })

  it("fails on a length above 4,000,000 as soon as the header has arrived", () => {
    const parser = Wire.makeParser({ magic })
    const bytes = header(ascii("block"), 4_000_001)
    parser.push(bytes.subarray(0, 23))
    assert.isUndefined(failureOf(parser))
    parser.push(bytes.subarray(23))
    assert.deepStrictEqual(failureOf(parser)?.reason, { _tag: "PayloadTooLarge", length: 4_000_001, limit: 4_000_000 })
    assert.strictEqual(failureOf(parser)?.command, "block")

    const other = Wire.makeParser({ magic })
    assert.strictEqual(summary(other.push(concat(frames(ping(1n)), header(ascii("tx"), 0xffffffff)))), "ping")
    assert.strictEqual(other.failure?.reason._tag, "PayloadTooLarge")
  })

  it("accepts a payload of exactly 4,000,000 bytes, in one chunk and in several", () => {
    const bytes = frames(unknown(4_000_000), ping(1n))
    for (const size of [bytes.length, 4_000_024, 65_536, 1_460]) {
      const parser = Wire.makeParser({ magic })
      const events: Array<Wire.ParserEvent> = []
      for (let i = 0; i < bytes.length; i += size) events.push(...parser.push(bytes.subarray(i, i + size)))
      assert.strictEqual(summary(events), "big ping")
      assert.strictEqual(events[0].size, 4_000_024)
    }
  })

  it("drops a message whose checksum is wrong, without decoding it, and goes on", () => {
    const bad = patch(frames({ _tag: "Unknown", command: "version", payload: new Uint8Array(3) }), 20, 1, 2, 3, 4)
    const events = Wire.makeParser({ magic }).push(concat(bad, frames(ping(1n))))
    assert.strictEqual(summary(events), "BadChecksum ping")
    assert.strictEqual(events[0].size, 27)
    assert.isTrue(events[0]._tag === "Dropped" && events[0].error.command === "version")
  })

  it("fails on a wrong checksum where the policy says so", () => {
    const parser = Wire.makeParser({ magic, badChecksum: "disconnect" })
    const bad = patch(frames(ping(2n)), 20, 0, 0, 0, 0)
    assert.strictEqual(summary(parser.push(concat(frames(ping(1n)), bad, frames(ping(3n))))), "ping")
    assert.strictEqual(parser.failure?.reason._tag, "BadChecksum")
    assert.strictEqual(parser.buffered, 0)
  })

  it("drops a command with a byte after the first zero", () => {
    const events = Wire.makeParser({ magic }).push(concat(named([...ascii("ping"), 0, 1]), frames(ping(1n))))
    assert.strictEqual(summary(events), "BadCommand ping")
  })

  it("drops a command that is not printable ASCII", () => {
    for (const byte of [1, 0x1f, 0x7f, 0x80, 0xff]) {
      const events = Wire.makeParser({ magic }).push(named([...ascii("pin"), byte]))
      assert.strictEqual(summary(events), "BadCommand")
      assert.isTrue(events[0]._tag === "Dropped" && events[0].error.command === "pin")
    }
  })

  it("checks the checksum before the command, as Bitcoin Core does", () => {
    assert.strictEqual(summary(Wire.makeParser({ magic }).push(header([1], 0))), "BadChecksum")
  })

  it("gives an empty command as Unknown, as in Bitcoin Core", () => {
    const [event] = Wire.makeParser({ magic }).push(named([]))
    assert.deepStrictEqual(event, {
      _tag: "Received",
      message: { _tag: "Unknown", command: "", payload: new Uint8Array(0) },
      size: 24
    })
  })

  it("gives an unknown command as Unknown with its payload, even if it is the name of an object property", () => {
    const names = ["greeting", "constructor", "__proto__", "toString", "twelve-chars", " ~"]
    const bytes = concat(...names.map((name) => named(ascii(name))))
    const events = Wire.makeParser({ magic }).push(bytes)
    assert.deepStrictEqual(
      events.map((event) => event._tag === "Received" && event.message._tag === "Unknown" && event.message.command),
      names
    )
  })

  it("never confuses two commands, after any number of other commands", () => {
    // More commands than the cache holds, with equal beginnings, or with equal beginnings and ends.
    const digits = Array.from({ length: 10_000 }, (_, index) => String(index).padStart(4, "0"))
    for (const names of [
      digits,
      digits.map((number) => `test${number}`),
      digits.map((number) => `test${number}test`),
      digits.map((number) => `testtest${number}`)
    ]) {
      const parser = Wire.makeParser({ magic })
      const wrong: Array<string> = []
      const check = (name: string): void => {
        const read = summary(parser.push(named(ascii(name))))
        if (read !== name) wrong.push(`${name} is read as ${read}`)
      }
      for (const [index, name] of names.entries()) {
        check(name)
        check(names[(index * 7919) % names.length]!)
        check(name)
        check("verack")
      }
      assert.deepStrictEqual(wrong.slice(0, 3), [])
    }
    const letters = ascii("verack")
    const parser = Wire.makeParser({ magic })
    for (let at = 7; at < 12; at++) {
      assert.strictEqual(
        summary(parser.push(named([...letters, ...Array.from({ length: at - 6 }, () => 0), 1]))),
        "BadCommand"
      )
      assert.strictEqual(summary(parser.push(named(letters))), "verack")
    }
  })

  it("drops a malformed payload and goes on", () => {
    const short = frames({ _tag: "Unknown", command: "pong", payload: new Uint8Array(7) })
    const events = Wire.makeParser({ magic }).push(concat(short, frames(ping(1n))))
    assert.strictEqual(summary(events), "Truncated ping")
  })

  it("fails on a malformed payload or a bad command where the policy says so", () => {
    const short = frames({ _tag: "Unknown", command: "pong", payload: new Uint8Array(7) })
    for (const [bytes, reason] of [
      [short, "Truncated"],
      [named([1]), "BadCommand"]
    ] as const) {
      const parser = Wire.makeParser({ magic, malformed: "disconnect" })
      assert.strictEqual(summary(parser.push(concat(frames(ping(1n)), bytes, frames(ping(1n))))), "ping")
      assert.strictEqual(parser.failure?.reason._tag, reason)
    }
  })

  it("tolerates trailing bytes unless the policy forbids them, but never after feature", () => {
    const long = frames({ _tag: "Unknown", command: "pong", payload: new Uint8Array(9) })
    assert.strictEqual(summary(Wire.makeParser({ magic }).push(long)), "pong")
    assert.strictEqual(summary(Wire.makeParser({ magic, trailingBytes: "malformed" }).push(long)), "TrailingBytes")
    const feature = encoded({ _tag: "feature", id: "test", data: new Uint8Array(0) })
    const tail = frames({ _tag: "Unknown", command: "feature", payload: concat(feature, [0]) })
    assert.strictEqual(summary(Wire.makeParser({ magic }).push(tail)), "TrailingBytes")
  })

  it("includes the header in the size of an event", () => {
    const events = Wire.makeParser({ magic }).push(frames(ping(1n), { _tag: "verack" }))
    assert.deepStrictEqual(
      events.map((event) => event.size),
      [32, 24]
    )
  })

  it("reads Buffers of Node, and gives plain Uint8Arrays", () => {
    const [event] = Wire.makeParser({ magic }).push(Buffer.from(frames(unknown(5))))
    assert.isTrue(event._tag === "Received" && event.message._tag === "Unknown")
    const payload = ((event as Wire.Received).message as Wire.Unknown).payload
    assert.strictEqual(Object.getPrototypeOf(payload), Uint8Array.prototype)
  })
})

describe("incremental parsing", () => {
  const stream = concat(
    frames(...examples),
    patch(frames(ping(1n)), 20, 0),
    named([1]),
    frames({ _tag: "Unknown", command: "pong", payload: new Uint8Array(7) }),
    frames(ping(2n))
  )
  const expected = summary(Wire.makeParser({ magic }).push(stream))

  it("gives the same events a byte at a time", () => {
    const parser = Wire.makeParser({ magic })
    const events: Array<Wire.ParserEvent> = []
    for (let i = 0; i < stream.length; i++) events.push(...parser.push(stream.subarray(i, i + 1)))
    assert.strictEqual(summary(events), expected)
    assert.strictEqual(parser.buffered, 0)
    assert.isTrue(expected.endsWith("BadChecksum BadCommand Truncated ping"))
  })

  it("gives the same events cut in two anywhere", () => {
    for (let cut = 0; cut <= stream.length; cut++) {
      const parser = Wire.makeParser({ magic })
      const events = [...parser.push(stream.subarray(0, cut)), ...parser.push(stream.subarray(cut))]
      assert.strictEqual(summary(events), expected)
    }
  })

  it("reports the number of bytes that it holds in `buffered`", () => {
    const bytes = frames(unknown(100))
    const parser = Wire.makeParser({ magic })
    for (let i = 0; i < bytes.length - 1; i++) {
      parser.push(bytes.subarray(i, i + 1))
      assert.strictEqual(parser.buffered, i + 1)
    }
    parser.push(bytes.subarray(bytes.length - 1))
    assert.strictEqual(parser.buffered, 0)
  })

  it("joins large and small chunks in their order", () => {
    const payload = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7 + (i >> 8)) & 0xff)
    const bytes = frames({ _tag: "Unknown", command: "big", payload }, ping(1n))
    const sizes = [10, 20_000, 1, 5_000, 16_384, 16_383, 3, 40_000, 100, 1_000_000]
    const parser = Wire.makeParser({ magic })
    const events: Array<Wire.ParserEvent> = []
    let offset = 0
    for (const size of sizes) events.push(...parser.push(bytes.subarray(offset, (offset += size))))
    assert.strictEqual(summary(events), "big ping")
    assert.isTrue(Buffer.compare(((events[0] as Wire.Received).message as Wire.Unknown).payload, payload) === 0)
  })
})

const payloadOf = (event: Wire.ParserEvent): Uint8Array => ((event as Wire.Received).message as Wire.Unknown).payload

/** The bytes of array buffers that `run` leaves allocated. */
const allocated = (run: () => unknown): number => {
  const before = process.memoryUsage().arrayBuffers
  const kept = run()
  const after = process.memoryUsage().arrayBuffers
  assert.isDefined(kept)
  return after - before
}

describe("buffers", () => {
  it("are not copied for a frame within one chunk: its payload is a view", () => {
    const chunk = frames(unknown(50))
    assert.strictEqual(payloadOf(Wire.makeParser({ magic }).push(chunk)[0]).buffer, chunk.buffer)
  })

  it("are not copied for a payload within one chunk, even if its header came in an earlier one", () => {
    const bytes = frames(unknown(50))
    const parser = Wire.makeParser({ magic })
    parser.push(bytes.slice(0, 24))
    const chunk = bytes.slice(24)
    assert.strictEqual(payloadOf(parser.push(chunk)[0]).buffer, chunk.buffer)
  })

  it("of a message do not change with later input, for any chunks", () => {
    for (const cut of [1, 24, 30, 73]) {
      const parser = Wire.makeParser({ magic })
      const payloads: Array<Uint8Array> = []
      for (let round = 0; round < 20; round++) {
        const bytes = frames({ _tag: "Unknown", command: "x", payload: new Uint8Array(50).fill(round) })
        for (const event of [...parser.push(bytes.slice(0, cut)), ...parser.push(bytes.slice(cut))]) {
          payloads.push(payloadOf(event))
        }
      }
      payloads.forEach((payload, round) => assert.deepStrictEqual(payload, new Uint8Array(50).fill(round)))
    }
  })

  it("of an encoded message do not change with later encodings", () => {
    const first = encoded(ping(1n))
    encoded(ping(2n))
    frames(ping(3n))
    assert.deepStrictEqual(first, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0))
  })

  it("are not allocated for a header that announces 4,000,000 bytes, and are small for its first bytes", () => {
    const announced = header(ascii("block"), 4_000_000)
    const parsers = allocated(() =>
      Array.from({ length: 10 }, () => {
        const parser = Wire.makeParser({ magic })
        parser.push(announced)
        assert.strictEqual(parser.buffered, 24)
        return parser
      })
    )
    assert.isBelow(parsers, 100_000)
    const started = allocated(() =>
      Array.from({ length: 10 }, () => {
        const parser = Wire.makeParser({ magic })
        parser.push(announced)
        parser.push(new Uint8Array(1))
        return parser
      })
    )
    assert.isBelow(started, 10 * 40_000)
  })

  it("are at most 256 KiB larger than the received part of a payload that arrives one byte at a time", () => {
    const parser = Wire.makeParser({ magic })
    parser.push(header(ascii("block"), 4_000_000))
    const byte = new Uint8Array(1)
    const held = allocated(() => {
      for (let i = 0; i < 1_000_000; i++) parser.push(byte)
      return parser
    })
    assert.strictEqual(parser.buffered, 1_000_024)
    assert.isBelow(held, 1_000_000 + 262_144 + 50_000)
  })
})

describe("an undecoded command", () => {
  const block = examples.find((message): message is Wire.BlockMessage => message._tag === "block")!
  const payload = encoded(block)

  it("is not decoded, even if malformed, while other commands are", () => {
    const parser = Wire.makeParser({ magic, undecoded: ["block", "constructor"] })
    const damaged: Wire.Message = { _tag: "Unknown", command: "block", payload: payload.subarray(0, 7) }
    const events = parser.push(frames(block, ping(1n), damaged))
    assert.deepStrictEqual(
      events.map((event) => (event._tag === "Received" ? event.message : event._tag)),
      [{ _tag: "Unknown", command: "block", payload }, ping(1n), damaged]
    )
  })

  it("still has its checksum checked", () => {
    const parser = Wire.makeParser({ magic, undecoded: ["block"] })
    assert.strictEqual(summary(parser.push(patch(frames(block), 30, 1))), "BadChecksum")
  })

  it("of a block has a payload whose header decodeBlockHeader reads from 80 bytes on", () => {
    assert.deepStrictEqual(Result.getOrThrow(Wire.decodeBlockHeader(payload)), block.block.header)
    assert.deepStrictEqual(Result.getOrThrow(Wire.decodeBlockHeader(payload.subarray(0, 80))), block.block.header)
    assert.deepStrictEqual(reasonOf(Wire.decodeBlockHeader(payload.subarray(0, 79))), {
      _tag: "Truncated",
      field: "header",
      offset: 0
    })
  })
})

describe("onFrame", () => {
  const seen: Array<readonly [string, Uint8Array]> = []
  const parserOf = (options: Partial<Wire.ParserOptions> = {}) => {
    seen.length = 0
    return Wire.makeParser({ magic, ...options, onFrame: (command, payload) => void seen.push([command, payload]) })
  }
  const malformed: Wire.Message = { _tag: "Unknown", command: "pong", payload: Uint8Array.of(1) }

  it("gets each payload as on the wire, including malformed and unknown ones, for any chunks", () => {
    const stream = frames({ _tag: "verack" }, malformed, unknown(100))
    for (const size of [1, 30, stream.length]) {
      const parser = parserOf()
      for (let from = 0; from < stream.length; from += size) parser.push(stream.slice(from, from + size))
      assert.deepStrictEqual(seen, [
        ["verack", new Uint8Array(0)],
        ["pong", Uint8Array.of(1)],
        ["big", new Uint8Array(100).fill(1)]
      ])
    }
  })

  it("gets the malformed payload that makes the parser fail", () => {
    const parser = parserOf({ malformed: "disconnect" })
    parser.push(frames(malformed))
    assert.strictEqual(failureOf(parser)?.reason._tag, "Truncated")
    assert.lengthOf(seen, 1)
  })

  it("does not get a payload with a wrong checksum or a bad command", () => {
    const parser = parserOf()
    parser.push(concat(patch(frames(ping(1n)), 20, 0), named([0xff]), frames(ping(2n))))
    assert.deepStrictEqual(
      seen.map(([command]) => command),
      ["ping"]
    )
  })
})
