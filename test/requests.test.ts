import { afterEach, assert, describe, it } from "@effect/vitest"
import { vi } from "vitest"
import * as Requests from "../src/peer/requests/tracker.ts"
import * as Wire from "../src/Wire.ts"
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

const hashes = vi.hoisted(() => ({ count: 0 }))
vi.mock("../src/primitives/sha256.ts", async (original) => {
  const actual = await original<typeof import("../src/primitives/sha256.ts")>()
  return {
    ...actual,
    doubleSha256: (bytes: Uint8Array) => {
      hashes.count++
      return actual.doubleSha256(bytes)
    }
  }
})

/** Asks, says that the question was written, and collects the answers by index. */
const askData = (machine: Requests.Requests, items: ReadonlyArray<Wire.InventoryItem>, now = 0) => {
  const answers: Array<Requests.DataAnswer | undefined> = items.map(() => undefined)
  const question = Requests.askData(machine, items, (index, answer) => {
    assert.isUndefined(answers[index], "answered twice")
    answers[index] = answer
  })
  if (question.toSend.length > 0) Requests.sent(machine, getdata(...question.toSend), now)
  return { ...question, answers }
}
const found = (message: Wire.Message): Requests.DataAnswer => ({ _tag: "Found", message })
const foundFiltered = (message: Wire.Message, ...numbers: ReadonlyArray<number>): Requests.DataAnswer => ({
  _tag: "Found",
  message,
  transactions: numbers.map((number) => tx(number).transaction)
})
const notFound: Requests.DataAnswer = { _tag: "NotFound" }

const collect = <A>(): { readonly answers: Array<A>; readonly answered: (answer: A) => void } => {
  const answers: Array<A> = []
  return { answers, answered: (answer) => void answers.push(answer) }
}

afterEach(() => {
  hashes.count = 0
})

