/** The address book does what Bitcoin Core's address manager does: the cases of its addrman_tests.cpp. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import * as Network from "../../src/Network.ts"
import { Service } from "../../src/Wire.ts"
import * as AddressBook from "../../src/server/AddressBook.ts"
import { BookHash } from "../../src/server/internal/book/hash.ts"
import { doubleSha256 } from "../../src/primitives/sha256.ts"
import {
  coreKey,
  day,
  host,
  hour,
  makeBook,
  minute,
  placesOf,
  randomOf,
  start,
  textOf,
  told
} from "../support/books.ts"

const source = host("252.2.2.2")
const i2p = "udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna.b32.i2p"
const otherI2p = "c4gfnttsuwqomiygupdqqqyy5y5emnk5c73hrfvatri67prd7vyq.b32.i2p"
const set = (...names: ReadonlyArray<"ipv4" | "ipv6" | "onion" | "i2p" | "cjdns">) => new Set(names)

describe("adding", () => {
  it("takes an address once", () => {
    const book = makeBook()
    assert.strictEqual(book.size, 0)
    assert.isUndefined(book.select(start))
    assert.strictEqual(book.add([told("250.1.1.1:8333")], source, start), 1)
    assert.strictEqual(book.size, 1)
    assert.strictEqual(textOf(book.select(start)), "250.1.1.1:8333")
    assert.strictEqual(book.add([told("250.1.1.1:8333")], source, start), 0)
    assert.strictEqual(book.size, 1)
    assert.strictEqual(book.add([told("250.1.1.2:8333")], source, start), 1)
    assert.isAtLeast(book.size, 1)
  })

  it("keeps two ports of one host apart, in both tables", () => {
    const book = makeBook()
    book.add([told("250.1.1.1:8333")], source, start)
    book.add([told("250.1.1.1:8334")], source, start)
    assert.strictEqual(book.size, 2)
    assert.isTrue(book.good(told("250.1.1.1:8334"), start))
    assert.strictEqual(book.size, 2)
    assert.strictEqual(textOf(book.select(start, { newOnly: true })), "250.1.1.1:8333")
  })

  it("sets times back by the penalty, but not for a source that tells of itself", () => {
    const book = makeBook()
    const time = start - 10_000_000
    book.add([told("250.1.1.1:8333", time)], host("250.1.1.1"), start, 3_600)
    assert.deepStrictEqual(
      book.getAddresses(start).map(({ timestamp }) => timestamp),
      [time / 1_000]
    )
    book.add([told("250.1.1.2:8333", time)], host("250.1.1.3"), start, 3_600)
    assert.strictEqual(book.find(told("250.1.1.2:8333"))?.address.timestamp, time / 1_000 - 3_600)
  })

  it("overwrites the occupant of a place if it is terrible", () => {
    const book = makeBook()
    // With this key 250.1.1.1 to 250.1.1.22 have places of their own.
    for (let i = 1; i <= 22; i++) {
      assert.strictEqual(book.add([told(`250.1.1.${i}`)], source, start), 1)
      assert.strictEqual(book.size, i)
    }
    assert.strictEqual(book.add([told("250.1.1.23")], source, start), 1)
    assert.strictEqual(book.size, 22)
    assert.strictEqual(book.add([told("250.1.1.24")], source, start), 1)
    assert.strictEqual(book.size, 23)
  })

  it("keeps the occupant of a place if it is not terrible", () => {
    const book = makeBook()
    for (let i = 1; i <= 22; i++) book.add([told(`250.1.1.${i}`, start)], source, start)
    assert.strictEqual(book.add([told("250.1.1.23", start)], source, start), 0)
    assert.strictEqual(book.size, 22)
    assert.isUndefined(book.find(told("250.1.1.23")))
  })

  it("gives an address up to 8 places, only if its time is newer each time", () => {
    const book = makeBook()
    const sourceOf = (i: number) => host(`${i % 256}.${i >> 8}.1.1`)
    for (let i = 1; i < 20; i++) book.add([told("253.3.3.3:8333", start)], sourceOf(i), start)
    assert.strictEqual(book.find(told("253.3.3.3:8333"))?.multiplicity, 1)
    for (let i = 1; i < 1_000; i++) book.add([told("253.3.3.3:8333", start + i * 1_000)], sourceOf(i), start)
    assert.strictEqual(book.find(told("253.3.3.3:8333"))?.multiplicity, 8)
    assert.strictEqual(book.size, 1)
    assert.strictEqual(placesOf(book, "new", { address: "253.3.3.3", port: 8333 }).length, 8)
    assert.isUndefined(book.check())
    // All of its places are given up at once.
    assert.isTrue(book.good(told("253.3.3.3:8333"), start))
    assert.deepStrictEqual(book.stats().all_networks, { new: 0, tried: 1, total: 1 })
    assert.isUndefined(book.check())
  })

  it("adds services but does not remove them, and updates times of the right port only", () => {
    const book = makeBook()
    const time = start - 10_000_000
    const address = told("250.1.1.1:8333", time)
    const entry = () => book.find(address)!.address
    book.add([address], source, start)
    book.connected(told("250.1.1.1:8334"), start)
    book.setServices(told("250.1.1.1:8334"), Service.networkLimited)
    assert.deepStrictEqual(entry(), address)

    book.connected(address, start)
    book.setServices(address, Service.networkLimited)
    assert.deepStrictEqual(entry(), { ...address, timestamp: start / 1_000, services: Service.networkLimited })

    assert.strictEqual(book.add([{ ...address, services: Service.p2pV2 }], source, start), 0)
    assert.strictEqual(entry().services, Service.p2pV2 | Service.networkLimited)
    book.setServices(address, Service.network)
    assert.strictEqual(entry().services, Service.network)
    assert.isTrue(book.good(address, start))
    assert.strictEqual(entry().services, Service.network)
    assert.strictEqual(book.add([{ ...address, services: Service.p2pV2 }], source, start), 0)
    assert.strictEqual(entry().services, Service.network | Service.p2pV2)
  })

  it("counts addresses by network and table", () => {
    const book = makeBook()
    assert.deepStrictEqual(book.stats().all_networks, { new: 0, tried: 0, total: 0 })
    book.add([told("250.1.1.1:8333"), told("250.1.1.2:8333")], source, start)
    book.good(told("250.1.1.1:8333"), start)
    assert.deepStrictEqual(book.stats().ipv4, { new: 1, tried: 1, total: 2 })
    book.add([told(i2p.toUpperCase().replace("I2P", "i2p"))], source, start)
    const { all_networks, i2p: ofI2p, ipv4 } = book.stats()
    assert.deepStrictEqual(all_networks, { new: 2, tried: 1, total: 3 })
    assert.deepStrictEqual(ofI2p, { new: 1, tried: 0, total: 1 })
    assert.deepStrictEqual(ipv4, { new: 1, tried: 1, total: 2 })
    assert.deepStrictEqual([book.hasNetwork("i2p"), book.hasNetwork("onion")], [true, false])
  })
})

describe("selecting", () => {
  it("draws from the tables that it may", () => {
    const book = makeBook()
    assert.isUndefined(book.select(start))
    assert.isUndefined(book.select(start, { newOnly: true }))
    book.add([told("250.1.1.1:8333")], source, start)
    assert.strictEqual(textOf(book.select(start, { newOnly: true })), "250.1.1.1:8333")
    assert.strictEqual(textOf(book.select(start)), "250.1.1.1:8333")
    assert.isTrue(book.good(told("250.1.1.1:8333"), start))
    assert.isUndefined(book.select(start, { newOnly: true }))
    assert.strictEqual(textOf(book.select(start)), "250.1.1.1:8333")
    book.add([told("250.3.1.1:8333")], host("250.3.1.1"), start)
    assert.strictEqual(textOf(book.select(start, { newOnly: true })), "250.3.1.1:8333")

    book.add([told("250.3.2.2:9999")], host("250.3.1.1"), start)
    book.add([told("250.3.3.3:9999")], host("250.4.1.1"), start)
    for (const [address, of] of [
      ["250.4.4.4:8333", "250.3.2.2"],
      ["250.4.5.5:7777", "250.3.2.2"],
      ["250.4.6.6:8333", "250.1.1.3"]
    ] as const) {
      assert.strictEqual(book.add([told(address)], host(of), start), 1)
      assert.isTrue(book.good(told(address), start))
    }
    assert.strictEqual(book.size, 7)
    const ports = new Set(Array.from({ length: 50 }, () => book.select(start)?.address.port))
    assert.deepStrictEqual(ports, new Set([8333, 9999, 7777]))
  })

  it("draws from the networks that it may, and from either table", () => {
    const book = makeBook()
    assert.isUndefined(book.select(start, { newOnly: true, networks: set("ipv4") }))
    book.add([told("250.1.1.1:8333")], source, start)
    for (const newOnly of [true, false]) {
      assert.strictEqual(textOf(book.select(start, { newOnly, networks: set("ipv4") })), "250.1.1.1:8333")
      for (const name of ["ipv6", "onion", "i2p", "cjdns"] as const) {
        assert.isUndefined(book.select(start, { newOnly, networks: set(name) }))
      }
    }
    book.add([told(i2p)], source, start)
    assert.strictEqual(textOf(book.select(start, { newOnly: true, networks: set("i2p") })), i2p)
    assert.strictEqual(textOf(book.select(start, { networks: set("i2p") })), i2p)
    assert.strictEqual(textOf(book.select(start, { networks: set("ipv4") })), "250.1.1.1:8333")
    assert.isDefined(book.select(start, { networks: set("ipv4", "i2p") }))
    assert.isUndefined(book.select(start, { networks: set("ipv6", "onion", "cjdns") }))
    assert.isUndefined(book.select(start, { networks: set() }), "no network at all")

    assert.isTrue(book.good(told(i2p), start))
    assert.isUndefined(book.select(start, { newOnly: true, networks: set("i2p") }))
    assert.strictEqual(textOf(book.select(start, { networks: set("i2p") })), i2p)
    book.add([told(otherI2p)], source, start)
    assert.strictEqual(textOf(book.select(start, { newOnly: true, networks: set("i2p") })), otherI2p)
    const drawn = Array.from({ length: 100 }, () => textOf(book.select(start + hour, { networks: set("i2p") })))
    assert.deepStrictEqual(new Set(drawn), new Set([i2p, otherI2p]))
  })

  it("draws from the only table that has the network", () => {
    for (let seed = 0; seed < 20; seed++) {
      const book = makeBook({ key: new Uint8Array(32).fill(seed), random: randomOf(seed) })
      book.add([told(i2p), told("250.1.1.3:8333")], source, start)
      assert.isTrue(book.good(told(i2p), start))
      assert.strictEqual(textOf(book.select(start, { networks: set("ipv4") })), "250.1.1.3:8333")
    }
  })
})

describe("giving addresses", () => {
  it("gives 23 % of the book, rounded down, and none of an empty one", () => {
    const book = makeBook()
    const most = { maximum: 2_500, percent: 23 }
    assert.deepStrictEqual(book.getAddresses(start), [])
    const [one, two, three, four, five] = [
      "250.250.2.1:8333",
      "250.251.2.2:9999",
      "251.252.2.3:8333",
      "252.253.3.4:8333",
      "252.254.4.5:8333"
    ].map((text) => told(text, start)) as [AddressBook.Entry["address"], ...Array<AddressBook.Entry["address"]>]
    book.add([one, three!, five!], host("250.1.2.1"), start)
    book.add([two!, four!], host("250.2.3.3"), start)
    assert.strictEqual(book.getAddresses(start).length, 5)
    assert.strictEqual(book.getAddresses(start, most).length, 1)
    assert.isTrue(book.good(one, start))
    assert.isTrue(book.good(two!, start))
    assert.strictEqual(book.getAddresses(start).length, 5)
    assert.strictEqual(book.getAddresses(start, most).length, 1)

    for (let i = 1; i < 8 * 256; i++) {
      const text = `${i % 256}.${i >> 8}.1.23`
      book.add([told(text, start)], host(text), start)
      if (i % 8 === 0) book.good(told(text), start)
    }
    assert.strictEqual(book.size, 2_006)
    assert.strictEqual(book.getAddresses(start, most).length, 461)
    assert.isUndefined(book.check())
  })

  it("leaves out terrible ones, unless all are asked for", () => {
    const book = makeBook()
    book.add([told("250.250.2.1:8333", start), told("250.251.2.2:9999")], host("250.1.2.1"), start)
    book.add([told("250.251.2.3:9998", start)], host("250.1.2.1"), start)
    // Failures count only because something was reached after them.
    book.good(told("9.9.9.9:1"), start)
    for (let i = 0; i < 3; i++) book.attempt(told("250.251.2.3:9998"), true, start - 61_000)
    book.add([told("250.252.2.4:9997", start + 11 * minute)], host("250.1.2.1"), start)
    assert.deepStrictEqual(
      book.getAddresses(start).map((address) => Address.format(address)),
      ["250.250.2.1:8333"]
    )
    assert.strictEqual(book.getAddresses(start, { unfiltered: true }).length, 4)
  })

  it("leaves out an address that was reached once and failed 10 times for a week", () => {
    const book = makeBook()
    const address = told("250.250.2.1:8333", start)
    book.add([address], host("250.1.2.1"), start)
    assert.isTrue(book.good(address, start))
    const later = start + 8 * day
    const helper = told("251.252.2.3:8333", later)
    book.add([helper], host("250.1.2.1"), later)
    for (let i = 0; i < 10; i++) {
      assert.strictEqual(book.getAddresses(later + minute).length, 2, `${i} attempts`)
      book.good(helper, later + i * 1_000)
      book.attempt(address, true, later - 61_000 + i)
    }
    assert.deepStrictEqual(
      book.getAddresses(later + minute).map((address) => Address.format(address)),
      ["251.252.2.3:8333"]
    )
    assert.strictEqual(book.getAddresses(later + minute, { unfiltered: true }).length, 2)
  })
})

describe("buckets", () => {
  const keyOf = (number: number) => doubleSha256(Uint8Array.of(number, 0, 0, 0))
  const key1 = keyOf(1)
  const key2 = keyOf(2)
  const newBucket = (hash: BookHash, of: string, from: string) =>
    hash.newBucket(hash.groupOf(host(of)), hash.groupOf(host(from)))
  const range = (count: number, of: (i: number) => number) =>
    new Set(Array.from({ length: count }, (_, i) => of(i))).size
  /** The map of Core's tests: 250.0.0.0/8 is AS 1000, 101.1.0.0/16 to 101.8.0.0/16 are AS 1 to 8. */
  const mapped = ({ address }: Address.Host): Uint8Array | undefined => {
    const [first, second] = address
    const system = first === 250 ? 1_000 : first === 101 && second! >= 1 && second! <= 8 ? second! : 0
    return system === 0 ? undefined : Uint8Array.of(2, system, system >> 8, 0, 0)
  }

  it("of the tried table depend on key, port and group: 8 for each group", () => {
    const hash = new BookHash(key1)
    const bucketOf = (text: string, by = hash) => by.triedBucket(told(text))
    assert.strictEqual(bucketOf("250.1.1.1:8333"), 40)
    assert.notStrictEqual(bucketOf("250.1.1.1:8333", new BookHash(key2)), 40)
    assert.notStrictEqual(bucketOf("250.1.1.1:9999"), 40)
    assert.strictEqual(
      range(255, (i) => bucketOf(`250.1.1.${i}`)),
      8
    )
    assert.strictEqual(
      range(255, (j) => bucketOf(`250.${j}.1.1`)),
      160
    )
  })

  it("of the new table depend on key and both groups, not on the port: 64 for each source group", () => {
    const hash = new BookHash(key1)
    assert.strictEqual(newBucket(hash, "250.1.2.1", "250.1.2.1"), 786)
    assert.notStrictEqual(newBucket(new BookHash(key2), "250.1.2.1", "250.1.2.1"), 786)
    assert.strictEqual(
      range(255, (i) => newBucket(hash, `250.1.1.${i}`, `250.1.1.${i}`)),
      1
    )
    const reached = range(1_020, (j) => newBucket(hash, `${250 + Math.floor(j / 255)}.${j % 256}.1.1`, "251.4.1.1"))
    assert.isAtMost(reached, 64)
    assert.isAbove(reached, 32)
    assert.isAbove(
      range(255, (p) => newBucket(hash, "250.1.1.1", `250.${p}.1.1`)),
      64
    )
  })

  it("follow the groups of a map of autonomous systems", () => {
    const hash = new BookHash(key1, mapped)
    const bucketOf = (text: string) => hash.triedBucket(told(text))
    assert.strictEqual(bucketOf("250.1.1.1:8333"), 236)
    assert.notStrictEqual(new BookHash(key2, mapped).triedBucket(told("250.1.1.1:8333")), 236)
    assert.notStrictEqual(bucketOf("250.1.1.1:9999"), 236)
    assert.isAbove(
      range(255, (j) => bucketOf(`101.${j}.1.1`)),
      8
    )
    assert.strictEqual(
      range(255, (j) => bucketOf(`250.${j}.1.1`)),
      8
    )

    assert.strictEqual(newBucket(hash, "250.1.2.1", "250.1.2.1"), 795)
    assert.strictEqual(
      range(255, (i) => newBucket(hash, `250.1.1.${i}`, `250.1.1.${i}`)),
      1
    )
    assert.isAbove(
      range(255, (p) => newBucket(hash, "250.1.1.1", `101.${p}.1.1`)),
      1
    )
    assert.strictEqual(
      range(255, (p) => newBucket(hash, "250.1.1.1", `250.${p}.1.1`)),
      1
    )
  })

  it("are made anew for a file that was written with another map", () => {
    const asmap = { groupOf: mapped, asmapVersion: new Uint8Array(32).fill(9) }
    const unspecified = host("::")
    const reread = (from: AddressBook.Book, options: Partial<AddressBook.Options>) => {
      const parsed = AddressBook.parse(from.serialize(), start, {
        network: Network.regtest,
        random: randomOf(3),
        key: coreKey,
        ...options
      })
      const { book, damage, lost } = Result.getOrThrow(parsed)
      assert.deepStrictEqual([damage, lost], [undefined, 0])
      assert.isUndefined(book.check())
      return book
    }
    const placeOf = (book: AddressBook.Book, address = "250.1.1.1") => {
      const [place] = placesOf(book, "new", { address, port: 0 })
      return place!.split("/")
    }
    const withMap = makeBook(asmap)
    withMap.add([told("250.1.1.1")], unspecified, start)
    assert.deepStrictEqual(placeOf(reread(withMap, asmap)), placeOf(withMap))
    const without = reread(withMap, {})
    assert.notStrictEqual(placeOf(without)[0], placeOf(withMap)[0])
    assert.notStrictEqual(placeOf(without)[1], placeOf(withMap)[1])
    assert.deepStrictEqual(placeOf(reread(without, asmap)), placeOf(withMap))

    const two = makeBook()
    two.add([told("250.1.1.1"), told("250.2.1.1")], unspecified, start)
    assert.notStrictEqual(placeOf(two)[0], placeOf(two, "250.2.1.1")[0])
    const joined = reread(two, asmap)
    assert.strictEqual(placeOf(joined)[0], placeOf(joined, "250.2.1.1")[0])
    assert.notStrictEqual(placeOf(joined)[1], placeOf(joined, "250.2.1.1")[1])
  })
})

