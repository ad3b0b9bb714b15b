import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Requests from "../src/peer/requests/tracker.ts"
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
  received,
  tx,
  txid,
  witnessFlag,
  wtxid
} from "./support/requests.ts"

describe("any sequence of asking, sending, receiving and cancelling", () => {
  const txs = [0, 1]
  const blocks = [0, 1]
  const items: ReadonlyArray<Wire.InventoryItem> = [
    ...txs.flatMap((n) => [item(1, txid(n)), item(1 | witnessFlag, txid(n)), item(5, wtxid(n))]),
    ...blocks.flatMap((n) => [2, 2 | witnessFlag, 3, 4].map((type) => item(type, blockHash(n))))
  ]
  const keyOf = ({ hash, type }: Wire.InventoryItem): string => `${type} ${Wire.hashToHex(hash)}`
  const locators = [[1], [2], [1, 2], [3, 2]]
  const asked: ReadonlyArray<Wire.GetHeaders | Wire.GetBlocks | Wire.Mempool | Wire.GetAddr | Wire.GetBlockTxn> = [
    ...locators.map((numbers) => getheaders(numbers.map(hash), blockHash(9))),
    getblocks(1),
    getblocks(2),
    { _tag: "mempool" },
    { _tag: "getaddr" },
    getblocktxn(0, 1),
    getblocktxn(0, 2, 3),
    getblocktxn(1, 1)
  ]
  /** getblocktxn is answered in turn with getdata. */
  const lineOf = (kind: string): string => (kind === "getblocktxn" ? "getdata" : kind)

  /** A message with what it answers: items in groups of which it answers the first that is asked, or a kind and where. */
  interface Incoming {
    readonly message: Wire.Message
    readonly groups?: ReadonlyArray<ReadonlyArray<string>>
    readonly kind?: string
    readonly fits?: (key: string) => boolean
    /** The block of which the transactions come, and whether it comes whole. */
    readonly transactionsOf?: Uint8Array
    readonly whole?: boolean
  }
  const isOf = (hash: Uint8Array) => (key: string) => {
    const message = asked[Number(key)]
    return message._tag === "getblocktxn" && Wire.hashToHex(message.blockHash) === Wire.hashToHex(hash)
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
    ...blocks.flatMap((n) =>
      [false, true].map((witness) => ({
        message: block(n, witness),
        groups: [pair(2, blockHash(n), witness), [key(4, blockHash(n))]],
        transactionsOf: blockHash(n),
        whole: true
      }))
    ),
    ...blocks.flatMap((n) => [
      { message: cmpctblock(n), groups: [[key(4, blockHash(n))]] },
      { message: filteredBlock(n), groups: [[key(3, blockHash(n))]] },
      { message: blocktxn(n), transactionsOf: blockHash(n) }
    ]),
    ...items.map((it) => ({ message: notfound(it), groups: [[keyOf(it), key(it.type ^ witnessFlag, it.hash)]] })),
    { message: tx(9) },
    { message: headers(), ...all },
    { message: headers(header(0, genesisHash)), ...all },
    { message: headers(header(9)), ...all },
    { message: headers(header(0, hash(1))), ...answersLocator(1) },
    { message: headers(header(0, hash(2)), header(1)), ...answersLocator(2) },
    { message: headers(header(0, hash(4))) },
    { message: inv(2, 2), kind: "getblocks" },
    { message: inv(5, 1), kind: "mempool" },
    { message: inv(1, 2) },
    { message: addr(1), kind: "lonely" },
    { message: addr(2), kind: "getaddr" }
  ]

  interface Known {
    readonly kind: string
    readonly key: string
    readonly waiters: Array<number>
    order: number
    writtenAt: number
    unwritten: boolean
    abandoned: boolean
  }

  /** The rules, with lists that are searched from end to end. */
  class Model {
    readonly known: Array<Known> = []
    readonly told: Array<string> = []
    readonly answered: Array<{ readonly kind: string; readonly order: number; readonly at: number }> = []
    lonely: Wire.Message | undefined
    order = 0

    find(kind: string, key: string): Known | undefined {
      return this.known.find((one) => one.kind === kind && one.key === key)
    }
    drop(one: Known): void {
      this.known.splice(this.known.indexOf(one), 1)
    }
    oldest(kind: string, fits: (key: string) => boolean = () => true): Known | undefined {
      return this.known
        .filter((one) => one.kind === kind && one.order > 0 && fits(one.key))
        .toSorted((a, b) => a.order - b.order)[0]
    }
    ask(kind: string, key: string, waiter: number): { readonly one: Known; readonly toSend: boolean } {
      const before = this.find(kind, key)
      const one = before ?? { kind, key, waiters: [], order: 0, writtenAt: 0, unwritten: true, abandoned: false }
      if (before === undefined) this.known.push(one)
      const toSend = before === undefined || one.abandoned
      if (toSend) Object.assign(one, { unwritten: true, abandoned: false })
      one.waiters.push(waiter)
      return { one, toSend }
    }
    written(kind: string, key: string, now: number): void {
      if (kind === "getaddr" && this.oldest(kind) === undefined) this.lonely = undefined
      const stalls = lineOf(kind) === "getdata" || kind === "getheaders"
      if (this.find(kind, key) === undefined && stalls) this.ask(kind, key, -1).one.waiters.pop()
      const one = this.find(kind, key)
      if (one === undefined) return
      Object.assign(one, { unwritten: false, abandoned: false })
      if (one.order === 0) Object.assign(one, { order: ++this.order, writtenAt: now })
    }
    answer(one: Known, what: string, now: number): void {
      this.drop(one)
      if (one.order > 0) this.answered.push({ kind: one.kind, order: one.order, at: now })
      for (const waiter of one.waiters) this.told.push(`${waiter} ${what}`)
    }
    receive({ fits, groups, kind, message, transactionsOf, whole }: Incoming, what: string, now: number): boolean {
      if (kind === "lonely") {
        if (this.oldest("getaddr") !== undefined) this.lonely = message
        return false
      }
      const answered = (groups ?? []).map((keys) => keys.map((key) => this.find("getdata", key)).find((one) => one))
      if (kind !== undefined) answered.push(this.oldest(kind, fits))
      for (const one of answered) if (one !== undefined) this.answer(one, what, now)
      for (let all = transactionsOf !== undefined; all; all = whole === true) {
        const one = this.oldest("getblocktxn", isOf(transactionsOf!))
        if (one === undefined) break
        answered.push(one)
        this.answer(one, what, now)
      }
      return answered.some((one) => one !== undefined)
    }
    cancel(ones: ReadonlyArray<Known>, waiter: number): void {
      for (const one of ones) {
        const at = one.waiters.indexOf(waiter)
        if (!this.known.includes(one) || at < 0) continue
        one.waiters.splice(at, 1)
        if (one.waiters.length > 0) continue
        if (one.order > 0 && (lineOf(one.kind) === "getdata" || one.kind === "getheaders")) {
          Object.assign(one, { abandoned: true, unwritten: false })
        } else this.drop(one)
      }
    }
    needed(one: Known): boolean {
      return this.known.includes(one) && one.waiters.length > 0 && one.unwritten
    }
    overdue(now: number): string | undefined {
      const late = this.known
        .filter(({ kind, order }) => order > 0 && (kind === "getheaders" || lineOf(kind) === "getdata"))
        .map((one) => {
          const before = this.answered.filter(
            ({ kind, order }) => lineOf(kind) === lineOf(one.kind) && order < one.order
          )
          return { one, since: Math.max(one.writtenAt, ...before.map(({ at }) => at)) }
        })
        .filter(({ one, since }) => now - since >= (one.kind === "getheaders" ? 90_000 : 30_000))
        .toSorted(
          (a, b) =>
            a.since - b.since || lineOf(b.one.kind).localeCompare(lineOf(a.one.kind)) || a.one.order - b.one.order
        )[0]
      if (late === undefined) return undefined
      const { key, kind } = late.one
      const message = asked[Number(key)]
      const hash =
        kind === "getdata"
          ? key.split(" ")[1]
          : message?._tag === "getblocktxn"
            ? Wire.hashToHex(message.blockHash)
            : ""
      return `${kind} ${hash} ${now - late.since}`
    }
  }

  const operation = Arbitrary.all([integer(0, 17), integer(0, 0xffff), integer(0, 0xffff)])

  it.prop(
    "does as a naive model",
    [Arbitrary.array(operation, { maxLength: 150 })],
    ([operations]) => {
      const machine = make()
      const model = new Model()
      const told: Array<string> = []
      const names = new Map<unknown, string>(incoming.map(({ message }, index) => [message, `message ${index}`]))
      const nameOf = (message: Wire.Message): string => names.get(message) ?? "empty"
      const handles: Array<{
        readonly ones: ReadonlyArray<Known>
        readonly mine: ReadonlyArray<Known>
        readonly unsent: Array<Wire.Message>
        readonly cancel: () => unknown
        readonly nothingMore: ((now: number) => void) | undefined
      }> = []
      let now = 0

      const send = (message: Wire.Message): void => {
        Requests.sent(machine, message, now)
        if (message._tag === "getdata") for (const one of message.items) model.written("getdata", keyOf(one), now)
        else for (const [at, one] of asked.entries()) if (one === message) model.written(one._tag, `${at}`, now)
      }
      const askItems = (wanted: ReadonlyArray<Wire.InventoryItem>): void => {
        const waiter = handles.length
        const question = Requests.askData(machine, wanted, (index, answer) => {
          told.push(`${waiter} ${answer._tag === "Found" ? nameOf(answer.message) : "not found"}`)
          assert.isBelow(index, wanted.length)
        })
        const joined = wanted.map((one) => model.ask("getdata", keyOf(one), waiter))
        assert.deepStrictEqual(
          question.toSend,
          wanted.filter((_, index) => joined[index].toSend)
        )
        const mine = joined.filter(({ toSend }) => toSend).map(({ one }) => one)
        handles.push({
          ones: joined.map(({ one }) => one),
          mine,
          unsent: mine.length > 0 ? [getdata(...question.toSend)] : [],
          cancel: () => question.cancel().map(keyOf),
          nothingMore: undefined
        })
      }
      const askOne = (at: number): void => {
        const waiter = handles.length
        const message = asked[at]
        const answered = (answer: Wire.Message): void => void told.push(`${waiter} ${nameOf(answer)}`)
        const question =
          message._tag === "getheaders"
            ? { ...Requests.askHeaders(machine, message, answered), nothingMore: undefined }
            : message._tag === "getaddr"
              ? Requests.askAddresses(machine, answered)
              : message._tag === "getblocktxn"
                ? { ...Requests.askBlockTransactions(machine, message, answered), nothingMore: undefined }
                : Requests.askInventory(machine, message, answered)
        const { one, toSend } = model.ask(message._tag, `${at}`, waiter)
        assert.strictEqual(question.toSend, toSend)
        handles.push({
          ones: [one],
          mine: toSend ? [one] : [],
          unsent: toSend ? [message] : [],
          cancel: () => (question.cancel() ? [`${at}`] : []),
          nothingMore: question.nothingMore
        })
      }

      for (const [kind, a, b] of operations) {
        const handle = handles.at(a % Math.max(1, handles.length))
        if (kind <= 2)
          askItems(Array.from({ length: 1 + (b % 4) }, (_, index) => items[(a + index * b) % items.length]))
        else if (kind <= 4) askOne(a % asked.length)
        else if (kind <= 7) for (const message of handle?.unsent.splice(0) ?? []) send(message)
        else if (kind === 8) send(b % 2 === 0 ? getdata(items[a % items.length]) : asked[a % asked.length])
        else if (kind <= 12) {
          const one = incoming[a % incoming.length]
          const answers = model.receive(one, one.message._tag === "notfound" ? "not found" : nameOf(one.message), now)
          assert.strictEqual(received(machine, one.message, now), answers)
        } else if (kind === 13 && handle !== undefined) {
          const waiter = handles.indexOf(handle)
          model.cancel(handle.ones, waiter)
          const needed = handle.mine.filter((one) => model.needed(one)).map(({ key }) => key)
          assert.deepStrictEqual(handle.cancel(), needed)
        } else if (kind === 14 && handle?.nothingMore !== undefined) {
          const [one] = handle.ones
          const lonely = one.kind === "getaddr" && model.lonely !== undefined ? nameOf(model.lonely) : "empty"
          if (model.known.includes(one) && one.order > 0) model.answer(one, lonely, now)
          handle.nothingMore(now)
        } else if (kind <= 16) now += a % 20_000
        else if (kind === 17 && b % 8 === 0) {
          model.known.length = 0
          Requests.end(machine)
        }

        assert.deepStrictEqual(told, model.told)
        assert.strictEqual(Requests.size(machine), model.known.length)
        const late = Requests.overdue(machine, now)
        assert.strictEqual(
          late && `${late.command} ${late.hash ? Wire.hashToHex(late.hash) : ""} ${late.waited}`,
          model.overdue(now)
        )
      }
    },
    // Without a size a run has ten operations at most.
    { arbitrary: { runs: 1_000, seed: 8, size: 150 } }
  )
})
