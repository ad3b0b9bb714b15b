/** Speed and memory of the address book, at its largest: 65,536 places for new addresses and 16,384 for tried ones. */
import * as Result from "effect/Result"
import { Network, type Wire } from "../src/index.ts"
import * as AddressBook from "../src/server/AddressBook.ts"
import { makeRandom } from "../src/server/internal/random.ts"
import { duration, measure, printTable, quantile, row, verdict, wanted } from "./harness.ts"

const us = "effect-bitcoin-peer"
const now = 1_795_800_000_000
const random = makeRandom(new Uint8Array(16).fill(7))
const options = { network: Network.mainnet, random }

const address = (): Wire.AddressV2 => ({
  networkId: 1,
  address: Uint8Array.of(20 + random.below(70), random.below(256), random.below(256), random.below(256)),
  port: 8_333,
  services: 1_033n,
  timestamp: Math.floor(now / 1_000) - random.below(20 * 86_400)
})
const source = () => ({ networkId: 1, address: Uint8Array.of(20 + random.below(70), random.below(256), 1, 1) })

/** A book whose tables are full but for the last places, which random addresses do not find. */
const fill = (): AddressBook.Book => {
  const book = AddressBook.make({ ...options, key: new Uint8Array(32).fill(5) })
  const { stats } = book
  for (let i = 0; i < 160_000 && stats().all_networks.tried < 16_300; i++) {
    const one = address()
    if (book.add([one], source(), now) > 0) book.good(one, now - 5 * 3_600_000)
  }
  for (let i = 0; i < 160 && stats().all_networks.new < 65_400; i++) {
    for (let j = 0; j < 1_000; j++) book.add([address()], source(), now)
  }
  return book
}

/** Megabytes of the heap and of the buffers outside of it. */
const memory = async (): Promise<number> => {
  // One collection leaves buffers whose objects it has only just found dead.
  for (let i = 0; i < 4; i++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return (heapUsed + arrayBuffers) / 1e6
}

/** Milliseconds of one run, in each round. */
const timesOf = async (title: string, run: () => unknown, times: number): Promise<number> => {
  const [samples = []] = await measure(title, [{ name: us, run }], { rounds: 9, sampleTime: 100, warmTime: 500 })
  return quantile(samples, 0.5) / times
}

/** A row with the time of one run, which should be at most so many milliseconds. */
const ask = async (title: string, run: () => unknown, target: number | undefined, times = 1): Promise<void> => {
  if (!wanted(title)) return
  const time = await timesOf(title, run, times)
  const text = target === undefined ? "" : verdict(time, target, `≤ ${duration(target)}`, true)
  row(title, us, duration(time), "", "", text)
}

const before = await memory()
const book = fill()
const used = (await memory()) - before
const { all_networks: all } = book.stats()
row(
  `memory of a full book (${all.new} new, ${all.tried} tried)`,
  us,
  `${used.toFixed(1)} MB`,
  "",
  "",
  verdict(used, 20, "≤ 20 MB", true)
)

const bytes = book.serialize()
const processor = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1_000
}
const began = processor()
Result.getOrThrow(AddressBook.parse(bytes, now, options))
const first = processor() - began
row("load a full book, the first time in a process", us, duration(first), "", "", verdict(first, 300, "≤ 300 ms", true))
await ask("load a full book, again", () => Result.getOrThrow(AddressBook.parse(bytes, now, options)).lost, 300)
await ask("serialize a full book", () => book.serialize().length, undefined)

/** More lists than a book could remember. */
const lists = Array.from({ length: 200 }, () => ({ list: Array.from({ length: 1_000 }, address), from: source() }))
let next = 0
const addNext = (to: AddressBook.Book): number => {
  const { from, list } = lists[next++ % lists.length]!
  return to.add(list, from, now, 7_200)
}
await ask("add 1,000 addresses of one source to a full book", () => addNext(book) >= 0, 10)
await ask("add 1,000 addresses of one source to an empty book", () => addNext(AddressBook.make(options)) > 0, 10)

const draws = 1_000
const draw = (options?: AddressBook.SelectOptions) => () => {
  for (let i = 0; i < draws; i++) book.select(now, options)
}
await ask("select from a full book", draw(), 0.005, draws)
await ask(
  "select from its new table, IPv4 and onion",
  draw({ newOnly: true, networks: new Set(["ipv4", "onion"]) }),
  0.005,
  draws
)
await ask(
  "1,000 addresses and 23 % of a full book, for an answer",
  () => book.getAddresses(now, { maximum: 1_000, percent: 23 }).length,
  undefined
)
printTable("book")