describe("test before evict", () => {
  /** 250.1.1.1 to 250.1.1.35 in the tried table, where they have places of their own with this key. */
  const filled = (): AddressBook.Book => {
    const book = makeBook()
    for (let i = 1; i <= 35; i++) reach(book, i)
    assert.isUndefined(book.collision())
    return book
  }
  const at = (i: number) => told(`250.1.1.${i}`)
  const reach = (book: AddressBook.Book, i: number, now = start): void => {
    assert.strictEqual(book.add([at(i)], source, now), 1)
    assert.isTrue(book.good(at(i), now))
  }

  it("lets an address wait whose place is taken", () => {
    const book = filled()
    book.add([at(36)], source, start)
    assert.isFalse(book.good(at(36), start))
    assert.isFalse(book.find(at(36))!.isTried)
    reach(book, 37)
  })

  it("does not take an address that is there already for a collision", () => {
    const book = filled()
    for (let i = 1; i <= 35; i++) assert.isFalse(book.good(at(i), start))
    assert.isUndefined(book.collision())
  })

  it("keeps an occupant that was reached in the last 4 hours", () => {
    const book = filled()
    book.add([at(36)], source, start)
    assert.isFalse(book.good(at(36), start))
    assert.strictEqual(textOf(book.collision()), "250.1.1.19:0")
    book.resolveCollisions(start)
    assert.isUndefined(book.collision())
    assert.deepStrictEqual([book.find(at(19))!.isTried, book.find(at(36))!.isTried], [true, false])

    for (let i = 37; i < 59; i++) reach(book, i)
    book.add([at(59)], source, start)
    assert.isFalse(book.good(at(59), start))
    assert.strictEqual(textOf(book.collision()), "250.1.1.10:0")
    assert.strictEqual(book.add([at(36)], source, start), 0)
    assert.isFalse(book.good(at(36), start))
    assert.isDefined(book.collision())
    book.resolveCollisions(start)
    assert.isUndefined(book.collision())
    assert.isUndefined(book.check())
  })

  it("replaces an occupant that was tried without success, and one that was not tried in time", () => {
    const book = filled()
    book.add([at(36)], source, start)
    assert.isFalse(book.good(at(36), start))
    // Its last success is long ago, and the feeler of a minute ago failed.
    assert.isFalse(book.good(at(19), 1_000))
    book.attempt(at(19), false, start - 60_000)
    book.resolveCollisions(start)
    assert.isDefined(book.collision(), "connecting may take a minute")
    book.attempt(at(19), false, start - 61_000)
    book.resolveCollisions(start)
    assert.isUndefined(book.collision())
    assert.deepStrictEqual([book.find(at(19))!.isTried, book.find(at(36))!.isTried], [false, true])
    assert.isUndefined(book.check())
    assert.isFalse(book.good(at(36), start))
    assert.isUndefined(book.collision())

    assert.isFalse(book.good(at(19), start))
    assert.strictEqual(textOf(book.collision()), "250.1.1.36:0")
    book.resolveCollisions(start + 4 * hour)
    assert.isUndefined(book.collision())
    assert.deepStrictEqual([book.find(at(19))!.isTried, book.find(at(36))!.isTried], [true, false])
    assert.isUndefined(book.check())
  })

  it("lets at most 10 addresses wait", () => {
    const book = makeBook()
    const waiting = new Set<string>()
    for (let i = 1; i < 256; i++) {
      book.add([at(i)], source, start)
      book.good(at(i), start)
    }
    for (let i = 0; i < 1_000; i++) waiting.add(textOf(book.collision())!)
    assert.isAtMost(waiting.size, 10)
    assert.isAbove(waiting.size, 5)
    assert.isUndefined(book.check())
  })
})
