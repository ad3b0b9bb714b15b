/** The address book against a slow, obvious model of it, and the chances with which it draws. */
import { assert, describe, it } from "@effect/vitest"
import * as Address from "../../src/Address.ts"
import { runScript } from "../support/bookScripts.ts"
import { host, makeBook, minute, randomOf, start, textOf, told } from "../support/books.ts"

describe("random scripts", () => {
  for (let seed = 1; seed <= 6; seed++) {
    it(`leave the book and its model with the same addresses at the same places, seed ${seed}`, () => {
      const { added, moved, restarts, waited } = runScript(seed, 1_500, 250)
      assert.isAbove(added, 300)
      assert.isAbove(moved, 50)
      assert.isAbove(waited, 0)
      assert.isAbove(restarts, 3)
    })
  }
})

describe("drawing", () => {
  const source = host("252.2.2.2")

  it("gives each bucket of a table the same chance, and each table half", () => {
    const book = makeBook({ random: randomOf(4) })
    // One group is one bucket for a source: 20 addresses in one, and one in each of 4 others.
    for (let i = 1; i <= 20; i++) book.add([told(`250.1.1.${i}`, start)], source, start)
    for (let i = 2; i <= 5; i++) book.add([told(`250.${i}.1.1`, start)], source, start)
    const buckets = new Set(Object.keys(book.entries().new).map((place) => place.split("/")[0]))
    assert.strictEqual(buckets.size, 5)
    book.add([told("9.9.9.9:1", start)], source, start)
    book.good(told("9.9.9.9:1"), start - 60 * minute)
    const draws = 20_000
    const counts = new Map<string, number>()
    for (let i = 0; i < draws; i++) {
      const text = textOf(book.select(start))!
      const name = text.startsWith("250.1.") ? "250.1" : text
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    assert.closeTo(counts.get("9.9.9.9:1")! / draws, 1 / 2, 0.02)
    assert.closeTo(counts.get("250.1")! / draws, 1 / 10, 0.01)
    for (let i = 2; i <= 5; i++) assert.closeTo(counts.get(`250.${i}.1.1:0`)! / draws, 1 / 10, 0.01)
  })

  it("has the distribution of Core's search through all buckets, with failures and networks", () => {
    const book = makeBook({ random: randomOf(5) })
    const names = [
      ...Array.from({ length: 12 }, (_, i) => `250.${i % 4}.1.${i + 1}:1`),
      "[2a01:1::1]:1",
      "[2a01:2::1]:1"
    ]
    for (const [index, name] of names.entries()) {
      book.add([told(name, start)], source, start)
      for (let failures = 0; failures < index % 5; failures++) {
        book.good(told("1.1.1.1:1"), start - 60 * minute + failures * minute)
        book.attempt(told(name), true, start - 60 * minute + failures * minute - 1_000)
      }
    }
    book.attempt(told(names[3]!), false, start - minute)
    const networks = new Set(["ipv4"] as const)
    /** The addresses of the network by bucket and position, with their chances. */
    const places = Array.from(
      { length: 1_024 * 64 },
      (): { readonly text: string; readonly chance: number } | undefined => undefined
    )
    for (const [place, { address: text, network, port }] of Object.entries(book.entries().new)) {
      if (network !== "ipv4") continue
      const [bucket, position] = place.split("/").map(Number)
      const { attempts, lastTry } = book.find(told(`${text}:${port}`))!
      const chance = (start - lastTry < 10 * minute ? 0.01 : 1) * 0.66 ** Math.min(attempts, 8)
      places[bucket! * 64 + position!] = { text: `${text}:${port}`, chance }
    }
    const random = randomOf(6)
    /** Core's search, as it is written there. */
    const search = (): string => {
      for (let factor = 1; ; factor *= 1.2) {
        let found = places[-1]
        while (found === undefined) {
          const bucket = random.below(1_024)
          const first = random.below(64)
          for (let i = 0; i < 64 && found === undefined; i++) found = places[bucket * 64 + ((first + i) % 64)]
        }
        if (random.next() < factor * found.chance) return found.text
      }
    }
    const draws = 6_000
    const share = (draw: () => string): ReadonlyMap<string, number> => {
      const counts = new Map<string, number>()
      for (let i = 0; i < draws; i++) {
        const text = draw()
        counts.set(text, (counts.get(text) ?? 0) + 1 / draws)
      }
      return counts
    }
    const theirs = share(search)
    const ours = share(() => textOf(book.select(start, { networks }))!)
    for (const name of names) assert.closeTo(ours.get(name) ?? 0, theirs.get(name) ?? 0, 0.025, name)
  })

  it("ends even if every address failed often and was tried just now", () => {
    const book = makeBook()
    for (let i = 1; i <= 5; i++) {
      book.add([told(`250.${i}.1.1`, start)], source, start)
      for (let failures = 0; failures < 20; failures++) {
        book.good(told("1.1.1.1:1"), start + failures * 1_000)
        book.attempt(told(`250.${i}.1.1`), true, start + failures * 1_000 - 500)
      }
    }
    for (let i = 0; i < 500; i++) assert.isDefined(book.select(start + 20_000))
  })

  it("gives each address the same chance to be told to others", () => {
    const book = makeBook({ random: randomOf(8) })
    for (let i = 1; i <= 20; i++) book.add([told(`250.1.1.${i}`, start)], source, start)
    const counts = new Map<string, number>()
    const rounds = 3_000
    for (let i = 0; i < rounds; i++) {
      const drawn = book.getAddresses(start, { maximum: 5 })
      assert.strictEqual(new Set(drawn.map((address) => Address.format(address))).size, 5)
      for (const address of drawn) counts.set(Address.format(address), (counts.get(Address.format(address)) ?? 0) + 1)
    }
    assert.strictEqual(counts.size, 20)
    for (const [text, count] of counts) assert.closeTo(count / rounds, 5 / 20, 0.04, text)
  })
})