describe("data", () => {
  it("a tx answers for its own txid only, asked with witnesses or without", () => {
    for (const type of [1, 1 | witnessFlag]) {
      for (const message of [tx(1), tx(1, true)]) {
        const machine = make()
        const { answers } = askData(machine, [item(type, txid(1)), item(type, txid(2))])
        assert.isFalse(received(machine, tx(3), 0))
        assert.isTrue(received(machine, message, 0))
        assert.deepStrictEqual(answers, [found(message), undefined])
      }
    }
  })

  it("a tx asked for by wtxid is answered with that wtxid, not with its txid", () => {
    const machine = make()
    const { answers } = askData(machine, [item(5, wtxid(1)), item(5, txid(2))])
    received(machine, tx(1), 0)
    received(machine, tx(2, true), 0)
    assert.deepStrictEqual(answers, [undefined, undefined])
    received(machine, tx(1, true), 0)
    assert.deepStrictEqual(answers, [found(tx(1, true)), undefined])
  })

  it("one tx answers those who asked by txid and those who asked by wtxid", () => {
    const machine = make()
    const { answers } = askData(machine, [item(1, txid(1)), item(5, wtxid(1))])
    received(machine, tx(1, true), 0)
    assert.deepStrictEqual(answers, [found(tx(1, true)), found(tx(1, true))])
  })

  it("a block answers for its hash, asked with witnesses or without", () => {
    for (const type of [2, 2 | witnessFlag]) {
      const machine = make()
      const { answers } = askData(machine, [item(type, blockHash(1)), item(type, blockHash(2))])
      received(machine, block(2), 0)
      assert.deepStrictEqual(answers, [undefined, found(block(2))])
    }
  })

  it("with witnesses and without are two questions: the answer without is not for who wants them", () => {
    const wanted = [item(2 | witnessFlag, blockHash(1)), item(2, blockHash(1))]
    const cases = [
      [block(1), block(1, true)],
      [tx(1), tx(1, true)]
    ] as const
    for (const [without, withThem] of cases) {
      for (const order of [
        [without, withThem],
        [withThem, without]
      ]) {
        const machine = make()
        const items = without._tag === "tx" ? [item(1 | witnessFlag, txid(1)), item(1, txid(1))] : wanted
        const question = askData(machine, items)
        assert.lengthOf(question.toSend, 2)
        for (const message of order) received(machine, message, 0)
        assert.deepStrictEqual(question.answers, [found(withThem), found(without)])
      }
    }
  })

  it("the ancestors of a transaction are those behind which it comes last, and silence about them is no stall", () => {
    const machine = make()
    const { answers } = askData(machine, [item(7, wtxid(1)), item(7, wtxid(2))])
    assert.isUndefined(Requests.overdue(machine, 1_000_000))
    const info = (...wtxids: ReadonlyArray<Uint8Array>): Wire.AncPkgInfo => ({ _tag: "ancpkginfo", wtxids })
    assert.isFalse(received(machine, info(), 0))
    assert.isFalse(received(machine, info(wtxid(1), wtxid(3)), 0))
    assert.isTrue(received(machine, info(wtxid(1), wtxid(2)), 0))
    received(machine, notfound(item(7, wtxid(1))), 0)
    assert.deepStrictEqual(answers, [notFound, found(info(wtxid(1), wtxid(2)))])
  })

  it("a filtered block is answered by merkleblock, a compact one by cmpctblock or block", () => {
    const machine = make()
    const { answers } = askData(machine, [item(3, blockHash(1)), item(4, blockHash(1)), item(4, blockHash(2))])
    received(machine, cmpctblock(3), 0)
    assert.deepStrictEqual(answers, [undefined, undefined, undefined])
    received(machine, cmpctblock(1), 0)
    received(machine, block(2), 0)
    received(machine, block(1), 0)
    assert.deepStrictEqual(answers, [undefined, found(cmpctblock(1)), found(block(2))])
    received(machine, filteredBlock(2), 0)
    assert.isUndefined(answers[0])
    received(machine, filteredBlock(1), 0)
    assert.deepStrictEqual(answers[0], foundFiltered(filteredBlock(1)))
  })

  it("a filtered block is answered when the transactions that it proves have come behind it", () => {
    const machine = make()
    const merkleblock = filteredBlock(1, tx(1), tx(2))
    const { answers } = askData(machine, [item(3, Wire.blockHash(merkleblock.header)), item(1, txid(2))])
    assert.isTrue(received(machine, merkleblock, 0))
    for (const message of [tx(1), tx(9), tx(1), inv(1)]) received(machine, message, 0)
    assert.deepStrictEqual(answers, [undefined, undefined])
    received(machine, tx(2), 0)
    assert.deepStrictEqual(answers, [foundFiltered(merkleblock, 1, 2), found(tx(2))])
  })

  it("a filtered block is answered with the transactions that came when the next one comes, or the pong behind it", () => {
    const machine = make()
    const [first, second, third] = [1, 2, 3].map((number) => filteredBlock(number, tx(number), tx(number + 10)))
    const ask = (...messages: ReadonlyArray<Wire.MerkleBlock>) =>
      askData(
        machine,
        messages.map(({ header }) => item(3, Wire.blockHash(header)))
      )
    const one = ask(first, second)
    const another = ask(third, first)
    for (const message of [first, tx(11), second, tx(2)]) received(machine, message, 0)
    const ofFirst = foundFiltered(first, 11)
    assert.deepStrictEqual(
      [one.answers, another.answers],
      [
        [ofFirst, undefined],
        [undefined, ofFirst]
      ]
    )
    // Only the pong behind its own question says that nothing more comes.
    another.nothingMore()
    assert.isUndefined(one.answers[1])
    one.nothingMore()
    assert.deepStrictEqual(one.answers[1], foundFiltered(second, 2))
    received(machine, tx(12), 0)
    received(machine, third, 0)
    one.nothingMore()
    assert.isUndefined(another.answers[0])
    another.nothingMore()
    assert.deepStrictEqual(another.answers[0], foundFiltered(third))
  })

  it("a filtered block that proves nothing, or that nothing matches, waits for no transactions", () => {
    const machine = make()
    const proof = filteredBlock(1, tx(1))
    for (const message of [
      { ...proof, flags: Uint8Array.of(0) },
      { ...proof, transactionCount: 2 }
    ]) {
      const { answers } = askData(machine, [item(3, Wire.blockHash(proof.header))])
      received(machine, message, 0)
      assert.deepStrictEqual(answers, [foundFiltered(message)])
    }
  })

  it("a filtered block whose transactions do not come is no stall, and no more of them than a block holds are kept", () => {
    const machine = make()
    const large = [1, 2, 3, 4].map((number): Wire.Tx => {
      const outputs = [{ value: 0, script: new Uint8Array(1_500_000) }]
      return { _tag: "tx", transaction: { ...tx(number).transaction, outputs } }
    })
    const message = filteredBlock(1, ...large)
    const { answers } = askData(machine, [item(3, Wire.blockHash(message.header))])
    received(machine, message, 0)
    assert.isUndefined(Requests.overdue(machine, Number.MAX_SAFE_INTEGER))
    for (const tx of large.slice(0, 2)) received(machine, tx, 0)
    assert.isUndefined(answers[0])
    received(machine, large[2], 0)
    const answer = answers.at(0)
    assert(answer?._tag === "Found")
    assert.strictEqual(answer.transactions?.length, 3)
  })

  it("who leaves while the transactions of a filtered block come is not told", () => {
    const machine = make()
    const message = filteredBlock(1, tx(1))
    const one = askData(machine, [item(3, Wire.blockHash(message.header))])
    const other = askData(machine, [item(3, Wire.blockHash(message.header))])
    received(machine, message, 0)
    assert.deepStrictEqual(one.cancel(), [])
    received(machine, tx(1), 0)
    assert.deepStrictEqual([one.answers[0], other.answers[0]?._tag], [undefined, "Found"])
  })

  it("the transactions of a filtered block are kept only while somebody waits for them", () => {
    const machine = make()
    const message = filteredBlock(1, tx(1), tx(2))
    const wanted = item(3, Wire.blockHash(message.header))
    // Asked for by hand.
    Requests.sent(machine, getdata(wanted), 0)
    assert.isTrue(received(machine, message, 0))
    assert.isUndefined(machine.filtered)
    const { cancel } = askData(machine, [wanted])
    received(machine, message, 0)
    received(machine, tx(1), 0)
    assert.isDefined(machine.filtered)
    cancel()
    assert.isUndefined(machine.filtered)
  })

  it("transactions of a block are answered by the blocktxn of that block, in the order they were asked for", () => {
    const machine = make()
    const asked = [getblocktxn(1, 1, 2), getblocktxn(2, 1), getblocktxn(1, 3)]
    const { answers, answered } = collect<readonly [number, Requests.TransactionsAnswer]>()
    for (const [index, message] of asked.entries()) {
      assert.isTrue(Requests.askBlockTransactions(machine, message, (answer) => answered([index, answer])).toSend)
      assert.isFalse(received(machine, blocktxn(2), 0), "nothing was written yet")
      if (index !== 1) Requests.sent(machine, message, index)
    }
    Requests.sent(machine, asked[1], 3)
    const replies = [blocktxn(1), blocktxn(2), blocktxn(1, tx(1).transaction)]
    assert.isFalse(received(machine, blocktxn(3), 0))
    for (const message of replies) assert.isTrue(received(machine, message, 0))
    assert.deepStrictEqual(answers, [
      [0, replies[0]],
      [1, replies[1]],
      [2, replies[2]]
    ])
    assert.isFalse(received(machine, blocktxn(1), 0))
    assert.strictEqual(Requests.size(machine), 0)
  })

  it("a whole block answers all who wait for transactions of it", () => {
    const machine = make()
    const { answers, answered } = collect<Requests.TransactionsAnswer>()
    for (const message of [getblocktxn(1, 1), getblocktxn(1, 2), getblocktxn(2, 1)]) {
      Requests.askBlockTransactions(machine, message, answered)
      Requests.sent(machine, message, 0)
    }
    assert.isTrue(received(machine, block(1), 0))
    assert.deepStrictEqual(answers, [block(1), block(1)])
    assert.isFalse(received(machine, blocktxn(1), 0))
  })

  it("the same transactions are asked for once, others of the same block apart", () => {
    const machine = make()
    const ask = (message: Wire.GetBlockTxn) => Requests.askBlockTransactions(machine, message, () => {}).toSend
    assert.deepStrictEqual([getblocktxn(1, 1), getblocktxn(1, 1), getblocktxn(1, 1, 2)].map(ask), [true, false, true])
  })

  it("transactions of a block that do not come are a stall of the data, behind what was asked before", () => {
    const machine = make()
    askData(machine, [item(2, blockHash(1))])
    Requests.sent(machine, getblocktxn(2, 1, 65_535), 0)
    received(machine, block(1), 20_000)
    assert.isUndefined(Requests.overdue(machine, 49_999))
    assert.deepStrictEqual(Requests.overdue(machine, 50_000), {
      command: "getblocktxn",
      hash: blockHash(2),
      waited: 30_000
    })
    Requests.end(machine)
    assert.isUndefined(Requests.overdue(machine, 50_000))
  })

  it("a notfound answers for the items in it, and for nothing else", () => {
    const machine = make()
    const types = [1, 1 | witnessFlag, 5, 2, 2 | witnessFlag, 3, 4]
    for (const type of types) {
      const { answers } = askData(machine, [item(type, hash(1)), item(type, hash(2))])
      assert.isTrue(received(machine, notfound(item(type, hash(2)), item(type, hash(3))), 0))
      assert.deepStrictEqual(answers, [undefined, notFound])
    }
    assert.strictEqual(Requests.size(machine), types.length)
  })

  it("a notfound may leave the witness flag out", () => {
    const machine = make()
    const { answers } = askData(machine, [item(1 | witnessFlag, hash(1))])
    received(machine, notfound(item(1, hash(1))), 0)
    assert.deepStrictEqual(answers, [notFound])
  })

  it("an answer comes once: the same message again is for nobody", () => {
    const machine = make()
    askData(machine, [item(1, txid(1))])
    assert.isTrue(received(machine, tx(1), 0))
    assert.isFalse(received(machine, tx(1), 0))
    assert.strictEqual(Requests.size(machine), 0)
  })

  it("what is asked for twice is sent once, and everyone gets the answer", () => {
    const machine = make()
    const first = askData(machine, [item(1, txid(1)), item(1, txid(1)), item(1, txid(2))])
    assert.deepStrictEqual(first.toSend, [item(1, txid(1)), item(1, txid(2))])
    const second = askData(machine, [item(1, txid(3)), item(1, txid(2))])
    assert.deepStrictEqual(second.toSend, [item(1, txid(3))])
    for (const number of [1, 2, 3]) received(machine, tx(number), 0)
    assert.deepStrictEqual(first.answers, [found(tx(1)), found(tx(1)), found(tx(2))])
    assert.deepStrictEqual(second.answers, [found(tx(3)), found(tx(2))])
  })

  it("what was sent by hand is on its way: who asks for it need not send it", () => {
    const machine = make()
    Requests.sent(machine, getdata(item(1, txid(1))), 0)
    const { answers, toSend } = askData(machine, [item(1, txid(1))])
    assert.deepStrictEqual(toSend, [])
    received(machine, tx(1), 0)
    assert.deepStrictEqual(answers, [found(tx(1))])
  })

  it("once answered it is asked for anew, from inside the answer too", () => {
    const machine = make()
    let again: Requests.DataQuestion | undefined
    Requests.askData(machine, [item(1, txid(1))], () => {
      again = Requests.askData(machine, [item(1, txid(1))], () => assert.fail("answered by an old message"))
    })
    received(machine, tx(1), 0)
    assert.deepStrictEqual(again?.toSend, [item(1, txid(1))])
  })

  it("who is told may ask again and make others leave, which takes nothing from the new question", () => {
    const machine = make()
    const { answered, answers } = collect<Requests.DataAnswer>()
    Requests.askData(machine, [item(1, txid(1))], () => {
      Requests.askData(machine, [item(1, txid(1))], (_, answer) => answered(answer))
      second.cancel()
    })
    const second = Requests.askData(machine, [item(1, txid(1))], () => assert.fail("told after cancel"))
    received(machine, tx(1), 0)
    received(machine, tx(1), 0)
    assert.deepStrictEqual(answers, [found(tx(1))])
  })

  it("an unasked message answers before the question was written, and then there is nothing left to send", () => {
    const machine = make()
    const { answered, answers } = collect<Requests.DataAnswer>()
    const question = Requests.askData(machine, [item(1, txid(1))], (_, answer) => answered(answer))
    assert.isTrue(received(machine, tx(1), 0))
    assert.deepStrictEqual(answers, [found(tx(1))])
    assert.deepStrictEqual(question.cancel(), [])
  })

  it("who cancels is told nothing, the others are", () => {
    const machine = make()
    const first = askData(machine, [item(1, txid(1))])
    const second = askData(machine, [item(1, txid(1))])
    assert.deepStrictEqual(first.cancel(), [])
    received(machine, tx(1), 0)
    assert.deepStrictEqual(first.answers, [undefined])
    assert.deepStrictEqual(second.answers, [found(tx(1))])
    assert.deepStrictEqual(second.cancel(), [])
  })

  it("who is cancelled by one that is told before is told nothing", () => {
    const machine = make()
    Requests.askData(machine, [item(1, txid(1))], () => void second.cancel())
    const second = Requests.askData(machine, [item(1, txid(1))], () => assert.fail("told after cancel"))
    const third = askData(machine, [item(1, txid(1))])
    received(machine, tx(1), 0)
    assert.deepStrictEqual(third.answers, [found(tx(1))])
  })

  it("what nobody waits for and was not written is forgotten", () => {
    const machine = make()
    const question = Requests.askData(machine, [item(1, txid(1))], () => {})
    assert.deepStrictEqual(question.cancel(), [])
    assert.strictEqual(Requests.size(machine), 0)
  })

  it("who leaves before it was written learns what others still need", () => {
    const machine = make()
    const items = [item(1, txid(1)), item(1, txid(1)), item(1, txid(2))]
    const first = Requests.askData(machine, items, () => assert.fail("told after cancel"))
    const second = askData(machine, [item(1, txid(1))])
    assert.deepStrictEqual(second.toSend, [])
    assert.deepStrictEqual(first.cancel(), [item(1, txid(1))])
    Requests.sent(machine, getdata(item(1, txid(1))), 0)
    received(machine, tx(1), 0)
    assert.deepStrictEqual(second.answers, [found(tx(1))])
  })

  it("when all who asked have left in vain, the next one asks again, and the first deadline stays", () => {
    const machine = make()
    askData(machine, [item(1, txid(1))], 0).cancel()
    const again = askData(machine, [item(1, txid(1))], 20_000)
    assert.deepStrictEqual(again.toSend, [item(1, txid(1))])
    assert.deepStrictEqual(askData(machine, [item(1, txid(1))]).toSend, [])
    assert.strictEqual(Requests.overdue(machine, 30_000)?.waited, 30_000)
    received(machine, tx(1), 0)
    assert.deepStrictEqual(again.answers, [found(tx(1))])
  })

  it("types that are no request are answered by notfound alone and never stall", () => {
    const machine = make()
    const { answers } = askData(machine, [item(77, hash(1))])
    assert.isUndefined(Requests.overdue(machine, Number.MAX_SAFE_INTEGER))
    Requests.sent(machine, getdata(item(78, hash(1))), 0)
    assert.strictEqual(Requests.size(machine), 1)
    received(machine, notfound(item(77, hash(1))), 0)
    assert.deepStrictEqual(answers, [notFound])
  })
})

