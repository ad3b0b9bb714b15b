/** Which messages answer requests for blocks and transactions. */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "../src/Wire.ts"
import type { AskedItems } from "../src/peer/requests/tracker.ts"
import {
  ask,
  askItems,
  block,
  blockHash,
  blocktxn,
  cmpctblock,
  filteredBlock,
  found,
  foundFiltered,
  getblocktxn,
  getdata,
  hash,
  inv,
  item,
  make,
  notfound,
  notFound,
  ping,
  pong,
  received,
  tx,
  txid,
  untold,
  witnessFlag,
  wtxid
} from "./support/requests.ts"

describe("transactions and blocks", () => {
  it("a tx answers the request for its own txid only, with witnesses or without", () => {
    for (const type of [1, 1 | witnessFlag]) {
      for (const message of [tx(1), tx(1, true)]) {
        const tracker = make()
        const { outcomes } = askItems(tracker, [item(type, txid(1)), item(type, txid(2))])
        received(tracker, tx(3))
        received(tracker, message)
        assert.deepStrictEqual(outcomes, [found(message), undefined])
      }
    }
  })

  it("a tx requested by wtxid is answered by that wtxid, not by its txid", () => {
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(5, wtxid(1)), item(5, txid(2))])
    received(tracker, tx(1))
    received(tracker, tx(2, true))
    assert.deepStrictEqual(outcomes, [undefined, undefined])
    received(tracker, tx(1, true))
    assert.deepStrictEqual(outcomes, [found(tx(1, true)), undefined])
  })

  it("one tx answers the request by txid and the request by wtxid", () => {
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(1, txid(1)), item(5, wtxid(1))])
    received(tracker, tx(1, true))
    assert.deepStrictEqual(outcomes, [found(tx(1, true)), found(tx(1, true))])
  })

  it("a block answers the request for its hash, with witnesses or without", () => {
    for (const [type, message] of [
      [2, block(2)],
      [2, block(2, true)],
      [2 | witnessFlag, block(2, true)]
    ] as const) {
      const tracker = make()
      const { outcomes } = askItems(tracker, [item(type, blockHash(1)), item(type, blockHash(2))])
      assert.isUndefined(received(tracker, message))
      assert.deepStrictEqual(outcomes, [undefined, found(message)])
    }
  })

  it("are requested with witnesses and without apart: a block without witnesses does not answer the request for them", () => {
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
        const tracker = make()
        const items = without._tag === "tx" ? [item(1 | witnessFlag, txid(1)), item(1, txid(1))] : wanted
        const { newItems, outcomes } = askItems(tracker, items)
        assert.lengthOf(newItems, 2)
        for (const message of order) received(tracker, message)
        assert.deepStrictEqual(outcomes, [found(withThem), found(without)])
      }
    }
  })

  it("the ancestors of a transaction are answered by the list that ends with it", () => {
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(7, wtxid(1)), item(7, wtxid(2))])
    const info = (...wtxids: ReadonlyArray<Uint8Array>): Wire.AncPkgInfo => ({ _tag: "ancpkginfo", wtxids })
    received(tracker, info())
    received(tracker, info(wtxid(1), wtxid(3)))
    assert.deepStrictEqual(outcomes, [undefined, undefined])
    received(tracker, info(wtxid(1), wtxid(2)))
    received(tracker, notfound(item(7, wtxid(1))))
    assert.deepStrictEqual(outcomes, [notFound, found(info(wtxid(1), wtxid(2)))])
  })

  it("a compact block is answered by cmpctblock or block, a filtered block by merkleblock", () => {
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(3, blockHash(1)), item(4, blockHash(1)), item(4, blockHash(2))])
    received(tracker, cmpctblock(3))
    assert.deepStrictEqual(outcomes, [undefined, undefined, undefined])
    received(tracker, cmpctblock(1))
    received(tracker, block(2, true))
    received(tracker, block(1, true))
    assert.deepStrictEqual(outcomes, [undefined, found(cmpctblock(1)), found(block(2, true))])
    received(tracker, filteredBlock(2))
    assert.isUndefined(outcomes[0])
    received(tracker, filteredBlock(1))
    assert.deepStrictEqual(outcomes[0], foundFiltered(filteredBlock(1)))
  })

  it("an item of an unknown type is answered by notfound", () => {
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(77, hash(1))])
    received(tracker, notfound(item(77, hash(1))))
    assert.deepStrictEqual(outcomes, [notFound])
  })

  it("a notfound answers its item, also where the remote leaves out the witness flag", () => {
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(2 | witnessFlag, hash(1)), item(2, hash(2)), item(2, hash(3))])
    received(tracker, notfound(item(2, hash(1)), item(2, hash(2)), item(1, hash(3))))
    assert.deepStrictEqual(outcomes, [notFound, notFound, undefined])
  })
})

