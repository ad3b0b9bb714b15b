/** Packets of the v2 transport (BIP324): message contents, parsing in any chunks, authentication, rekeying and limits. */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "../src/Wire.ts"
import {
  decoyPacket,
  emptyPacket,
  makePacketParser,
  type PacketParserOptions,
  sealPackets,
  writePacket
} from "../src/transport/bip324Packets.ts"
import { maxContentsLength } from "../src/wire/contentsV2.ts"
import { concat, encoded, examples } from "./support/generators.ts"
import { bothSecrets, noise } from "./support/secured.ts"

const ping = (nonce: bigint): Wire.Message => ({ _tag: "ping", nonce })

const unknown = (size: number): Wire.Message => ({
  _tag: "Unknown",
  command: "big",
  payload: new Uint8Array(size).fill(1)
})

/** An unsealed packet with any contents. */
const packet = (...contents: ReadonlyArray<ArrayLike<number>>): Uint8Array =>
  concat(new Uint8Array(4), ...contents, new Uint8Array(16))

/** One direction after the version packet: a parser, and the sealing side. */
const link = (options: Partial<PacketParserOptions> = {}, garbage = new Uint8Array(0)) => {
  const [sender, receiver] = bothSecrets()
  const parser = makePacketParser({ direction: receiver.receive, garbage, ...options })
  parser.push(sealPackets(sender.send, [emptyPacket()], garbage))
  assert.isTrue(parser.confirmed)
  return {
    parser,
    /** Copies the packets, because `sealPackets` may write to them. */
    seal: (...packets: ReadonlyArray<Uint8Array>) =>
      sealPackets(
        sender.send,
        packets.map((packet) => packet.slice())
      ),
    send: sender.send
  }
}

const summary = (events: ReadonlyArray<Wire.ParserEvent>): string =>
  events.map((event) => (event._tag === "Received" ? Wire.command(event.message) : event.error.reason._tag)).join(" ")

const ascii = (text: string): Array<number> => Array.from(text, (character) => character.charCodeAt(0))
const long = (command: string): Array<number> => [0, ...ascii(command.padEnd(12, "\0"))]

/** Reads through a function, because TypeScript keeps the type that an assertion has narrowed. */
const failureOf = (parser: Wire.Parser): Wire.WireError | undefined => parser.failure

const shortIds: Record<string, number> = {
  addr: 1,
  block: 2,
  blocktxn: 3,
  cmpctblock: 4,
  feefilter: 5,
  filteradd: 6,
  filterclear: 7,
  filterload: 8,
  getblocks: 9,
  getblocktxn: 10,
  getdata: 11,
  getheaders: 12,
  headers: 13,
  inv: 14,
  mempool: 15,
  merkleblock: 16,
  notfound: 17,
  ping: 18,
  pong: 19,
  sendcmpct: 20,
  tx: 21,
  getcfilters: 22,
  cfilter: 23,
  getcfheaders: 24,
  cfheaders: 25,
  getcfcheckpt: 26,
  cfcheckpt: 27,
  addrv2: 28,
  feature: 37
}

describe("the contents of a message", () => {
  it("are the short id and the payload, or a zero, the command and the payload if it has no short id", () => {
    for (const message of examples) {
      const id = shortIds[Wire.command(message)]
      const command = id === undefined ? long(Wire.command(message)) : [id]
      assert.deepStrictEqual(writePacket(message).subarray(4, -16), concat(command, encoded(message)))
    }
  })

  it("accept exactly the short ids of the table", () => {
    for (let id = 1; id < 256; id++) {
      const command = Object.entries(shortIds).find(([, other]) => other === id)?.[0]
      const { parser, seal } = link()
      const [event] = parser.push(seal(packet([id])))
      if (command === undefined) {
        assert(event?._tag === "Dropped")
        assert.deepStrictEqual(event.error.reason, { _tag: "UnknownShortId", id })
        assert.isUndefined(failureOf(parser))
      } else {
        const found = event?._tag === "Received" ? Wire.command(event.message) : event?.error.command
        assert.strictEqual(found, command)
      }
    }
  })

  it("are decoded with a short id and with a full command", () => {
    const { parser, seal } = link()
    const payload = encoded(ping(7n))
    const events = parser.push(seal(packet([18], payload), packet(long("ping"), payload)))
    assert.deepStrictEqual(
      events.map((event) => event._tag === "Received" && [event.message, event.size]),
      [
        [ping(7n), 29],
        [ping(7n), 41]
      ]
    )
  })

  it("decode to the sent message for every type, in one write or in one write each", () => {
    const joined = link()
    const events = joined.parser.push(joined.seal(...examples.map(writePacket)))
    const alone = link()
    const single = examples.flatMap((message) => alone.parser.push(alone.seal(writePacket(message))))
    for (const of of [events, single]) {
      assert.strictEqual(of.length, examples.length)
      for (const [index, event] of of.entries()) {
        assert(event._tag === "Received")
        assert.deepStrictEqual(encoded(event.message), encoded(examples[index]!))
      }
    }
  })
})