describe("work", () => {
  it("hashes nothing when nothing of the kind is waiting", () => {
    const machine = make()
    const all = [tx(1), block(1), blocktxn(1), cmpctblock(1), filteredBlock(1), headers(header(1))]
    hashes.count = 0
    for (const message of all) assert.isFalse(received(machine, message, 0))
    assert.strictEqual(hashes.count, 0)
    askData(machine, [item(3, hash(1))])
    for (const message of all) received(machine, message, 0)
    assert.strictEqual(hashes.count, 1)
  })

  /** Look-ups and steps of iteration in `Map`s while `body` runs. */
  const countSteps = (body: () => void): number => {
    const iterator: { next: () => IteratorResult<unknown> } = Object.getPrototypeOf(new Map().values())
    const { delete: remove, get, has, set } = Map.prototype
    const { next } = iterator
    let steps = 0
    Object.assign(Map.prototype, {
      delete(this: Map<unknown, unknown>, key: unknown) {
        steps++
        return remove.call(this, key)
      },
      get(this: Map<unknown, unknown>, key: unknown) {
        steps++
        return get.call(this, key)
      },
      has(this: Map<unknown, unknown>, key: unknown) {
        steps++
        return has.call(this, key)
      },
      set(this: Map<unknown, unknown>, key: unknown, value: unknown) {
        steps++
        return set.call(this, key, value)
      }
    })
    iterator.next = function () {
      steps++
      return next.call(this)
    }
    try {
      body()
    } finally {
      Object.assign(Map.prototype, { delete: remove, get, has, set })
      iterator.next = next
    }
    return steps
  }

  it("answers 50,000 items with one hash and a few look-ups each, in whatever order they come", () => {
    const machine = make()
    const count = 50_000
    const messages = Array.from({ length: count }, (_, number) => tx(number))
    const items = Array.from({ length: count }, (_, number) => item(1, txid(number)))
    let answers = 0
    let overdue = 0
    hashes.count = 0
    const steps = countSteps(() => {
      const { toSend } = Requests.askData(machine, items, () => answers++)
      Requests.sent(machine, getdata(...toSend), 0)
      for (let turn = 0; turn < count; turn++) {
        received(machine, messages[(turn * 7919) % count], 0)
        if (Requests.overdue(machine, 30_000) !== undefined) overdue++
      }
    })
    assert.strictEqual(answers, count)
    assert.strictEqual(overdue, count - 1)
    assert.strictEqual(Requests.size(machine), 0)
    assert.strictEqual(hashes.count, count)
    assert.isBelow(steps, 20 * count)
  })
})