describe("the pong to a ping", () => {
  it("makes NotFound of all requests before the ping, and leaves later requests open", () => {
    const tracker = make()
    const types = [1, 1 | witnessFlag, 2, 2 | witnessFlag, 3, 4, 5, 7, 77]
    const items = types.map((type) => item(type, hash(type)))
    const before = askItems(tracker, items)
    const transactions = ask(tracker, getblocktxn(1, 1))
    tracker.sent(ping(1n), 0)
    const after = askItems(tracker, [item(2, hash(9))])
    received(tracker, pong(1n))
    assert.deepStrictEqual(
      before.outcomes,
      types.map(() => notFound)
    )
    assert.deepStrictEqual(transactions.outcomes, [notFound])
    assert.deepStrictEqual(after.outcomes, [undefined])
    assert.strictEqual(tracker.size, 1)
  })

  it("settles requests that were written before its ping, and none that still waited to be written", () => {
    const tracker = make()
    const written = askItems(tracker, [item(2, hash(1))])
    const question = tracker.askItems([item(2, hash(2))], untold)
    tracker.sent(ping(1n), 0)
    tracker.sent(getdata(...question.newItems), 0)
    received(tracker, pong(1n))
    assert.deepStrictEqual(written.outcomes, [notFound])
  })

  it("settles nothing if that ping was not written, or was written later", () => {
    const tracker = make()
    const one = askItems(tracker, [item(2, hash(1))])
    received(tracker, pong(1n))
    tracker.sent(ping(2n), 0)
    const other = askItems(tracker, [item(2, hash(2))])
    tracker.sent(ping(3n), 0)
    received(tracker, pong(4n))
    assert.deepStrictEqual([one.outcomes, other.outcomes], [[undefined], [undefined]])
    // A remote that answers the later ping first has answered what came before both.
    received(tracker, pong(3n))
    assert.deepStrictEqual([one.outcomes, other.outcomes], [[notFound], [notFound]])
    const again = askItems(tracker, [item(2, hash(1))])
    received(tracker, pong(2n))
    received(tracker, pong(3n))
    assert.deepStrictEqual(again.outcomes, [undefined])
  })

  it("does not change an answer that arrived before", () => {
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(2, blockHash(1)), item(2, blockHash(2))])
    tracker.sent(ping(1n), 0)
    received(tracker, block(1))
    received(tracker, pong(1n))
    received(tracker, block(2))
    assert.deepStrictEqual(outcomes, [found(block(1)), notFound])
  })
})

describe("filtered blocks", () => {
  it("are answered when all transactions that they prove have arrived", () => {
    const tracker = make()
    const merkleblock = filteredBlock(1, tx(1), tx(2))
    const { outcomes } = askItems(tracker, [item(3, Wire.blockHash(merkleblock.header)), item(1, txid(2))])
    received(tracker, merkleblock)
    for (const message of [tx(1), tx(9), tx(1), inv(1)]) received(tracker, message)
    assert.deepStrictEqual(outcomes, [undefined, undefined])
    received(tracker, tx(2))
    assert.deepStrictEqual(outcomes, [foundFiltered(merkleblock, 1, 2), found(tx(2))])
  })

  it("are answered with the transactions so far when the next block or the pong to a later ping arrives", () => {
    const tracker = make()
    const [first, second, third] = [1, 2, 3].map((number) => filteredBlock(number, tx(number), tx(number + 10)))
    const askFor = (...messages: ReadonlyArray<Wire.MerkleBlock>) =>
      askItems(
        tracker,
        messages.map(({ header }) => item(3, Wire.blockHash(header)))
      )
    // Something is open, so that the ping counts.
    askItems(tracker, [item(1, txid(9))])
    tracker.sent(ping(1n), 0)
    const one = askFor(first, second)
    tracker.sent(ping(2n), 0)
    const other = askFor(third, first)
    tracker.sent(ping(3n), 0)
    for (const message of [first, tx(11), second, tx(2)]) received(tracker, message)
    const ofFirst = foundFiltered(first, 11)
    assert.deepStrictEqual(
      [one.outcomes, other.outcomes],
      [
        [ofFirst, undefined],
        [undefined, ofFirst]
      ]
    )
    received(tracker, pong(1n))
    assert.isUndefined(one.outcomes[1])
    received(tracker, pong(2n))
    assert.deepStrictEqual(one.outcomes[1], foundFiltered(second, 2))
    received(tracker, tx(12))
    received(tracker, third)
    assert.isUndefined(other.outcomes[0])
    received(tracker, pong(3n))
    assert.deepStrictEqual(other.outcomes[0], foundFiltered(third))
  })

  it("wait for no transactions if nothing matches", () => {
    const tracker = make()
    const { outcomes } = askItems(tracker, [item(3, blockHash(1))])
    received(tracker, filteredBlock(1))
    assert.deepStrictEqual(outcomes, [foundFiltered(filteredBlock(1))])
  })

  it("whose transactions do not arrive do not stall, and hold no more bytes than a block has", () => {
    const tracker = make()
    const large = [1, 2, 3, 4].map((number): Wire.Tx => {
      const outputs = [{ value: 0, script: new Uint8Array(1_500_000) }]
      return { _tag: "tx", transaction: { ...tx(number).transaction, outputs } }
    })
    const message = filteredBlock(1, ...large)
    const { outcomes } = askItems(tracker, [item(3, Wire.blockHash(message.header))])
    received(tracker, message)
    assert.isUndefined(tracker.overdue(Number.MAX_SAFE_INTEGER))
    for (const tx of large.slice(0, 2)) received(tracker, tx)
    assert.isUndefined(outcomes[0])
    received(tracker, large[2])
    const outcome = outcomes.at(0)
    assert(outcome?._tag === "Found")
    assert.strictEqual(outcome.transactions?.length, 3)
  })

  it("are not given to a caller that leaves while their transactions arrive", () => {
    const tracker = make()
    const message = filteredBlock(1, tx(1))
    const one = askItems(tracker, [item(3, Wire.blockHash(message.header))])
    const other = askItems(tracker, [item(3, Wire.blockHash(message.header))])
    received(tracker, message)
    assert.deepStrictEqual(one.leave(), [])
    received(tracker, tx(1))
    assert.deepStrictEqual([one.outcomes[0], other.outcomes[0]?._tag], [undefined, "Found"])
  })

  it("keep their transactions only while a caller waits for them", () => {
    const tracker = make()
    const message = filteredBlock(1, tx(1), tx(2))
    const wanted = item(3, Wire.blockHash(message.header))
    // Sent by the caller itself.
    tracker.sent(getdata(wanted), 0)
    received(tracker, message)
    assert.isFalse(tracker.isCollecting)
    const { leave } = askItems(tracker, [wanted])
    received(tracker, message)
    received(tracker, tx(1))
    assert.isTrue(tracker.isCollecting)
    leave()
    assert.isFalse(tracker.isCollecting)
  })
})

