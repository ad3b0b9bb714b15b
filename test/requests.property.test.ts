/** The tracker of requests does as a naive model does, whatever is asked, written, received and left. */
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import type { Question } from "../src/peer/requests/tracker.ts"
import * as Wire from "../src/Wire.ts"
import { integer } from "./support/generators.ts"
import {
  addr,
  block,
  blockHash,
  blocktxn,
  cmpctblock,
  filteredBlock,
  genesisHash,
  getblocks,
  getblocktxn,
  getdata,
  getheaders,
  hash,
  header,
  headers,
  inv,
  item,
  make,
  notfound,
  ping,
  pong,
  received,
  tx,
  txid,
  witnessFlag,
  wtxid
} from "./support/requests.ts"

describe("any sequence of asking, writing, receiving and leaving", () => {
  const txs = [0, 1]
  const blocks = [0, 1]
  const items: ReadonlyArray<Wire.InventoryItem> = [
    ...txs.flatMap((n) => [item(1, txid(n)), item(1 | witnessFlag, txid(n)), item(5, wtxid(n))]),
    ...blocks.flatMap((n) => [2, 2 | witnessFlag, 3, 4].map((type) => item(type, blockHash(n)))),
    item(77, hash(1))
  ]
  const keyOf = ({ hash, type }: Wire.InventoryItem): string => `${type} ${Wire.hashToHex(hash)}`
  const locators = [[1], [2], [1, 2], [3, 2]]
  const questions: ReadonlyArray<Question> = [
    ...locators.map((numbers) => getheaders(numbers.map(hash), blockHash(9))),
    getblocks(1),
    getblocks(2),
    { _tag: "getaddr" },
    getblocktxn(0, 1),
    getblocktxn(0, 2, 3),
    getblocktxn(1, 1)
  ]

  /** A message, and the requests that it answers. */
  interface Incoming {
    readonly message: Wire.Message
    /** Keys of items, in groups: it answers the first open one of each group. */
    readonly groups?: ReadonlyArray<ReadonlyArray<string>>
    /** The kind of question of which it answers the oldest that fits. */
    readonly kind?: string
    readonly fits?: (key: string) => boolean
    /** It answers nothing, but may be the answer. */
    readonly isCandidate?: boolean
    /** The block whose transactions come, and how many; all of them come where there is no number. */
    readonly transactionsOf?: Uint8Array
    readonly count?: number
  }
  const isOf = (hash: Uint8Array) => (key: string) => {
    const message = questions[Number(key)]
    return message._tag === "getblocktxn" && Wire.hashEquals(message.blockHash, hash)
  }
  const key = (type: number, hash: Uint8Array): string => keyOf(item(type, hash))
  const pair = (type: number, hash: Uint8Array, witness: boolean): Array<string> =>
    witness ? [key(type | witnessFlag, hash), key(type, hash)] : [key(type, hash), key(type | witnessFlag, hash)]
  const answersLocator = (...numbers: ReadonlyArray<number>) => ({
    kind: "getheaders",
    fits: (key: string) => locators[Number(key)].some((number) => numbers.includes(number))
  })
  const all = { kind: "getheaders", fits: () => true }
  const incoming: ReadonlyArray<Incoming> = [
    ...txs.flatMap((n) => [
      { message: tx(n), groups: [pair(1, txid(n), false)] },
      { message: tx(n, true), groups: [pair(1, txid(n), true), [key(5, wtxid(n))]] }
    ]),
    ...blocks.flatMap((n) => [
      // Without its witnesses it answers the request without them alone.
      { message: block(n), groups: [[key(2, blockHash(n))]] },
      {
        message: block(n, true),
        groups: [pair(2, blockHash(n), true), [key(4, blockHash(n))]],
        transactionsOf: blockHash(n)
      }
    ]),
    ...blocks.flatMap((n) => [
      { message: cmpctblock(n), groups: [[key(4, blockHash(n))]] },
      { message: filteredBlock(n), groups: [[key(3, blockHash(n))]] }
    ]),
    ...blocks.flatMap((n) =>
      [1, 2].map((count) => ({
        message: blocktxn(n, ...Array.from({ length: count }, () => tx(1).transaction)),
        transactionsOf: blockHash(n),
        count
      }))
    ),
    ...items.map((it) => ({ message: notfound(it), groups: [[keyOf(it), key(it.type ^ witnessFlag, it.hash)]] })),
    { message: tx(9) },
    { message: headers(), ...all },
    { message: headers(header(0, genesisHash)), ...all },
    { message: headers(header(9)), ...all },
    { message: headers(header(0, hash(1))), ...answersLocator(1) },
    { message: headers(header(0, hash(2)), header(1, Wire.blockHash(header(0, hash(2))))), ...answersLocator(2) },
    { message: headers(header(0, hash(4))), ...answersLocator() },
    { message: inv(2, 2), kind: "getblocks" },
    { message: inv(2), kind: "getblocks", isCandidate: true },
    { message: inv(5, 1) },
    { message: inv(1, 2) },
    { message: addr(1), kind: "getaddr", isCandidate: true },
    { message: addr(2), kind: "getaddr" }
  ]

  interface Known {
    readonly kind: string
    readonly key: string
    readonly waiters: Array<number>
    order: number
    times: number
    writtenAt: number
    candidate: string | undefined
  }

  /** The rules, with lists that are searched from end to end. */
  class Model {
    readonly answersPings: boolean
    readonly known: Array<Known> = []
    readonly told: Array<string> = []
    readonly closed: Array<{ readonly order: number; readonly at: number }> = []
    pings: Array<{ readonly nonce: bigint; readonly order: number; readonly at: number }> = []
    order = 0

    constructor(answersPings: boolean) {
      this.answersPings = answersPings
    }

    timeoutOf(kind: string, key: string): number {
      if (kind === "getaddr") return Infinity
      if (kind === "getheaders") return 90_000
      const isAnswered = kind !== "getblocks" && !key.startsWith("77 ")
      return this.answersPings || isAnswered ? 30_000 : Infinity
    }
    find(kind: string, key: string): Known | undefined {
      return this.known.find((one) => one.kind === kind && one.key === key)
    }
    drop(one: Known): void {
      this.known.splice(this.known.indexOf(one), 1)
    }
    written(kind: string): Array<Known> {
      return this.known
        .filter((one) => one.kind === kind && one.order > 0)
        .toSorted((one, other) => one.order - other.order)
    }
    line(): Array<Known> {
      return this.known
        .filter(({ key, kind, order }) => order > 0 && this.timeoutOf(kind, key) < Infinity)
        .toSorted((one, other) => one.order - other.order)
    }
    ask(kind: string, key: string, waiter: number): { readonly one: Known; readonly isNew: boolean } {
      const before = this.find(kind, key)
      const one = before ?? { kind, key, waiters: [], order: 0, times: 0, writtenAt: 0, candidate: undefined }
      if (before === undefined) this.known.push(one)
      one.waiters.push(waiter)
      return { one, isNew: before === undefined }
    }
    write(kind: string, key: string, now: number): void {
      if (this.find(kind, key) === undefined && this.timeoutOf(kind, key) < Infinity) {
        this.ask(kind, key, -1).one.waiters.pop()
      }
      const one = this.find(kind, key)
      if (one !== undefined) one.times++
      if (one?.order === 0) Object.assign(one, { order: ++this.order, writtenAt: now })
    }
    writePing(nonce: bigint, now: number): void {
      if (this.line().length === 0) this.pings = []
      else this.pings.push({ nonce, order: this.order, at: now })
    }
    answer(one: Known, what: string, now: number): void {
      if (this.line().includes(one)) this.closed.push({ order: one.order, at: now })
      this.drop(one)
      for (const waiter of one.waiters) this.told.push(`${waiter} ${what}`)
    }
    receive(
      { fits = () => true, groups, isCandidate, kind, transactionsOf, count }: Incoming,
      what: string,
      now: number
    ) {
      for (const keys of groups ?? []) {
        const one = keys.map((key) => this.find("getdata", key)).find((one) => one)
        if (one !== undefined) this.answer(one, what, now)
      }
      if (kind !== undefined) {
        const written = this.written(kind)
        const one = written.find(({ key }) => fits(key))
        if (isCandidate === true) {
          if (one !== undefined) one.candidate = what
        } else if (one !== undefined) this.answer(one, what, now)
        else for (const unfit of written) unfit.candidate = what
      }
      if (transactionsOf === undefined) return
      const wanted = this.written("getblocktxn").filter(({ key }) => isOf(transactionsOf)(key))
      if (count === undefined) for (const one of wanted) this.answer(one, what, now)
      else if (wanted[0] !== undefined) this.answerTransactions(wanted[0], count, what, now)
    }
    /** Each time that a request was written is answered. */
    answerTransactions(one: Known, count: number, what: string, now: number): void {
      const message = questions[Number(one.key)]
      if (message._tag !== "getblocktxn" || message.indexes.length !== count) return
      if (--one.times === 0) return this.answer(one, what, now)
      for (const waiter of one.waiters.splice(0)) this.told.push(`${waiter} ${what}`)
    }
    pong(nonce: bigint, now: number): void {
      const ping = this.pings.find((one) => one.nonce === nonce)
      if (ping === undefined) return
      this.pings = this.pings.filter(({ order }) => order > ping.order)
      for (const one of this.line().filter(({ order }) => order <= ping.order)) {
        const what =
          one.kind === "getheaders"
            ? one.candidate === undefined
              ? "NoAnswer"
              : "DoesNotConnect"
            : one.kind === "getblocks"
              ? (one.candidate ?? "NoAnswer")
              : "NotFound"
        this.answer(one, what, now)
      }
    }
    leave(ones: ReadonlyArray<Known>, waiter: number): void {
      for (const one of ones) {
        const at = one.waiters.indexOf(waiter)
        if (!this.known.includes(one) || at < 0) continue
        one.waiters.splice(at, 1)
        if (one.waiters.length === 0 && !this.line().includes(one)) this.drop(one)
      }
    }
    isUnsent(one: Known): boolean {
      return this.known.includes(one) && one.waiters.length > 0 && one.order === 0
    }
    overdue(now: number): string | undefined {
      const [oldest] = this.line()
      if (oldest === undefined) return undefined
      const { key, kind, order, writtenAt } = oldest
      const before = this.closed.filter((one) => one.order < order).map(({ at }) => at)
      const since = Math.max(writtenAt, ...before)
      const timeout = this.timeoutOf(kind, key)
      if (now - since < timeout) return undefined
      if (this.answersPings) {
        const ping = this.pings.find((one) => one.order >= order)
        if (ping === undefined) return "Ping"
        if (now - ping.at < timeout) return undefined
      }
      const message = questions[Number(key)]
      const hashOfIt =
        kind === "getdata"
          ? key.split(" ")[1]
          : message?._tag === "getblocktxn"
            ? Wire.hashToHex(message.blockHash)
            : ""
      return `${kind} ${hashOfIt} ${now - since}`
    }
  }

  const operation = Arbitrary.all([integer(0, 19), integer(0, 0xffff), integer(0, 0xffff)])

  it.prop(
    "gives the same answers to the same callers, and finds the same stalls",
    [Arbitrary.all([integer(0, 3), Arbitrary.array(operation, { maxLength: 150 })])],
    ([[version, operations]]) => {
      const answersPings = version > 0
      const tracker = make(answersPings)
      const model = new Model(answersPings)
      const told: Array<string> = []
      const names = new Map<unknown, string>(incoming.map(({ message }, index) => [message, `message ${index}`]))
      const handles: Array<{
        readonly ones: ReadonlyArray<Known>
        readonly mine: ReadonlyArray<Known>
        readonly unsent: Array<Wire.Message>
        readonly leave: () => unknown
      }> = []
      let now = 0
      let nonces = 0n

      const write = (message: Wire.Message): void => {
        tracker.sent(message, now)
        if (message._tag === "getdata") for (const one of message.items) model.write("getdata", keyOf(one), now)
        else for (const [at, one] of questions.entries()) if (one === message) model.write(one._tag, `${at}`, now)
      }
      const askItems = (wanted: ReadonlyArray<Wire.InventoryItem>): void => {
        const waiter = handles.length
        const { leave, newItems } = tracker.askItems(wanted, (index, outcome) => {
          told.push(`${waiter} ${outcome._tag === "Found" ? names.get(outcome.message) : outcome._tag}`)
          assert.isBelow(index, wanted.length)
        })
        const joined = wanted.map((one) => model.ask("getdata", keyOf(one), waiter))
        assert.deepStrictEqual(
          newItems,
          wanted.filter((_, index) => joined[index].isNew)
        )
        handles.push({
          ones: joined.map(({ one }) => one),
          mine: joined.filter(({ isNew }) => isNew).map(({ one }) => one),
          unsent: newItems.length > 0 ? [getdata(...newItems)] : [],
          leave: () => leave().map(keyOf)
        })
      }
      const askOne = (at: number): void => {
        const waiter = handles.length
        const message = questions[at]
        const { isNew, leave } = tracker.ask(message, (outcome) => {
          told.push(`${waiter} ${outcome._tag === "Found" ? names.get(outcome.message) : outcome._tag}`)
        })
        const joined = model.ask(message._tag, `${at}`, waiter)
        assert.strictEqual(isNew, joined.isNew)
        handles.push({
          ones: [joined.one],
          mine: isNew ? [joined.one] : [],
          unsent: isNew ? [message] : [],
          leave: () => (leave() ? [`${at}`] : [])
        })
      }

      for (const [kind, a, b] of operations) {
        const handle = handles.at(a % Math.max(1, handles.length))
        if (kind <= 2) {
          askItems(Array.from({ length: 1 + (b % 4) }, (_, index) => items[(a + index * b) % items.length]))
        } else if (kind <= 4) askOne(a % questions.length)
        else if (kind <= 7) for (const message of handle?.unsent.splice(0) ?? []) write(message)
        else if (kind === 8) write(b % 2 === 0 ? getdata(items[a % items.length]) : questions[a % questions.length])
        else if (kind <= 12) {
          const one = incoming[a % incoming.length]
          model.receive(one, one.message._tag === "notfound" ? "NotFound" : names.get(one.message)!, now)
          received(tracker, one.message, now)
        } else if (kind === 13 && handle !== undefined) {
          model.leave(handle.ones, handles.indexOf(handle))
          const unsent = handle.mine.filter((one) => model.isUnsent(one)).map(({ key }) => key)
          assert.deepStrictEqual(handle.leave(), unsent)
        } else if (kind === 14) {
          tracker.sent(ping(++nonces), now)
          model.writePing(nonces, now)
        } else if (kind === 15 && nonces > 0n) {
          // Mostly one of the last pings, in any order.
          const nonce = nonces - BigInt(b % 3)
          received(tracker, pong(nonce), now)
          model.pong(nonce, now)
        } else if (kind <= 18) now += a % 20_000
        else if (kind === 19 && b % 8 === 0) {
          model.known.length = 0
          model.pings = []
          tracker.end()
        }

        assert.deepStrictEqual(told, model.told)
        assert.strictEqual(tracker.size, model.known.length)
        const late = tracker.overdue(now)
        assert.strictEqual(
          late?._tag === "Stalled"
            ? `${late.command} ${late.hash ? Wire.hashToHex(late.hash) : ""} ${late.waited}`
            : late?._tag,
          model.overdue(now)
        )
      }
    },
    // Without a size a run has ten operations at most.
    { arbitrary: { runs: 1_000, seed: 8, size: 150 } }
  )
})
