/** The machines of private broadcast: the script byte for byte, and the pool with the cases of Bitcoin Core's unit tests. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import {
  type Limits,
  limits,
  Pool,
  privateNetworks,
  Script,
  versionMessage
} from "../../src/server/internal/privateBroadcast.ts"
import { makeRandom } from "../../src/server/internal/random.ts"
import * as Wire from "../../src/Wire.ts"
import { version as versionOf } from "../support/peers.ts"

const minute = 60_000
const address = Result.getOrThrow(Address.parse("1.192.176.160:1111"))

/** Core's dummy transactions: the id is the sequence number of the only input. */
const transaction = (id: number, witnesses = 0): Wire.Transaction => ({
  version: 2,
  inputs: [
    {
      previousOutput: { txid: new Uint8Array(32), index: 0xffffffff },
      script: new Uint8Array(0),
      sequence: id,
      witness: Array.from({ length: witnesses }, () => new Uint8Array(0))
    }
  ],
  outputs: [],
  lockTime: 0
})

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const payload = (message: Wire.Message): string => hex(Result.getOrThrow(Wire.encode(message)))
const decoded = (command: string, payload: string): Wire.Message =>
  Result.getOrThrow(Wire.decode(command, Uint8Array.from(Buffer.from(payload, "hex"))))