describe("headers", () => {
  const asked = (machine: Requests.Requests, message: Wire.GetHeaders) => {
    const { answered, answers } = collect<Wire.Headers>()
    const question = Requests.askHeaders(machine, message, answered)
    if (question.toSend) Requests.sent(machine, message, 0)
    return { ...question, answers }
  }

  it("fit when they follow a hash of the locator or the genesis block, are none, or start with the stop hash", () => {
    const fitting = [
      headers(),
      headers(header(1, hash(10)), header(2)),
      headers(header(1, hash(11))),
      headers(header(1, genesisHash)),
      headers(header(5))
    ]
    for (const message of fitting) {
      const machine = make()
      const { answers } = asked(machine, getheaders([hash(10), hash(11)], blockHash(5)))
      assert.isTrue(received(machine, message, 0))
      assert.deepStrictEqual(answers, [message])
    }
  })

  it("that do not fit are not taken for the answer", () => {
    const machine = make()
    const { answers } = asked(machine, getheaders([hash(10)], blockHash(5)))
    for (const message of [
      headers(header(1, hash(12))),
      headers(header(1, blockHash(5))),
      headers(header(6), header(5))
    ]) {
      assert.isFalse(received(machine, message, 0))
    }
    assert.deepStrictEqual(answers, [])
  })

  it("do not fit by a hash that lies across two of the locator", () => {
    const machine = make()
    const across = new Uint8Array([...hash(10).subarray(2), ...hash(11).subarray(0, 2)])
    asked(machine, getheaders([hash(10), hash(11)]))
    assert.isFalse(received(machine, headers(header(1, across)), 0))
  })

  it("answer the oldest question that they fit", () => {
    const machine = make()
    const first = asked(machine, getheaders([hash(10), hash(1)]))
    const second = asked(machine, getheaders([hash(11), hash(1)]))
    const third = asked(machine, getheaders([hash(12), hash(1)]))
    const [a, b, c] = [headers(header(1, hash(11))), headers(header(2, hash(1))), headers()]
    for (const message of [a, b, c]) received(machine, message, 0)
    assert.deepStrictEqual([first.answers, second.answers, third.answers], [[b], [a], [c]])
  })

  it("that come before the question was written are no answer", () => {
    const machine = make()
    const { answered, answers } = collect<Wire.Headers>()
    Requests.askHeaders(machine, getheaders([hash(10)]), answered)
    assert.isFalse(received(machine, headers(header(1, hash(10))), 0))
    assert.deepStrictEqual(answers, [])
  })

  it("that are asked for twice in the same words are sent for once, and everyone gets them", () => {
    const machine = make()
    const first = asked(machine, getheaders([hash(10)]))
    const second = asked(machine, getheaders([hash(10)]))
    const third = asked(machine, getheaders([hash(10)], hash(1)))
    assert.deepStrictEqual([first.toSend, second.toSend, third.toSend], [true, false, true])
    received(machine, headers(), 0)
    assert.deepStrictEqual([first.answers, second.answers, third.answers], [[headers()], [headers()], []])
  })

  it("of a question that was cancelled are not taken for the answer to the next", () => {
    const machine = make()
    const first = asked(machine, getheaders([hash(10), hash(1)]))
    assert.isFalse(first.cancel())
    const second = asked(machine, getheaders([hash(11), hash(1)]))
    received(machine, headers(header(1, hash(1))), 0)
    assert.deepStrictEqual([first.answers, second.answers], [[], []])
    received(machine, headers(header(2, hash(1))), 0)
    assert.lengthOf(second.answers, 1)
  })

  it("are to be sent for by another when who undertook it leaves before", () => {
    const machine = make()
    const first = Requests.askHeaders(machine, getheaders([hash(10)]), () => {})
    const second = Requests.askHeaders(machine, getheaders([hash(10)]), () => {})
    assert.isTrue(first.cancel())
    assert.isFalse(second.cancel())
    assert.strictEqual(Requests.size(machine), 0)
  })
})