describe("transactions of a block", () => {
  it("are answered by the blocktxn of that block, in the order of the requests", () => {
    const tracker = make()
    const questions = [getblocktxn(1, 1, 2), getblocktxn(2, 1), getblocktxn(1, 3)]
    const outcomes: Array<readonly [number, unknown]> = []
    for (const [index, question] of questions.entries()) {
      assert.isTrue(tracker.ask(question, (outcome) => outcomes.push([index, outcome])).isNew)
      received(tracker, blocktxn(2))
      if (index !== 1) tracker.sent(question, index)
    }
    assert.isEmpty(outcomes, "nothing was written yet")
    tracker.sent(questions[1], 3)
    const { transaction } = tx(1)
    const replies = [blocktxn(1, transaction, transaction), blocktxn(2, transaction), blocktxn(1, transaction)]
    received(tracker, blocktxn(3, transaction))
    for (const message of replies) received(tracker, message)
    assert.deepStrictEqual(
      outcomes,
      replies.map((message, index) => [index, found(message)])
    )
    received(tracker, blocktxn(1))
    assert.strictEqual(tracker.size, 0)
  })

  it("are all answered by the whole block", () => {
    const tracker = make()
    const asked = [getblocktxn(1, 1), getblocktxn(1, 2), getblocktxn(2, 1)].map((message) => ask(tracker, message))
    received(tracker, block(1, true))
    received(tracker, blocktxn(1))
    assert.deepStrictEqual(
      asked.map(({ outcomes }) => outcomes),
      [[found(block(1, true))], [found(block(1, true))], []]
    )
  })

  it("are requested once for equal indexes, and apart for others of the same block", () => {
    const tracker = make()
    const one = ask(tracker, getblocktxn(1, 1, 2))
    const same = ask(tracker, getblocktxn(1, 1, 2))
    const other = ask(tracker, getblocktxn(1, 1))
    assert.deepStrictEqual([one.isNew, same.isNew, other.isNew], [true, false, true])
    const { transaction } = tx(1)
    received(tracker, blocktxn(1, transaction, transaction))
    assert.deepStrictEqual([one.outcomes.length, same.outcomes.length, other.outcomes.length], [1, 1, 0])
  })

  it("that an abandoned request asked for are not given to the next request", () => {
    const tracker = make()
    const { transaction } = tx(1)
    const left = ask(tracker, getblocktxn(1, 1))
    left.leave()
    const other = ask(tracker, getblocktxn(1, 2))
    received(tracker, blocktxn(1, transaction))
    assert.isEmpty(other.outcomes)
    received(tracker, blocktxn(1, transaction))
    assert.lengthOf(other.outcomes, 1)
  })
})