describe("The script of one connection", () => {
  // Recorded with -capturemessages in Core's p2p_private_broadcast.py (August 2026), in both directions.
  const sent = {
    version:
      "80110100" + // protocol version 70016
      "0000000000000000" + // services
      "0000000000000000" + // time
      "0000000000000000" + // services of the receiver
      "00000000000000000000000000000000" + // its address
      "0000" + // its port
      "0000000000000000" + // services of the sender
      "00000000000000000000000000000000" +
      "0000" +
      "46c94a2c4550981e" + // nonce
      "0e2f70796e6f64653a302e302e312f" + // "/pynode:0.0.1/"
      "00000000" + // height
      "00", // relay
    verack: "",
    inv: "010100000066e379f0c47232ab45b887f263051f5c8e3176f5a7a878f3dde575949263e85c",
    tx:
      "02000000000101cd79211a990f01958734a3841be7c09d985b07609f285fe48d071db466e66ef60000000000000000000140fe042a0100" +
      "00002251202913b252fe537830f843bfdc5fa7d20ba48639a87c86ff837b92d083c55ad7c102015121c0000000000000000000000000" +
      "000000000000000000000000000000000000000100000000",
    ping: "4c67a881c99f110e"
  }
  const received = {
    version:
      "811101000900000000000000e8910a6b00000000010000000000000000000000000000000000ffff00000000000001000000000000000000" +
      "0000000000000000ffff0000000000007aa5685317c3fbd7192f707974686f6e2d7032702d7465737465723a302e302e332fffffffff01",
    getdata: sent.inv,
    pong: sent.ping
  }
  const nonce = Buffer.from("46c94a2c4550981e", "hex").readBigUInt64LE()
  const pingNonce = Buffer.from(sent.ping, "hex").readBigUInt64LE()
  const { transaction: announced } = decoded("tx", sent.tx) as Wire.Tx

  const begin = (pick: () => Wire.Transaction | undefined = () => announced, isWanted = () => true) => {
    const script = new Script({ pick, isWanted }, pingNonce)
    const answers = (message: Wire.Message) => {
      const { ending, send } = script.receive(message)
      return ending === undefined ? send.map(({ _tag }) => _tag) : ending
    }
    return { script, answers }
  }
  const remoteVersion = decoded("version", received.version) as Wire.Version
  const verack: Wire.Message = { _tag: "verack" }
  const getdata = decoded("getdata", received.getdata) as Wire.GetData
  const pong: Wire.Message = { _tag: "pong", nonce: pingNonce }

  it("sends the bytes of Core", () => {
    assert.strictEqual(payload(versionMessage(nonce)), sent.version)
    const { script } = begin()
    const bytes = (message: Wire.Message) => script.receive(message).send.map((sent) => [sent._tag, payload(sent)])
    assert.deepStrictEqual(bytes(remoteVersion), [["verack", sent.verack]])
    assert.deepStrictEqual(bytes(verack), [["inv", sent.inv]])
    assert.deepStrictEqual(bytes(getdata), [
      ["tx", sent.tx],
      ["ping", sent.ping]
    ])
    assert.deepStrictEqual(script.receive(pong), { send: [], ending: "Sent" })
  })

  it("ends without a verack at a peer that does not relay transactions", () => {
    assert.strictEqual(begin().answers({ ...remoteVersion, relay: false }), "NoRelay")
  })

  it("ends at a peer of an old version, and at one without blocks or witnesses", () => {
    const answer = (fields: Partial<Wire.Version>) => begin().answers(versionOf(fields))
    assert.strictEqual(answer({ protocolVersion: 31_799 }), "VersionTooOld")
    assert.deepStrictEqual(answer({ protocolVersion: 31_800 }), ["verack"])
    assert.strictEqual(answer({ services: Wire.Service.witness }), "ServicesMissing")
    assert.strictEqual(answer({ services: Wire.Service.network }), "ServicesMissing")
    assert.deepStrictEqual(answer({ services: Wire.Service.networkLimited | Wire.Service.witness }), ["verack"])
  })

  it("chooses the transaction once the handshake is complete, and ends if there is none", () => {
    let picks = 0
    const { answers } = begin(() => {
      picks++
      return undefined
    })
    answers(remoteVersion)
    assert.strictEqual(picks, 0)
    assert.strictEqual(answers(verack), "NothingToSend")
    assert.strictEqual(picks, 1)
  })

  it("ends when the peer asks for anything but the announced transaction", () => {
    const [item] = getdata.items
    const wrong: ReadonlyArray<ReadonlyArray<Wire.InventoryItem>> = [
      [],
      [item!, item!],
      [{ type: Wire.InventoryType.tx, hash: new Uint8Array(32) }],
      [{ type: Wire.InventoryType.wtx, hash: Wire.wtxid(announced) }],
      [{ type: Wire.InventoryType.witnessTx, hash: item!.hash }],
      [{ type: Wire.InventoryType.block, hash: item!.hash }]
    ]
    for (const items of wrong) {
      const { answers } = begin()
      answers(remoteVersion)
      answers(verack)
      assert.strictEqual(answers({ _tag: "getdata", items }), "UnexpectedGetdata")
    }
  })

  it("does not send a transaction that was aborted after it was announced", () => {
    let wanted = true
    const { answers } = begin(undefined, () => wanted)
    answers(remoteVersion)
    answers(verack)
    wanted = false
    assert.strictEqual(answers(getdata), "NothingToSend")
  })

  it("sends a transaction once, however often it is asked for", () => {
    const { answers } = begin()
    answers(remoteVersion)
    answers(verack)
    assert.deepStrictEqual(answers(getdata), ["tx", "ping"])
    assert.deepStrictEqual(answers(getdata), [])
    assert.strictEqual(answers(pong), "Sent")
  })

  it("ignores all other messages at every step, and a pong with another nonce", () => {
    const others: ReadonlyArray<Wire.Message> = [
      { _tag: "wtxidrelay" },
      { _tag: "sendaddrv2" },
      { _tag: "sendheaders" },
      { _tag: "ping", nonce: 7n },
      { _tag: "pong", nonce: 8n },
      { _tag: "getaddr" },
      { _tag: "inv", items: getdata.items },
      { _tag: "notfound", items: getdata.items },
      { _tag: "feefilter", feeRate: 1_000 },
      { _tag: "Unknown", command: "hello", payload: new Uint8Array(3) }
    ]
    const { answers } = begin()
    const ignores = (...more: ReadonlyArray<Wire.Message>) => {
      for (const message of [...others, ...more]) assert.deepStrictEqual(answers(message), [], message._tag)
    }
    ignores(verack, getdata, pong)
    assert.deepStrictEqual(answers(remoteVersion), ["verack"])
    ignores(remoteVersion, getdata, pong)
    assert.deepStrictEqual(answers(verack), ["inv"])
    ignores(remoteVersion, verack, pong)
    assert.deepStrictEqual(answers(getdata), ["tx", "ping"])
    ignores(remoteVersion, verack)
    assert.strictEqual(answers(pong), "Sent")
  })
})