describe("the packet parser", () => {
  it("drops a message with an unknown short id under any policy, and goes on", () => {
    for (const malformed of ["drop", "disconnect"] as const) {
      const { parser, seal } = link({ malformed })
      const events = parser.push(seal(packet([29]), packet([36], [1, 2]), packet([255]), writePacket(ping(1n))))
      assert.strictEqual(summary(events), "UnknownShortId UnknownShortId UnknownShortId ping")
    }
  })

  it("drops a packet without contents, with a truncated command or with one that is not ASCII", () => {
    const bad = [
      packet(),
      packet([0]),
      packet(long("ping").slice(0, 12)),
      packet([0, ...ascii("pin\u0001"), ...new Uint8Array(8)]),
      packet([0, ...ascii("ping"), 0, 1, ...new Uint8Array(6)])
    ]
    const { parser, seal } = link()
    assert.strictEqual(
      summary(parser.push(seal(...bad, writePacket(ping(1n))))),
      "BadCommand BadCommand BadCommand BadCommand BadCommand ping"
    )
    for (const packet of bad) {
      const strict = link({ malformed: "disconnect" })
      strict.parser.push(strict.seal(packet))
      assert.strictEqual(strict.parser.failure?.reason._tag, "BadCommand")
    }
  })

  it("drops a malformed payload, or fails on it where the policy says so", () => {
    const { parser, seal } = link()
    assert.strictEqual(summary(parser.push(seal(packet([19], [1, 2, 3]), writePacket(ping(1n))))), "Truncated ping")
    const strict = link({ malformed: "disconnect", trailingBytes: "malformed" })
    strict.parser.push(strict.seal(packet([19], new Uint8Array(9))))
    assert.strictEqual(strict.parser.failure?.reason._tag, "TrailingBytes")
  })

  it("gives no event for decoys, with any contents", () => {
    const { parser, seal } = link()
    const events = parser.push(seal(decoyPacket(0), decoyPacket(1_000), writePacket(ping(1n)), decoyPacket(5)))
    assert.strictEqual(summary(events), "ping")
  })

  it("takes the first packet that is not a decoy for the version packet and ignores its contents", () => {
    const [sender, receiver] = bothSecrets()
    const parser = makePacketParser({ direction: receiver.receive, garbage: noise(9) })
    const packets = [decoyPacket(3), packet([18], encoded(ping(1n))), writePacket(ping(2n))]
    const events = parser.push(sealPackets(sender.send, packets, noise(9)))
    assert.isTrue(events.length === 1 && events[0]!._tag === "Received")
    assert.deepStrictEqual((events[0] as Wire.Received).message, ping(2n))
  })

  it("ignores the reserved bits of the header byte", () => {
    for (const header of [0x01, 0x40, 0x7f]) {
      const { parser, seal } = link()
      const written = writePacket(ping(3n))
      written[3] = header
      assert.strictEqual(summary(parser.push(seal(written))), "ping")
    }
  })

  it("releases its buffers when it fails", () => {
    const { parser, seal } = link()
    const bad = seal(writePacket(unknown(100_000)))
    bad[50_000]! ^= 1
    parser.push(bad.subarray(0, 90_000))
    assert.strictEqual(parser.buffered, 90_000)
    parser.push(bad.subarray(90_000))
    assert.strictEqual(failureOf(parser)?.reason._tag, "NotAuthentic")
    assert.strictEqual(parser.buffered, 0)
    const { parser: another, send } = link()
    const length = 4_000_014 ^ send.lengthMask()
    another.push(Uint8Array.of(length, length >>> 8, length >>> 16))
    assert.strictEqual(another.buffered, 0)
  })

  it("fails on a wrong tag, gives the messages before it, and stays failed", () => {
    for (const at of [3, 20, -1]) {
      const { parser, seal } = link()
      const good = seal(writePacket(ping(1n)))
      const bad = seal(writePacket(ping(2n)))
      const index = at < 0 ? bad.length + at : at
      bad[index]! ^= 0x40
      assert.strictEqual(summary(parser.push(concat(good, bad, seal(writePacket(ping(3n)))))), "ping")
      assert.strictEqual(failureOf(parser)?.reason._tag, "NotAuthentic")
      assert.strictEqual(parser.buffered, 0)
      assert.deepStrictEqual(parser.push(seal(writePacket(ping(4n)))), [])
    }
  })

  it("gives no altered message for any changed bit of the stream", () => {
    const sent = [ping(1n), ping(2n), unknown(300)].map(encoded)
    const length = sent.reduce((size, payload) => size + payload.length + 21, 12)
    for (let bit = 0; bit < length * 8; bit += 5) {
      const { parser, seal } = link()
      const bytes = seal(writePacket(ping(1n)), writePacket(ping(2n)), writePacket(unknown(300)))
      assert.strictEqual(bytes.length, length)
      bytes[bit >> 3]! ^= 1 << (bit & 7)
      const events = parser.push(bytes)
      assert.isBelow(events.length, 3)
      events.forEach((event, index) => {
        assert(event._tag === "Received")
        assert.deepStrictEqual(encoded(event.message), sent[index])
      })
    }
  })

  it("fails when a packet is repeated, lost or reordered", () => {
    const orders = [
      [0, 0],
      [1, 0],
      [0, 2]
    ]
    for (const order of orders) {
      const { parser, seal } = link()
      const sealed = [1n, 2n, 3n].map((nonce) => seal(writePacket(ping(nonce))))
      // Unmasked at the wrong position, the length is random: the bytes that follow are enough for any length.
      parser.push(concat(...order.map((index) => sealed[index]!)))
      for (let i = 0; i < 300 && failureOf(parser) === undefined; i++) parser.push(new Uint8Array(65_536))
      assert.include(["NotAuthentic", "PayloadTooLarge"], failureOf(parser)?.reason._tag)
    }
  })

  it("accepts contents of 4,000,013 bytes, and fails on one more as soon as the length has arrived", () => {
    for (const size of [Infinity, 65_536, 1_460]) {
      const { parser, seal } = link()
      const sealed = seal(writePacket(unknown(4_000_000)), writePacket(ping(1n)))
      assert.strictEqual(sealed.length, maxContentsLength + 20 + 29)
      const events: Array<Wire.ParserEvent> = []
      for (let offset = 0; offset < sealed.length; offset += size) {
        events.push(...parser.push(sealed.subarray(offset, offset + size)))
      }
      assert.strictEqual(summary(events), "big ping")
      assert.strictEqual(events[0]!.size, 4_000_033)
    }
    const { parser, send } = link()
    const length = 4_000_014 ^ send.lengthMask()
    parser.push(Uint8Array.of(length, length >>> 8))
    assert.isUndefined(failureOf(parser))
    parser.push(Uint8Array.of(length >>> 16))
    assert.deepStrictEqual(failureOf(parser)?.reason, { _tag: "PayloadTooLarge", length: 4_000_014, limit: 4_000_013 })
  })

  it("fails on a short id with a payload of 4,000,001 bytes, and does not pass it to onFrame", () => {
    const seen: Array<number> = []
    const { parser, seal } = link({ onFrame: (_, payload) => void seen.push(payload.length) })
    const events = parser.push(
      seal(packet([2], new Uint8Array(4_000_000)), packet([2], new Uint8Array(4_000_001)), writePacket(ping(1n)))
    )
    assert.strictEqual(summary(events), "block")
    assert.deepStrictEqual(seen, [4_000_000])
    assert.deepStrictEqual(parser.failure?.reason, { _tag: "PayloadTooLarge", length: 4_000_001, limit: 4_000_000 })
  })

  it("rekeys every 224 packets, for 10,000 packets in each direction", () => {
    const [initiator, responder] = bothSecrets()
    for (const [from, to] of [
      [initiator, responder],
      [responder, initiator]
    ] as const) {
      const parser = makePacketParser({ direction: to.receive, garbage: new Uint8Array(0) })
      parser.push(sealPackets(from.send, [emptyPacket()]))
      let received = 0
      for (let batch = 0; batch < 100; batch++) {
        const packets = Array.from({ length: 100 }, (_, i) =>
          i % 10 === 9 ? decoyPacket(i) : writePacket(ping(BigInt(batch * 100 + i)))
        )
        for (const event of parser.push(sealPackets(from.send, packets))) {
          assert.isTrue(event._tag === "Received" && event.message._tag === "ping")
          received++
        }
      }
      assert.strictEqual(received, 9_000)
      assert.isUndefined(parser.failure)
    }
  })
})