describe("callers", () => {
  it("that want the same item share one request, and all get the answer", () => {
    const tracker = make()
    const first = askItems(tracker, [item(1, txid(1)), item(1, txid(1)), item(1, txid(2))])
    assert.deepStrictEqual(first.newItems, [item(1, txid(1)), item(1, txid(2))])
    const second = askItems(tracker, [item(1, txid(3)), item(1, txid(2))])
    assert.deepStrictEqual(second.newItems, [item(1, txid(3))])
    for (const number of [1, 2, 3]) received(tracker, tx(number))
    assert.deepStrictEqual(first.outcomes, [found(tx(1)), found(tx(1)), found(tx(2))])
    assert.deepStrictEqual(second.outcomes, [found(tx(3)), found(tx(2))])
  })

  it("do not repeat a request that was sent before they joined", () => {
    const tracker = make()
    tracker.sent(getdata(item(1, txid(1))), 0)
    const { newItems, outcomes } = askItems(tracker, [item(1, txid(1))])
    assert.deepStrictEqual(newItems, [])
    received(tracker, tx(1))
    assert.deepStrictEqual(outcomes, [found(tx(1))])
  })

  it("can request an answered item again, also while the answer is handed out", () => {
    const tracker = make()
    let again: AskedItems | undefined
    tracker.askItems([item(1, txid(1))], () => {
      again = tracker.askItems([item(1, txid(1))], untold)
    })
    received(tracker, tx(1))
    assert.deepStrictEqual(again?.newItems, [item(1, txid(1))])
  })

  it("that get an answer may ask again and make others leave, without harm to the new request", () => {
    const tracker = make()
    const outcomes: Array<unknown> = []
    tracker.askItems([item(1, txid(1))], () => {
      tracker.askItems([item(1, txid(1))], (_, outcome) => outcomes.push(outcome))
      second.leave()
    })
    const second = tracker.askItems([item(1, txid(1))], untold)
    received(tracker, tx(1))
    received(tracker, tx(1))
    assert.deepStrictEqual(outcomes, [found(tx(1))])
  })

  it("get an answer that arrived before the request was written, and then send nothing", () => {
    const tracker = make()
    const outcomes: Array<unknown> = []
    const { leave } = tracker.askItems([item(1, txid(1))], (_, outcome) => outcomes.push(outcome))
    received(tracker, tx(1))
    assert.deepStrictEqual(outcomes, [found(tx(1))])
    assert.deepStrictEqual(leave(), [])
  })

  it("that leave get no answer, and the others do", () => {
    const tracker = make()
    const first = askItems(tracker, [item(1, txid(1))])
    const second = askItems(tracker, [item(1, txid(1))])
    assert.deepStrictEqual(first.leave(), [])
    received(tracker, tx(1))
    assert.deepStrictEqual(first.outcomes, [undefined])
    assert.deepStrictEqual(second.outcomes, [found(tx(1))])
    assert.deepStrictEqual(second.leave(), [])
  })

  it("that another caller makes leave while the answer is handed out get no answer", () => {
    const tracker = make()
    tracker.askItems([item(1, txid(1))], () => void second.leave())
    const second = tracker.askItems([item(1, txid(1))], untold)
    const third = askItems(tracker, [item(1, txid(1))])
    received(tracker, tx(1))
    assert.deepStrictEqual(third.outcomes, [found(tx(1))])
  })

  it("that leave before the request was written leave nothing behind", () => {
    const tracker = make()
    const { leave } = tracker.askItems([item(1, txid(1))], untold)
    assert.deepStrictEqual(leave(), [])
    assert.strictEqual(tracker.size, 0)
  })

  it("that leave before the request was written must send the items that others wait for", () => {
    const tracker = make()
    const first = tracker.askItems([item(1, txid(1)), item(1, txid(1)), item(1, txid(2))], untold)
    const second = askItems(tracker, [item(1, txid(1))])
    assert.deepStrictEqual(second.newItems, [])
    assert.deepStrictEqual(first.leave(), [item(1, txid(1))])
    tracker.sent(getdata(item(1, txid(1))), 0)
    received(tracker, tx(1))
    assert.deepStrictEqual(second.outcomes, [found(tx(1))])
  })

  it("join a request that an earlier caller has left, with its old deadline", () => {
    const tracker = make(false)
    askItems(tracker, [item(1, txid(1))], 0).leave()
    const again = askItems(tracker, [item(1, txid(1))], 20_000)
    assert.deepStrictEqual(again.newItems, [])
    assert.strictEqual(tracker.overdue(30_000)?._tag, "Stalled")
    received(tracker, tx(1))
    assert.deepStrictEqual(again.outcomes, [found(tx(1))])
  })
})