describe("The networks of private broadcast", () => {
  it("are Tor and I2P, and with Tor IPv4 and IPv6 where they lead through it", () => {
    const all = new Set(["ipv4", "ipv6", "onion", "i2p", "cjdns"] as const)
    assert.deepStrictEqual(privateNetworks(all, false), ["onion", "i2p"])
    assert.deepStrictEqual(privateNetworks(all, true), ["onion", "ipv4", "ipv6", "i2p"])
    assert.deepStrictEqual(privateNetworks(new Set(["ipv4", "ipv6", "i2p"] as const), true), ["i2p"])
    assert.deepStrictEqual(privateNetworks(new Set(["ipv4", "onion"] as const), true), ["onion", "ipv4"])
    assert.deepStrictEqual(privateNetworks(new Set(["ipv4", "ipv6", "cjdns"] as const), true), [])
  })
})

/** A pool, and connections to it by number. */
const begin = (options: Partial<Limits> = {}) => {
  let now = 0
  const pool = new Pool(now, options)
  return {
    pool,
    add: (transaction: Wire.Transaction) => pool.add(transaction, now),
    /** Connects, and returns the transaction that is sent there. */
    send: () => {
      const id = pool.dial()
      pool.connected(id)
      return { id, transaction: pool.pick(id, address, now) }
    },
    ended: (id: number, wasSent: boolean) => pool.ended(id, wasSent, now),
    stale: () => pool.stale(now).map(({ transaction }) => transaction),
    entries: () => Array.from(pool.entries),
    check: () => pool.check(now, makeRandom(new Uint8Array(16))),
    delay: () => pool.dialDelay(now),
    pass: (milliseconds: number) => {
      now += milliseconds
    },
    now: () => now
  }
}