describe("incremental parsing", () => {
  const packets = [
    ...examples.map(writePacket),
    packet([30]),
    decoyPacket(40),
    packet([19], [1]),
    writePacket(ping(2n))
  ]
  const stream = () => {
    const { parser, seal } = link()
    return { parser, bytes: seal(...packets) }
  }
  const expected = (() => {
    const { bytes, parser } = stream()
    return summary(parser.push(bytes))
  })()

  it("gives the same events a byte at a time", () => {
    const { bytes, parser } = stream()
    const events: Array<Wire.ParserEvent> = []
    for (let i = 0; i < bytes.length; i++) events.push(...parser.push(bytes.subarray(i, i + 1)))
    assert.strictEqual(summary(events), expected)
    assert.strictEqual(parser.buffered, 0)
    assert.isTrue(expected.endsWith("UnknownShortId Truncated ping"))
  })

  it("gives the same events cut in two anywhere", () => {
    const { bytes } = stream()
    for (let cut = 0; cut <= bytes.length; cut += 7) {
      const { parser } = link()
      const events = [...parser.push(bytes.subarray(0, cut)), ...parser.push(bytes.subarray(cut))]
      assert.strictEqual(summary(events), expected)
    }
  })

  it("reports the number of bytes that it holds in `buffered`", () => {
    const { parser, seal } = link()
    const bytes = seal(writePacket(ping(1n)))
    for (let i = 0; i < bytes.length - 1; i++) {
      parser.push(bytes.subarray(i, i + 1))
      assert.strictEqual(parser.buffered, i + 1)
    }
    parser.push(bytes.subarray(bytes.length - 1))
    assert.strictEqual(parser.buffered, 0)
  })

  it("gives payloads that later input does not change", () => {
    const { parser, seal } = link()
    const payloads = Array.from({ length: 20 }, (_, round) => {
      const bytes = seal(packet(long("x"), new Uint8Array(50).fill(round)))
      const [event] = [...parser.push(bytes.subarray(0, 30)), ...parser.push(bytes.subarray(30))]
      bytes.fill(0xff)
      return ((event as Wire.Received).message as Wire.Unknown).payload
    })
    payloads.forEach((payload, round) => assert.deepStrictEqual(payload, new Uint8Array(50).fill(round)))
  })

  it("allocates nothing for an announced length of 4,000,013, and a small buffer for the first bytes after it", () => {
    const announced = () => {
      const { parser, send } = link()
      const length = maxContentsLength ^ send.lengthMask()
      parser.push(Uint8Array.of(length, length >>> 8, length >>> 16))
      return parser
    }
    const used = (run: () => unknown): number => {
      const before = process.memoryUsage().arrayBuffers
      const kept = run()
      const after = process.memoryUsage().arrayBuffers
      assert.isDefined(kept)
      return after - before
    }
    const parsers = Array.from({ length: 10 }, announced)
    assert.isBelow(
      used(() => parsers.map((parser) => parser.push(new Uint8Array(1)))),
      10 * 17_000
    )
    const byte = new Uint8Array(1)
    const [parser] = parsers
    assert.isBelow(
      used(() => {
        for (let i = 1; i < 1_000_000; i++) parser!.push(byte)
        return parser
      }),
      1_000_000 + 262_144 + 50_000
    )
    assert.strictEqual(parser!.buffered, 1_000_003)
  })

  it("takes time linear in the size of a packet that arrives one byte at a time", () => {
    const time = (size: number): number => {
      const { parser, seal } = link()
      const bytes = seal(writePacket(unknown(size)))
      const before = process.threadCpuUsage().user
      for (let i = 0; i < bytes.length; i++) parser.push(bytes.subarray(i, i + 1))
      return process.threadCpuUsage().user - before
    }
    // Processor time of this thread, best of three: other work on the machine does not change it.
    const best = (size: number): number => Math.min(time(size), time(size), time(size))
    const ratio = best(1_600_000) / Math.max(1, best(200_000))
    assert.isBelow(ratio, 30, "8 times the bytes")
  })
})
