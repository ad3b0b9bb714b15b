/** The address book as a service: the clock, answers to getaddr, lists of addresses from other programs, and floods. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as TestClock from "effect/testing/TestClock"
import * as Address from "../../src/Address.ts"
import * as Network from "../../src/Network.ts"
import type { AddressV2 } from "../../src/Wire.ts"
import * as AddressBook from "../../src/server/AddressBook.ts"
import { blurred } from "../../src/server/internal/book/answers.ts"
import { day, host, hour, makeBook, randomOf, start, textOf, told } from "../support/books.ts"

const source = host("252.2.2.2")
const encode = (text: string): Uint8Array => new TextEncoder().encode(text)
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)
const ipv4 = (i: number): string => `${1 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.7`

/** A book with addresses of `count` groups, of which none is terrible. */
const filled = (count: number, options?: Partial<AddressBook.Options>): AddressBook.Book => {
  const book = makeBook(options)
  for (let i = 0; i < count; i++) {
    const address = `${11 + (i % 80)}.${(i / 80) | 0}.1.1:8333`
    book.add([told(address, start - (i % 20) * day - i * 1_000, 9n)], host(address.split(":")[0]!), start)
  }
  return book
}

describe("the service", () => {
  it.effect("does what the book does, at the time of the clock", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(start)
      const book = yield* AddressBook.AddressBook
      const address = told("1.2.3.4:8333", start, 9n)
      assert.strictEqual(yield* book.add([address, told("10.0.0.1:8333", start)], source, 7_200), 1)
      const selected = Option.getOrThrow(yield* book.select())
      assert.strictEqual(textOf(selected), "1.2.3.4:8333")
      assert.deepStrictEqual([selected.services, selected.lastTry], [9n, 0])

      yield* book.attempt(address, true)
      yield* TestClock.adjust("30 minutes")
      assert.isTrue(yield* book.good(address))
      yield* book.connected(address)
      yield* book.setServices(address, 1_033n)
      assert.deepStrictEqual(book.book.find(address), {
        address: { ...address, services: 1_033n, timestamp: start / 1_000 + 1_800 },
        source,
        lastTry: start + hour / 2,
        lastSuccess: start + hour / 2,
        attempts: 0,
        isTried: true,
        multiplicity: 1
      })
      assert.isTrue(Option.isNone(yield* book.select({ newOnly: true })))
      assert.isTrue(Option.isNone(yield* book.collision))
      yield* book.resolveCollisions
      assert.deepStrictEqual((yield* book.stats).ipv4, { new: 0, tried: 1, total: 1 })
      assert.strictEqual(Object.keys((yield* book.entries).tried).length, 1)
      assert.strictEqual((yield* book.getAddresses()).length, 1)

      const bytes = yield* book.exportAs("lines")
      assert.strictEqual(decode(bytes), "1.2.3.4:8333\n")
      assert.strictEqual((yield* book.importFrom(encode("5.6.7.8"), "lines")).added, 1)
      const error = yield* Effect.flip(book.importFrom(encode("{"), "json"))
      assert.strictEqual(error.message, "cannot be read as json: it is not JSON")
    }).pipe(Effect.provide(AddressBook.layerMemory({ network: Network.mainnet })))
  )

  it.effect("has a secret key of its own in each layer", () =>
    Effect.gen(function* () {
      const key = Effect.map(AddressBook.AddressBook, ({ book }) => book.serialize().slice(6, 38))
      const layer = AddressBook.layerMemory({ network: Network.mainnet })
      const one = yield* Effect.provide(key, layer)
      const other = yield* Effect.provide(key, layer)
      assert.notDeepEqual(one, other)
      assert.notDeepEqual(one, new Uint8Array(32))
    })
  )

  it("works at the start of the clock of a test", () => {
    const book = makeBook()
    const address = told("1.2.3.4:8333", 0)
    assert.strictEqual(book.add([address], source, 0), 1)
    assert.strictEqual(textOf(book.select(0)), "1.2.3.4:8333")
    assert.strictEqual(book.getAddresses(0).length, 1)
    assert.isTrue(book.good(address, 0))
    assert.isUndefined(book.check())
    const { book: restored, lost } = Result.getOrThrow(
      AddressBook.parse(book.serialize(), 0, { network: Network.regtest, random: randomOf(1) })
    )
    assert.deepStrictEqual([restored.entries(), lost], [book.entries(), 0])
  })
})