describe("The pool, as Core's unit tests have it", () => {
  it("offers two transactions in turn, and finds those that nobody confirmed", () => {
    const { add, ended, entries, pass, pool, send, stale } = begin()
    assert.isUndefined(send().transaction)
    assert.deepStrictEqual([stale(), pool.hasPending, entries()], [[], false, []])

    const first = transaction(1)
    const second = transaction(1, 1)
    assert.deepStrictEqual(Wire.txid(first), Wire.txid(second))
    assert.strictEqual(add(first), "Added")
    assert.strictEqual(add(first), "AlreadyPresent")
    assert.strictEqual(add(second), "Added")

    const one = send()
    const two = send()
    assert.sameMembers([one.transaction, two.transaction], [first, second])
    assert.deepStrictEqual(
      entries().map(({ sends }) => sends.length),
      [1, 1]
    )

    assert.deepStrictEqual(stale(), [])
    pass(5 * minute + minute)
    assert.strictEqual(stale().length, 2)

    ended(99, true)
    ended(one.id, true)
    const confirmed = entries().find((entry) => entry.transaction === one.transaction)!
    assert.deepStrictEqual(confirmed.sends, [{ address, at: 0, confirmedAt: 6 * minute }])
    assert.deepStrictEqual(stale(), [two.transaction])

    pass(600 * minute)
    assert.strictEqual(stale().length, 2)

    const confirmations = (of: Wire.Transaction) => pool.remove(Wire.wtxid(of)).map(({ confirmed }) => confirmed)
    assert.strictEqual(one.transaction, first)
    assert.deepStrictEqual(confirmations(second), [0])
    assert.deepStrictEqual(confirmations(second), [])
    assert.deepStrictEqual(confirmations(first), [1])
    assert.deepStrictEqual(confirmations(first), [])
    assert.deepStrictEqual(entries(), [])
    assert.isUndefined(send().transaction)
  })

  it("waits longer for a transaction that nobody has got", () => {
    const { add, pass, stale } = begin()
    const unsent = transaction(42)
    add(unsent)
    pass(4 * minute)
    assert.deepStrictEqual(stale(), [])
    pass(2 * minute)
    assert.deepStrictEqual(stale(), [unsent])
  })

  it("offers a transaction a limited number of times, until it is added again", () => {
    const { add, entries, pass, pool, send, stale } = begin({ sends: 5 })
    const first = transaction(1)
    add(first)
    for (let n = 0; n < 5; n++) {
      assert.isTrue(pool.hasPending)
      assert.strictEqual(send().transaction, first)
    }
    assert.isFalse(pool.hasPending)
    assert.isUndefined(send().transaction)
    assert.deepStrictEqual([entries()[0]!.sends.length, pool.sendsLeft(entries()[0]!)], [5, 0])
    pass(6 * minute)
    assert.deepStrictEqual(stale(), [])

    const second = transaction(2)
    add(second)
    assert.strictEqual(send().transaction, second)

    assert.strictEqual(add(first), "Added")
    assert.deepStrictEqual(stale(), [])
    assert.deepStrictEqual([entries()[0]!.sends, pool.sendsLeft(entries()[0]!)], [[], 5])
    assert.strictEqual(send().transaction, first)
  })

  it("starts anew with an equal transaction, and forgets the confirmations", () => {
    const { add, ended, entries, pool, send } = begin({ sends: 1 })
    add(transaction(1))
    const { id } = send()
    assert.isTrue(pool.wants(id))
    assert.strictEqual(add(transaction(1)), "Added")
    assert.isFalse(pool.wants(id))
    ended(id, true)
    assert.deepStrictEqual([entries()[0]!.sends, entries()[0]!.confirmed], [[], 0])
    assert.deepStrictEqual(
      pool.remove(Wire.txid(transaction(1))).map(({ confirmed }) => confirmed),
      [0]
    )
  })

  it("takes 10,000 transactions and no more", () => {
    const { add, entries, pool } = begin()
    for (let id = 0; id < 10_000; id++) assert.strictEqual(add(transaction(id)), "Added")
    for (let id = 10_000; id < 10_005; id++) assert.strictEqual(add(transaction(id)), "QueueFull")
    assert.strictEqual(entries().length, 10_000)
    assert.strictEqual(add(transaction(0)), "AlreadyPresent")
    assert.strictEqual(pool.remove(Wire.txid(transaction(0))).length, 1)
    assert.strictEqual(add(transaction(10_000)), "Added")
    assert.strictEqual(add(transaction(10_001)), "QueueFull")
  })
})