describe("inventories and addresses", () => {
  it("getblocks is answered by the next inv of blocks alone, mempool by the next of transactions alone", () => {
    const machine = make()
    const blocks = collect<Wire.Inv>()
    const mempool = collect<Wire.Inv>()
    Requests.askInventory(machine, getblocks(1), blocks.answered)
    Requests.askInventory(machine, { _tag: "mempool" }, mempool.answered)
    assert.isFalse(received(machine, inv(2, 2), 0), "nothing was written yet")
    Requests.sent(machine, getblocks(1), 0)
    Requests.sent(machine, { _tag: "mempool" }, 0)
    for (const message of [inv(), inv(2, 1), inv(1, 5, 2)]) assert.isFalse(received(machine, message, 0))
    assert.isTrue(received(machine, inv(1, 5), 0))
    assert.isTrue(received(machine, inv(2, 2), 0))
    assert.isFalse(received(machine, inv(2), 0))
    assert.deepStrictEqual(blocks.answers, [inv(2, 2)])
    assert.deepStrictEqual(mempool.answers, [inv(1, 5)])
  })

  it("several getblocks are answered in the order they were written", () => {
    const machine = make()
    const first = collect<Wire.Inv>()
    const second = collect<Wire.Inv>()
    Requests.askInventory(machine, getblocks(1), first.answered)
    Requests.askInventory(machine, getblocks(2), second.answered)
    Requests.sent(machine, getblocks(2), 0)
    Requests.sent(machine, getblocks(1), 0)
    received(machine, inv(2), 0)
    assert.deepStrictEqual([first.answers, second.answers], [[], [inv(2)]])
  })

  it("when nothing more comes a getblocks that was written ends with an empty answer for everyone, once", () => {
    const machine = make()
    const first = collect<Wire.Inv>()
    const second = collect<Wire.Inv>()
    const question = Requests.askInventory(machine, getblocks(1), first.answered)
    assert.isFalse(Requests.askInventory(machine, getblocks(1), second.answered).toSend)
    question.nothingMore(0)
    assert.deepStrictEqual(first.answers, [], "it was not written yet")
    Requests.sent(machine, getblocks(1), 0)
    question.nothingMore(0)
    question.nothingMore(0)
    assert.deepStrictEqual([first.answers, second.answers], [[inv()], [inv()]])
  })

  it("getblocks, mempool and getaddr never stall, and are not kept when nobody waits", () => {
    const machine = make()
    for (const message of [getblocks(1), { _tag: "mempool" }, { _tag: "getaddr" }] as const) {
      Requests.sent(machine, message, 0)
      assert.strictEqual(Requests.size(machine), 0)
      const question =
        message._tag === "getaddr"
          ? Requests.askAddresses(machine, () => {})
          : Requests.askInventory(machine, message, () => {})
      Requests.sent(machine, message, 0)
      assert.isUndefined(Requests.overdue(machine, Number.MAX_SAFE_INTEGER))
      question.cancel()
      assert.strictEqual(Requests.size(machine), 0)
    }
  })

  it("getaddr is answered by the next addr or addrv2, an empty one too, but not by one with a single address", () => {
    for (const answer of [addr(2), addr(0), { _tag: "addrv2", addresses: [] } as const]) {
      const machine = make()
      const { answered, answers } = collect<Wire.Addr | Wire.AddrV2>()
      Requests.askAddresses(machine, answered)
      assert.isFalse(received(machine, addr(5), 0), "nothing was written yet")
      Requests.sent(machine, { _tag: "getaddr" }, 0)
      assert.isFalse(received(machine, addr(1), 0))
      assert.isTrue(received(machine, answer, 0))
      assert.deepStrictEqual(answers, [answer])
      assert.isUndefined(machine.lonely)
    }
  })

  it("a single address is the answer when nothing more comes; one from before the question is not", () => {
    const machine = make()
    for (const [messages, expected] of [
      [[addr(1)], addr(1)],
      [[], addr(0)]
    ] as const) {
      const { answered, answers } = collect<Wire.Addr | Wire.AddrV2>()
      const cancelled = Requests.askAddresses(machine, () => assert.fail("told after cancel"))
      Requests.sent(machine, { _tag: "getaddr" }, 0)
      received(machine, addr(1), 0)
      cancelled.cancel()
      const question = Requests.askAddresses(machine, answered)
      Requests.sent(machine, { _tag: "getaddr" }, 0)
      for (const message of messages) received(machine, message, 0)
      question.nothingMore(0)
      assert.deepStrictEqual(answers, [expected])
      assert.isUndefined(machine.lonely)
    }
  })
})