describe("bad addresses", () => {
  it("are ignored", () => {
    const book = makeBook()
    const address = told("1.2.3.4:8333", start)
    const bad: ReadonlyArray<AddressV2> = [
      { ...address, port: 65_536 },
      { ...address, port: -1 },
      { ...address, port: 1.5 },
      { ...address, port: NaN },
      { ...address, networkId: 3 },
      { ...address, networkId: 99 },
      { ...address, networkId: 4 },
      { ...address, address: new Uint8Array(0) },
      { ...address, address: new Uint8Array(500).fill(9) },
      told("0.0.0.0:1", start),
      told("192.168.1.1:1", start),
      told("[2001:db8::1]:1", start),
      // An internal name of Core.
      {
        ...address,
        networkId: 2,
        address: Uint8Array.of(0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
      }
    ]
    assert.strictEqual(book.add(bad, source, start), 0)
    for (const one of bad) {
      assert.isUndefined(book.find(one))
      assert.isFalse(book.good(one, start))
      book.attempt(one, true, start)
      book.connected(one, start)
      book.setServices(one, 1n)
    }
    assert.strictEqual(book.size, 0)
  })

  it("of a source count as one unroutable source", () => {
    const book = makeBook()
    const strange = [
      { networkId: 99, address: new Uint8Array(500) },
      { networkId: 2, address: Uint8Array.of(0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24, ...new Uint8Array(400)) }
    ]
    for (const [i, from] of strange.entries())
      assert.strictEqual(book.add([told(`1.2.3.${i}:1`, start)], from, start), 1)
    assert.strictEqual(Address.formatHost(book.find(told("1.2.3.0:1"))!.source), "::")
    assert.isUndefined(book.check())
  })

  it("mapped into IPv6 are those of IPv4", () => {
    const book = makeBook()
    const mapped = { ...told("1.2.3.4:1", start), networkId: 2, address: Address.toBytes(host("1.2.3.4"))! }
    assert.strictEqual(book.add([mapped], source, start), 1)
    assert.strictEqual(book.find(told("1.2.3.4:1"))?.address.networkId, 1)
    assert.isTrue(book.good(mapped, start))
    assert.strictEqual(book.stats().ipv4.tried, 1)
  })

  it("that are given to a caller are copies", () => {
    const book = makeBook()
    book.add([told("1.2.3.4:1", start)], source, start)
    const { address } = book.select(start)!.address
    address.fill(0)
    assert.isDefined(book.find(told("1.2.3.4:1")))
  })
})

describe("the answer to getaddr", () => {
  const clearnet: AddressBook.Requester = { network: "ipv4", bind: "1.1.1.1:8333" }

  it("is the same for 21 hours and another one after 27, for one network and address of ours", () => {
    const book = filled(400)
    const answer = book.answer(clearnet, start)
    assert.strictEqual(answer.length, Math.floor(book.size * 0.23))
    assert.strictEqual(book.answer({ ...clearnet }, start + 21 * hour - 1), answer)
    const later = book.answer(clearnet, start + 27 * hour)
    assert.notDeepEqual(later, answer)
    for (const other of [
      { ...clearnet, network: "onion" as const },
      { ...clearnet, bind: "1.1.1.1:8334" }
    ]) {
      assert.notDeepEqual(book.answer(other, start + 27 * hour), later)
    }
  })

  it("ends at a time that cannot be known", () => {
    const book = filled(50)
    const ends = Array.from({ length: 12 }, (_, i) => {
      const requester = { ...clearnet, bind: String(i) }
      const answer = book.answer(requester, start)
      let hours = 0
      while (book.answer(requester, start + hours * hour) === answer) hours += 0.25
      return hours
    })
    for (const hours of ends) {
      assert.isAtLeast(hours, 21)
      assert.isAtMost(hours, 27.25)
    }
    assert.isAbove(new Set(ends).size, 3)
  })

  it("has at most 1,000 addresses, and none that are excluded or terrible", () => {
    const book = filled(8_000)
    assert.strictEqual(book.answer(clearnet, start).length, 1_000)
    const isExcluded = ({ address }: Address.Address): boolean => address[0]! % 2 === 0
    const some = book.answer({ ...clearnet, bind: "other" }, start, isExcluded)
    assert.isAbove(some.length, 100)
    assert.isFalse(some.some((address) => isExcluded(address)))
    assert.deepStrictEqual(book.answer({ ...clearnet, bind: "old" }, start + 60 * day), [])
  })

  it("has times that are older than the true ones by up to two days, and whole hours", () => {
    const book = filled(2_000)
    const shifts = book.answer(clearnet, start).map((address) => {
      const time = book.find(address)!.address.timestamp
      assert.strictEqual(address.timestamp % 3_600, 0)
      assert.isAtMost(address.timestamp, time)
      assert.isAbove(address.timestamp, time - 49 * 3_600)
      return time - address.timestamp
    })
    assert.isAbove(Math.max(...shifts), 40 * 3_600)
    assert.isBelow(Math.min(...shifts), 4 * 3_600)
    // The times of another answer are others.
    const other = book.answer({ ...clearnet, network: "onion" }, start)
    const common = new Map(book.answer(clearnet, start).map((address) => [Address.format(address), address.timestamp]))
    const both = other.filter((address) => common.has(Address.format(address)))
    const equal = both.filter((address) => common.get(Address.format(address)) === address.timestamp)
    assert.isAbove(both.length, 50)
    assert.isBelow(equal.length, both.length / 10)
  })

  it("makes no address older than 29 days, and no old one younger", () => {
    const now = start / 1_000
    const random = randomOf(3)
    for (let i = 0; i < 2_000; i++) {
      const age = random.below(40 * 86_400) - 600
      const time = now - age
      const shown = blurred(time, now, random)
      assert.isAtMost(shown, time)
      assert.isAtLeast(shown, Math.min(time, now - 29 * 86_400) - 3_600)
    }
    assert.strictEqual(blurred(10, now, random), 0)
  })

  it("is kept for at most 100 addresses of ours", () => {
    const book = filled(50)
    const first = book.answer({ ...clearnet, bind: "0" }, start)
    for (let i = 1; i < 500; i++) book.answer({ ...clearnet, bind: String(i) }, start)
    assert.notStrictEqual(book.answer({ ...clearnet, bind: "0" }, start), first)
  })
})

describe("importing", () => {
  const imported = (
    text: string | Uint8Array,
    format: AddressBook.Format,
    book = makeBook({ network: Network.mainnet })
  ) => {
    const result = book.importFrom(typeof text === "string" ? encode(text) : text, format, start)
    return { book, ...Result.getOrThrow(result) }
  }
  const onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"

  it("takes lines, with the port of the network, comments and empty lines", () => {
    const text = `# seeds\n1.2.3.4\r\n\n5.6.7.8:18333 # AS1\n[2a01::1]:8333\n2a01::2\n${onion}:8333\nexample.com\n1.2.3.4:99999\n`
    const { added, book, problem, read, skipped } = imported(text, "lines")
    assert.deepStrictEqual([added, read, skipped], [5, 5, 2])
    assert.strictEqual(problem, 'line 8: "example.com" is not an IPv4, IPv6, Tor, I2P or CJDNS address')
    assert.deepStrictEqual(book.find(told("1.2.3.4:8333"))?.address, told("1.2.3.4:8333", start - 5 * day, 9n))
    assert.isDefined(book.find(told("[2a01::2]:8333")))
  })

  it("takes what getnodeaddresses of Core prints", () => {
    const text = JSON.stringify([
      { time: 1_699_000_000, services: 1_033, address: "1.2.3.4", port: 8_333, network: "ipv4" },
      { time: 1_699_000_000, services: 1_033, address: onion, port: 8_333, network: "onion" },
      { time: 1, services: 1, address: "5.6.7.8", port: 70_000, network: "ipv4" },
      { time: "x", services: -1, address: "5.6.7.8", port: 8_333 },
      { address: 5, port: 8_333 },
      null,
      7
    ])
    const { added, book, problem, skipped } = imported(text, "json")
    assert.deepStrictEqual([added, skipped, problem], [3, 4, "element 2: 70000 is not a port"])
    assert.deepStrictEqual(book.find(told("1.2.3.4:8333"))?.address, told("1.2.3.4:8333", 1_699_000_000_000, 1_033n))
    assert.deepStrictEqual(book.find(told("5.6.7.8:8333"))?.address, told("5.6.7.8:8333", start - 5 * day, 9n))
  })

  it("takes snapshots of bitnodes", () => {
    const text = JSON.stringify([
      [
        "1.2.3.4",
        8333,
        70016,
        "/Satoshi:27.0.0/",
        1_699_000_000,
        3_081,
        820_000,
        "host",
        "City",
        "CC",
        0,
        0,
        "Zone",
        "AS1",
        "Org"
      ],
      ["2a01::1", 8333]
    ])
    const { added, book } = imported(text, "json")
    assert.strictEqual(added, 2)
    assert.deepStrictEqual(book.find(told("1.2.3.4:8333"))?.address, told("1.2.3.4:8333", 1_699_000_000_000, 3_081n))
  })

  it("takes peers.json of btcd, and reached addresses as good", () => {
    const text = JSON.stringify({
      Version: 2,
      Key: Array.from({ length: 32 }, () => 7),
      Addresses: [
        {
          Addr: "1.2.3.4:8333",
          Src: "9.9.9.9:8333",
          Attempts: 1,
          TimeStamp: 1_699_000_000,
          LastAttempt: 1_699_500_000,
          LastSuccess: 1_699_500_000,
          Services: 9,
          SrcServices: 9
        },
        { Addr: "[2a01::1]:8333", Src: "[2a01::2]:8333", TimeStamp: 1_699_000_000, LastSuccess: 0, Services: 1_033 },
        { Addr: "name.example:8333", Src: "9.9.9.9:8333" },
        { Src: "9.9.9.9:8333" }
      ],
      NewBuckets: [],
      TriedBuckets: []
    })
    const { added, book, problem, skipped } = imported(text, "peers.json")
    assert.deepStrictEqual([added, skipped], [2, 2])
    assert.match(problem!, /^address 2: "name.example" is not/)
    const entry = book.find(told("1.2.3.4:8333"))!
    assert.deepStrictEqual([entry.isTried, entry.lastSuccess], [true, 1_699_500_000_000])
    assert.strictEqual(Address.formatHost(entry.source), "9.9.9.9")
    assert.isFalse(book.find(told("[2a01::1]:8333"))!.isTried)
    assert.isUndefined(book.check())
  })

  it("takes peers.dat into a book that has addresses, and what can be read of a damaged one", () => {
    const other = filled(30, { key: new Uint8Array(32).fill(4), network: Network.mainnet })
    other.good(told("11.0.1.1:8333"), start - hour)
    const bytes = other.serialize()
    const book = makeBook({ network: Network.mainnet })
    book.add([told("9.9.9.9:1", start)], source, start)
    const { added, problem } = imported(bytes, "peers.dat", book)
    assert.deepStrictEqual([added, problem, book.size], [30, undefined, 31])
    assert.deepStrictEqual(book.stats().ipv4, { new: 30, tried: 1, total: 31 })
    assert.strictEqual(imported(bytes.subarray(0, 500), "peers.dat").problem, "address 12 at byte 470 cannot be read")
  })

  it("refuses what is not of its format, in one sentence", () => {
    const book = makeBook({ network: Network.mainnet })
    for (const [text, format, message] of [
      ["", "json", "cannot be read as json: it is not JSON"],
      ["{}", "json", "cannot be read as json: it is not an array of addresses"],
      ["[]", "peers.json", "cannot be read as peers.json: it is not a peers.json of btcd"],
      [
        '{"Version":3,"Addresses":[]}',
        "peers.json",
        "cannot be read as peers.json: it has version 3, which is newer than 2"
      ],
      ["1.2.3.4:8333", "peers.dat", "cannot be read as peers.dat: it does not say which programs can read it"],
      ["", "peers.dat", "cannot be read as peers.dat: it has 0 bytes"]
    ] as const) {
      const result = book.importFrom(encode(text), format, start)
      assert.strictEqual(Result.isFailure(result) ? result.failure.message : "", message)
    }
    assert.strictEqual(book.size, 0)
  })
})

describe("exporting", () => {
  it("in every format gives a list that gives the same addresses again", () => {
    const book = filled(60)
    book.add([told(`${"a".repeat(52)}.b32.i2p`, start, 9n), told("[fc00::1]:8333", start, 9n)], source, start)
    book.good(told("11.0.1.1:8333"), start)
    const texts = (of: AddressBook.Book): ReadonlyArray<string> =>
      of
        .getAddresses(start, { unfiltered: true })
        .map((address) => Address.format(address))
        .toSorted()
    for (const format of ["peers.dat", "json", "lines", "peers.json"] as const) {
      const again = makeBook()
      Result.getOrThrow(again.importFrom(book.exportAs(format), format, start))
      // btcd has neither I2P nor CJDNS.
      const expected = format === "peers.json" ? texts(book).filter((text) => !/i2p|fc00/.test(text)) : texts(book)
      assert.deepStrictEqual(texts(again), expected, format)
    }
    assert.deepStrictEqual(book.exportAs("peers.dat"), book.serialize())
  })

  it("for btcd has every address in a bucket, as btcd wants it, and no source that it cannot read", () => {
    const book = filled(60)
    const name = Uint8Array.of(0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24, ...new Uint8Array(10).fill(7))
    book.add([told("8.8.8.8:8333", start)], { networkId: 2, address: name }, start)
    book.good(told("11.0.1.1:8333"), start)
    const json = JSON.parse(decode(book.exportAs("peers.json")))
    assert.deepStrictEqual(
      [json.Version, json.Key.length, json.NewBuckets.length, json.TriedBuckets.length],
      [2, 32, 1_024, 64]
    )
    const inNew = new Set(json.NewBuckets.flat())
    const inTried = new Set(json.TriedBuckets.flat())
    assert.deepStrictEqual([...inTried], ["11.0.1.1:8333"])
    for (const { Addr, Src } of json.Addresses) {
      assert.notStrictEqual(inNew.has(Addr), inTried.has(Addr))
      assert.match(Src, /^\d+\.\d+\.\d+\.\d+:8333$/)
    }
    assert.strictEqual(
      json.Addresses.find(({ Addr }: { readonly Addr: string }) => Addr === "8.8.8.8:8333").Src,
      "8.8.8.8:8333"
    )
  })

  it("as json has the fields of getnodeaddresses", () => {
    const book = makeBook()
    book.add([told("1.2.3.4:8333", start, 1_033n)], source, start)
    assert.deepStrictEqual(JSON.parse(decode(book.exportAs("json"))), [
      { time: start / 1_000, services: 1_033, address: "1.2.3.4", port: 8_333, network: "ipv4" }
    ])
  })
})

describe("a flood of addresses", () => {
  it("from one source stays in the 64 buckets of its group: 100,000 addresses", () => {
    const book = filled(500)
    const before = Object.keys(book.entries().new).length
    const addressOf = (i: number): AddressV2 => ({
      timestamp: start / 1_000,
      services: 9n,
      networkId: 1,
      address: host(ipv4(i)).address,
      port: 8_333
    })
    for (let i = 0; i < 100; i++) {
      const list = Array.from({ length: 1_000 }, (_, j) => addressOf(i * 1_000 + j))
      book.add(list, host("66.66.1.1"), start, 7_200)
    }
    assert.isAtMost(book.size, 500 + 64 * 64)
    assert.isAtLeast(Object.keys(book.entries().new).length, before)
    assert.isUndefined(book.check())
  })

  it("of 60,000 groups of IPv6 from 60 sources fills the new table at most", () => {
    const book = makeBook()
    const random = randomOf(2)
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 60; i++) {
      const list = Array.from({ length: 1_000 }, (): AddressV2 => {
        const address = Uint8Array.from({ length: 16 }, () => random.below(256))
        address[0] = 0x2a
        return { timestamp: start / 1_000, services: 9n, networkId: 2, address, port: 8_333 }
      })
      book.add(list, host(`66.${i}.1.1`), start)
    }
    assert.isAbove(book.size, 20_000)
    assert.isAtMost(book.size, 65_536)
    // Columns of 64 Ki entries at most, and their old halves until they are collected.
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 40_000_000)
  })
})