describe("The pool", () => {
  it("prefers fewer sends, then fewer confirmations, then the older ones", () => {
    const { add, ended, pass, send } = begin()
    const [a, b, c] = [transaction(1), transaction(2), transaction(3)]
    for (const one of [a, b, c]) add(one)
    const sends = [send(), send(), send()]
    assert.deepStrictEqual(
      sends.map(({ transaction }) => transaction),
      [a, b, c]
    )
    pass(1)
    ended(sends[0]!.id, true)
    ended(sends[1]!.id, true)
    // Each was sent once; the third one is the only one that was not confirmed.
    assert.strictEqual(send().transaction, c)
    pass(1)
    assert.strictEqual(send().transaction, a)
    pass(1)
    assert.strictEqual(send().transaction, b)
    // Two sends each: `c` without a confirmation, then `a`, whose last send is older than that of `b`.
    assert.strictEqual(send().transaction, c)
    assert.strictEqual(send().transaction, a)
  })

  it("gives one transaction to a connection, since two would be linked", () => {
    const { add, now, pool } = begin()
    add(transaction(1))
    add(transaction(2))
    const id = pool.dial()
    pool.connected(id)
    assert.isDefined(pool.pick(id, address, now()))
    assert.isUndefined(pool.pick(id, address, now()))
  })

  it("wants three connections for each transaction, and another one for each that ends without a confirmation", () => {
    const { add, ended, pool, send } = begin()
    add(transaction(1))
    add(transaction(1))
    assert.strictEqual(pool.needed, 3)
    const [one, two] = [send(), send()]
    assert.strictEqual(pool.needed, 1)
    ended(one.id, true)
    assert.strictEqual(pool.needed, 1)
    ended(two.id, false)
    assert.strictEqual(pool.needed, 2)
    // A second end of the same connection is none.
    ended(two.id, false)
    assert.strictEqual(pool.needed, 2)
  })

  it("wants no more connections for what is removed, and none to replace one that was sent in vain", () => {
    const { add, ended, pool, send } = begin()
    add(transaction(1))
    const sent = send()
    ended(sent.id, true)
    const open = send()
    assert.strictEqual(pool.needed, 1)
    pool.remove(Wire.txid(transaction(1)))
    assert.strictEqual(pool.needed, 0)
    ended(open.id, false)
    assert.strictEqual(pool.needed, 0)
  })

  it("removes all transactions with a txid, and one with a wtxid", () => {
    const { add, pool } = begin()
    const [plain, one, two] = [transaction(1), transaction(1, 1), transaction(1, 2)]
    for (const each of [plain, one, two]) add(each)
    assert.strictEqual(pool.find(Wire.wtxid(one))?.transaction, one)
    assert.strictEqual(pool.remove(Wire.wtxid(one)).length, 1)
    // The txid is the wtxid of the one without witnesses, too.
    assert.deepStrictEqual(
      pool.remove(Wire.txid(plain)).map(({ transaction }) => transaction),
      [plain, two]
    )
    assert.isUndefined(pool.find(Wire.txid(plain)))
    assert.strictEqual(pool.needed, 0)
  })

  it("dials as many at a time as are needed, 64 at most", () => {
    const { add, delay, pool } = begin()
    assert.strictEqual(delay(), Infinity)
    for (let id = 0; id < 30; id++) add(transaction(id))
    let dials = 0
    for (; delay() === 0; dials++) pool.dial()
    assert.strictEqual(dials, 64)

    const few = begin()
    few.add(transaction(1))
    for (dials = 0; few.delay() === 0; dials++) few.pool.dial()
    assert.strictEqual(dials, 3)
  })

  it("waits 100 ms after a connection that failed", () => {
    const { add, delay, ended, pass, pool, send } = begin()
    add(transaction(1))
    const id = pool.dial()
    ended(id, false)
    assert.deepStrictEqual([delay(), pool.needed], [100, 3])
    pass(99)
    assert.strictEqual(delay(), 1)
    pass(1)
    assert.strictEqual(delay(), 0)
    ended(send().id, false)
    assert.deepStrictEqual([delay(), pool.needed], [100, 3])
    pass(100)
    ended(send().id, true)
    assert.strictEqual(delay(), 0)
  })

  it("asks for one more connection every 2 to 3 minutes for each transaction that was not seen", () => {
    const { add, check, ended, now, pass, pool, send } = begin()
    add(transaction(1))
    for (let n = 0; n < 3; n++) ended(send().id, true)
    assert.strictEqual(pool.needed, 0)
    pass(minute)
    check()
    assert.strictEqual(pool.needed, 0)
    assert.isAtLeast(pool.nextCheck, now() + 2 * minute)
    assert.isBelow(pool.nextCheck, now() + 3 * minute)
    pass(2 * minute)
    check()
    assert.strictEqual(pool.needed, 1)
  })

  it("does not gather connections while none succeeds", () => {
    const { add, check, ended, pass, pool, send } = begin()
    add(transaction(1))
    add(transaction(2))
    ended(send().id, true)
    assert.strictEqual(pool.needed, 5)
    for (let n = 0; n < 100; n++) {
      pass(3 * minute)
      check()
    }
    assert.strictEqual(pool.needed, 6)
  })

  it("has the numbers of Core", () => {
    assert.deepInclude(limits, {
      transactions: 10_000,
      sends: 1_000,
      connections: 64,
      connectionsPerTransaction: 3,
      lifetime: 3 * minute
    })
  })
})