describe("stalls", () => {
  it("an item that is not answered for 30 s is overdue, by its hash, whoever asked", () => {
    const machine = make()
    Requests.sent(machine, getdata(item(1, hash(1)), item(2 | witnessFlag, hash(2))), 1_000)
    assert.isUndefined(Requests.overdue(machine, 30_999))
    assert.deepStrictEqual(Requests.overdue(machine, 31_000), { command: "getdata", hash: hash(1), waited: 30_000 })
    received(machine, notfound(item(1, hash(1))), 1_000)
    assert.deepStrictEqual(Requests.overdue(machine, 31_500), { command: "getdata", hash: hash(2), waited: 30_500 })
    received(machine, notfound(item(2, hash(2))), 1_000)
    assert.isUndefined(Requests.overdue(machine, Number.MAX_SAFE_INTEGER))
  })

  it("a getheaders that is not answered for 90 s is overdue", () => {
    const machine = make()
    Requests.sent(machine, getheaders([hash(1)]), 0)
    assert.isUndefined(Requests.overdue(machine, 89_999))
    assert.deepStrictEqual(Requests.overdue(machine, 90_000), {
      command: "getheaders",
      hash: undefined,
      waited: 90_000
    })
    received(machine, headers(), 0)
    assert.isUndefined(Requests.overdue(machine, Number.MAX_SAFE_INTEGER))
  })

  it("of a late getheaders and late data the older one is told", () => {
    for (const [headersAt, dataAt, command] of [
      [0, 1, "getheaders"],
      [1, 0, "getdata"]
    ] as const) {
      const machine = make()
      Requests.sent(machine, getheaders([hash(1)]), headersAt)
      Requests.sent(machine, getdata(item(1, hash(1))), dataAt)
      assert.strictEqual(Requests.overdue(machine, 100_000)?.command, command)
    }
  })

  it("the time of an item begins when what was asked before it was answered: a slow line is no stall", () => {
    const machine = make()
    Requests.sent(machine, getdata(...[1, 2, 3].map((number) => item(1, txid(number)))), 0)
    for (const number of [1, 2, 3]) {
      assert.isUndefined(Requests.overdue(machine, number * 29_000))
      received(machine, tx(number), number * 29_000)
    }
    assert.isUndefined(Requests.overdue(machine, 200_000))
  })

  it("an item that is passed over is overdue though later ones arrive", () => {
    const machine = make()
    Requests.sent(machine, getdata(...[1, 2, 3].map((number) => item(1, txid(number)))), 0)
    received(machine, tx(2), 10_000)
    received(machine, tx(3), 20_000)
    assert.deepStrictEqual(Requests.overdue(machine, 30_000)?.hash, txid(1))
  })

  it("what was asked for and not yet written has no deadline", () => {
    const machine = make()
    Requests.askData(machine, [item(1, hash(1))], () => {})
    Requests.askHeaders(machine, getheaders([hash(1)]), () => {})
    assert.isUndefined(Requests.overdue(machine, Number.MAX_SAFE_INTEGER))
  })

  it("a question that was cancelled is still to be answered", () => {
    const machine = make()
    askData(machine, [item(1, hash(1))]).cancel()
    assert.strictEqual(Requests.overdue(machine, 30_000)?.command, "getdata")
  })

  it("written twice, the first time counts", () => {
    const machine = make()
    for (const now of [0, 20_000]) Requests.sent(machine, getdata(item(1, hash(1))), now)
    assert.strictEqual(Requests.overdue(machine, 30_000)?.waited, 30_000)
  })
})

