/** Random scripts for the address book and its model, which must agree after each of them. */
import { assert } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import * as Network from "../../src/Network.ts"
import type { AddressV2 } from "../../src/Wire.ts"
import * as AddressBook from "../../src/server/AddressBook.ts"
import type { Random } from "../../src/server/internal/random.ts"
import { BookModel } from "./bookModel.ts"
import { host, start } from "./books.ts"
import { dice } from "./dice.ts"

/** Gives the same numbers to both, in each step from the start. */
const makeSteps = () => {
  const scripts = [dice(0), dice(0)]
  const random = (at: number): Random => ({
    next: () => scripts[at]!.below(2 ** 32) / 2 ** 32,
    below: (bound) => scripts[at]!.below(bound)
  })
  return {
    begin: (seed: number): void => {
      scripts[0] = dice(seed)
      scripts[1] = dice(seed)
    },
    book: random(0),
    model: random(1)
  }
}

const sources = ["250.1.2.1", "251.1.1.1", "9.9.9.9", "2a01::1", "10.0.0.1"].map(host)
const onion = (byte: number): Address.Address => ({
  networkId: Address.NetworkId.torV3,
  address: new Uint8Array(32).fill(byte),
  port: 8333
})

/** What the two know, in one form. */
const ofBook = (book: AddressBook.Book): unknown => {
  const { new: ofNew, tried } = book.entries()
  const rows = [
    ...Object.entries(ofNew).map(([place, entry]) => [`new ${place}`, entry] as const),
    ...Object.entries(tried).map(([place, entry]) => [`tried ${place}`, entry] as const)
  ]
  return rows.map(([place, { address, port }]) => {
    const entry = book.find({ ...host(address), port })!
    const { timestamp, services, ...of } = entry.address
    return [
      place,
      Address.format(of),
      Address.formatHost(entry.source),
      timestamp,
      services,
      entry.lastTry,
      entry.lastSuccess,
      entry.attempts
    ].join(" ")
  })
}
const ofModel = (model: BookModel): ReadonlyArray<string> =>
  Array.from(model.places, ([place, text]) => {
    const { attempts, lastSuccess, lastTry, services, source, time } = model.known.get(text)!
    return [
      place,
      text,
      Address.formatHost(source),
      time,
      services,
      lastTry * 1_000,
      lastSuccess * 1_000,
      attempts
    ].join(" ")
  })

const sorted = (texts: unknown): ReadonlyArray<string> => (texts as ReadonlyArray<string>).toSorted()

export interface Happened {
  readonly added: number
  readonly moved: number
  readonly waited: number
  readonly restarts: number
}

/** Runs a script of random steps on both, and compares them along the way. Returns how often what happened. */
export const runScript = (seed: number, steps: number, compareEvery: number): Happened => {
  const random = dice(seed)
  const shared = makeSteps()
  const key = random.bytes(32)
  const options = { network: Network.regtest, random: shared.book }
  let book = AddressBook.make({ ...options, key })
  const model = new BookModel(key, shared.model)
  let now = start
  const happened = { added: 0, moved: 0, waited: 0, restarts: 0 }

  // Few groups, so that places are taken.
  const address = (): Address.Address => {
    if (random.chance(0.05)) return onion(random.below(8))
    return { ...host(`${random.chance(0.9) ? 250 : 251}.1.${random.below(3)}.${random.below(120)}`), port: 8_333 }
  }
  const told = (): AddressV2 => {
    const age = random.pick([-20 * 60, 0, 600, 3 * 3_600, 86_400 * 2, 86_400 * 40])
    const timestamp = Math.floor(now / 1_000) - age - random.below(5_000)
    return { ...address(), services: random.pick([0n, 1n, 9n, 1_033n]), timestamp }
  }
  const act = (): void => {
    const seconds = Math.floor(now / 1_000)
    const choice = random.below(100)
    if (choice < 45) {
      const one = told()
      const source = random.chance(0.1) ? Address.canonical(one) : random.pick(sources)
      const penalty = random.pick([0, 7_200])
      const added = model.add(one, { networkId: source.networkId, address: source.address }, seconds, penalty)
      assert.strictEqual(book.add([one], source, now, penalty), added ? 1 : 0)
      if (added) happened.added++
    } else if (choice < 60) {
      const counts = random.chance(0.7)
      const one = address()
      book.attempt(one, counts, now)
      model.attempt(one, counts, seconds)
    } else if (choice < 78) {
      const one = address()
      const moved = model.good(one, seconds)
      assert.strictEqual(book.good(one, now), moved)
      if (moved) happened.moved++
      happened.waited = Math.max(happened.waited, model.waiting.length)
    } else if (choice < 84) {
      book.resolveCollisions(now)
      model.resolveCollisions(seconds)
    } else if (choice < 88) {
      const one = address()
      book.connected(one, now)
      model.connected(one, seconds)
    } else if (choice < 92) {
      const one = address()
      book.setServices(one, 1_033n)
      model.setServices(one, 1_033n)
    } else if (choice < 93) {
      const { book: restored, damage, lost } = Result.getOrThrow(AddressBook.parse(book.serialize(), now, options))
      assert.deepStrictEqual([damage, lost], [undefined, 0])
      assert.deepStrictEqual(restored.entries(), book.entries())
      book = restored
      model.restart()
      happened.restarts++
    } else now += random.pick([1_000, 61_000, 20 * 60_000, 5 * 3_600_000, 4 * 86_400_000])
  }

  for (let step = 1; step <= steps; step++) {
    shared.begin(random.below(2 ** 31))
    act()
    assert.strictEqual(book.size, model.known.size, `step ${step}`)
    if (step % compareEvery !== 0 && step !== steps) continue
    assert.deepStrictEqual(sorted(ofBook(book)), sorted(ofModel(model)), `step ${step}`)
    assert.isUndefined(book.check(), `step ${step}`)
    const collision = book.collision()
    assert.strictEqual(collision === undefined, model.waiting.length === 0, `step ${step}`)
  }
  return happened
}