describe("bounds", () => {
  it("beyond 100,000 items that nobody waits for the oldest are forgotten", () => {
    const machine = make()
    for (let from = 0; from < 250_000; from += 50_000) {
      Requests.sent(
        machine,
        getdata(...Array.from({ length: 50_000 }, (_, index) => item(1, hash(from + index)))),
        from
      )
    }
    assert.strictEqual(Requests.size(machine), Requests.maximumExpectedData)
    assert.deepStrictEqual(Requests.overdue(machine, 1_000_000)?.hash, hash(150_000))
  })

  it("what somebody waits for is not forgotten: it loses its deadline only", () => {
    const machine = make()
    const { answers } = askData(machine, [item(1, txid(1)), item(1, txid(2))])
    const cancelled = askData(machine, [item(1, txid(3))])
    for (let from = 0; from < 100_000; from += 50_000) {
      Requests.sent(machine, getdata(...Array.from({ length: 50_000 }, (_, index) => item(1, hash(from + index)))), 5)
    }
    assert.strictEqual(Requests.size(machine), Requests.maximumExpectedData + 3)
    assert.strictEqual(Requests.overdue(machine, 1_000_000)?.waited, 999_995)
    received(machine, tx(2), 0)
    assert.deepStrictEqual(answers, [undefined, found(tx(2))])
    cancelled.cancel()
    assert.strictEqual(Requests.size(machine), Requests.maximumExpectedData + 1)
  })

  it("beyond 100 getheaders that nobody waits for the oldest are forgotten", () => {
    const machine = make()
    const { answered, answers } = collect<Wire.Headers>()
    Requests.askHeaders(machine, getheaders([hash(0)]), answered)
    for (let number = 0; number <= 200; number++) Requests.sent(machine, getheaders([hash(number)]), number)
    assert.strictEqual(Requests.size(machine), Requests.maximumExpectedHeaders + 1)
    received(machine, headers(), 0)
    assert.deepStrictEqual(answers, [headers()])
    assert.strictEqual(Requests.overdue(machine, 1_000_000)?.waited, 1_000_000 - 101)
  })
})

describe("the end", () => {
  it("forgets everyone and tells nobody; cancelling later does nothing", () => {
    const machine = make()
    const fail = (): void => assert.fail("told after the end")
    const questions = [
      Requests.askData(machine, [item(1, txid(1))], fail),
      Requests.askHeaders(machine, getheaders([hash(1)]), fail),
      Requests.askInventory(machine, getblocks(1), fail),
      Requests.askAddresses(machine, fail)
    ]
    Requests.sent(machine, getdata(item(1, txid(1))), 0)
    Requests.sent(machine, getblocks(1), 0)
    Requests.end(machine)
    assert.strictEqual(Requests.size(machine), 0)
    assert.isUndefined(Requests.overdue(machine, Number.MAX_SAFE_INTEGER))
    for (const message of [tx(1), headers(), inv(2), addr(3)]) assert.isFalse(received(machine, message, 0))
    for (const question of questions) question.cancel()
    assert.strictEqual(Requests.size(machine), 0)
  })
})
