import { assert, describe, it } from "@effect/vitest"
import type { RelayOptions } from "../../src/server/internal/addressRelay.ts"
import * as Permissions from "../../src/server/Permissions.ts"
import {
  address,
  at,
  day,
  entries,
  entry,
  full,
  minute,
  network,
  onion,
  range,
  rig,
  second,
  start,
  text,
  v2
} from "../support/addressRelay.ts"

describe("the queue of a peer", () => {
  it("is sent after 30 seconds on average, in one message", () => {
    const waits = range(1, 400).map((seed) => {
      const one = network(1, {}, seed)
      one.relay.received(0, v2([entry("11.1.1.1"), entry("11.1.1.2")]), start)
      const due = one.relay.next()
      assert.deepStrictEqual(one.relay.tick(due - 1), [])
      const [send] = one.relay.tick(due)
      assert.strictEqual(send?.id, 1)
      assert.isTrue(send?.wantsV2)
      assert.sameMembers(send!.addresses.map(text), ["11.1.1.1:8333", "11.1.1.2:8333"])
      assert.strictEqual(one.relay.next(), Infinity)
      return (due - start) / second
    })
    const mean = waits.reduce((sum, wait) => sum + wait) / waits.length
    assert.isAbove(mean, 26)
    assert.isBelow(mean, 34)
    // Exponential: a third waits longer than the mean, and some much longer.
    const longer = waits.filter((wait) => wait > 30).length / waits.length
    assert.isAbove(longer, 0.3)
    assert.isBelow(longer, 0.44)
  })

  it("waits anew when it was empty, however long that was", () => {
    const one = network(1)
    one.relay.received(0, v2([entry("11.1.1.1")]), start)
    one.relay.tick(one.relay.next())
    const later = start + day
    one.relay.received(0, v2([entry("11.1.1.2", { timestamp: later / second })]), later)
    assert.isAbove(one.relay.next(), later)
    assert.deepStrictEqual(one.relay.tick(later), [])
  })

  it("leaves out what became known while it waited", () => {
    const one = network(1)
    one.relay.received(0, v2([entry("11.1.1.1"), entry("11.1.1.2")]), start)
    one.relay.received(1, v2([entry("11.1.1.1")]), start)
    const [send] = one.relay.tick(start + day)
    assert.deepStrictEqual(send?.addresses.map(text), ["11.1.1.2:8333"])
  })

  it("sends nothing where all became known", () => {
    const one = network(1)
    one.relay.received(0, v2([entry("11.1.1.1")]), start)
    one.relay.received(1, v2([entry("11.1.1.1")]), start)
    assert.deepStrictEqual(one.relay.tick(start + day), [])
    assert.strictEqual(one.relay.next(), Infinity)
  })

  it("holds 1,000; then one of them makes room by chance", () => {
    const one = rig({ answer: () => entries(1_000) })
    one.add(0, "outbound-full-relay", { permissions: Permissions.of("addr") })
    one.add(1, "inbound")
    one.relay.received(0, v2([]), start)
    one.relay.getaddr(1, start)
    assert.lengthOf(one.queued(1), 1_000)
    for (let i = 0; i < 50; i++) one.relay.received(0, v2([entry(`77.1.${i}.1`)]), start)
    const queue = one.queued(1)
    assert.lengthOf(queue, 1_000)
    const added = queue.filter((host) => host.startsWith("77.")).length
    assert.isAtLeast(added, 45)
    assert.isAtMost(added, 50)
  })

  it("does not keep the bytes of the message alive", () => {
    const one = network(1)
    const message = new Uint8Array(100_000)
    message.set([11, 1, 1, 1], 500)
    one.relay.received(0, v2([{ ...entry("11.1.1.1"), address: message.subarray(500, 504) }]), start)
    assert.strictEqual(one.relay.queued(1)[0]?.address.buffer.byteLength, 4)
  })
})

describe("getaddr that a peer sends", () => {
  const asked: Array<number> = []
  const answering = () =>
    rig({
      answer: ({ id }) => {
        asked.push(id)
        return [...entries(5), entry(onion), entry("0.0.0.0")]
      }
    })

  it("is answered once, through the queue, with what the peer can read", () => {
    asked.length = 0
    const one = answering()
    one.add(1, "inbound", { wantsV2: false })
    one.relay.getaddr(1, start)
    one.relay.getaddr(1, start)
    assert.deepStrictEqual(asked, [1])
    assert.lengthOf(one.queued(1), 5)
    const due = one.relay.next()
    assert.isAbove(due, start)
    const [send] = one.relay.tick(due)
    assert.strictEqual(send?.addresses.length, 5)
    assert.isFalse(send?.wantsV2)
  })

  it.each(["outbound-full-relay", "manual", "block-relay-only", "addr-fetch", "feeler"] as const)(
    "is not answered to %s",
    (kind) => {
      asked.length = 0
      const one = answering()
      one.add(1, kind)
      one.relay.getaddr(1, start)
      assert.deepStrictEqual(asked, [])
      assert.deepStrictEqual(one.queued(1), [])
    }
  )

  it("takes the place of what waited", () => {
    const one = answering()
    one.add(0)
    one.add(1, "inbound")
    one.relay.received(0, v2([]), start)
    one.relay.received(1, v2([]), start)
    one.relay.received(0, v2([entry("77.1.1.1")]), start)
    assert.deepStrictEqual(one.queued(1), ["77.1.1.1:8333"])
    one.relay.getaddr(1, start)
    assert.notInclude(one.queued(1), "77.1.1.1:8333")
  })
})

describe("our own address", () => {
  const own = address("88.1.1.1")
  const announcing = (options?: Partial<RelayOptions>, seed?: number) =>
    rig({ announces: () => true, ownAddress: () => own, ...options }, seed)

  it("comes first, alone, with our services and the time", () => {
    const one = announcing()
    one.add(1)
    assert.isAtMost(one.relay.next(), start)
    const sends = one.relay.tick(start)
    assert.deepStrictEqual(sends, [
      {
        id: 1,
        wantsV2: true,
        addresses: [{ networkId: 1, address: own.address, port: 8333, services: full, timestamp: at }]
      }
    ])
    assert.deepStrictEqual(one.relay.tick(start), [])
  })

  it("comes once a day on average, together with others, though the peer knows it", () => {
    const waits = range(1, 200).map((seed) => {
      const one = announcing({}, seed)
      one.add(1)
      one.relay.tick(start)
      const due = one.relay.next()
      // It waits for its turn, as any other address. The peer sent it to us itself.
      one.relay.received(1, v2([entry("88.1.1.1")]), start)
      assert.deepStrictEqual(one.relay.tick(due), [])
      assert.deepStrictEqual(one.queued(1), ["88.1.1.1:8333"])
      const [send] = one.relay.tick(one.relay.next())
      assert.deepStrictEqual(send?.addresses.map(text), ["88.1.1.1:8333"])
      return (due - start) / day
    })
    const mean = waits.reduce((sum, wait) => sum + wait) / waits.length
    assert.isAbove(mean, 0.8)
    assert.isBelow(mean, 1.2)
  })

  it("is not told to inbound peers before they relay addresses, nor to block-relay peers", () => {
    const one = announcing()
    one.add(1, "inbound")
    one.add(2, "block-relay-only")
    assert.strictEqual(one.relay.next(), Infinity)
    assert.deepStrictEqual(one.relay.tick(start), [])
    one.relay.getaddr(1, start)
    assert.deepStrictEqual(
      one.relay.tick(start).map(({ id }) => id),
      [1]
    )
  })

  it("waits until we listen and are in sync", () => {
    let ready = false
    const one = announcing({ announces: () => ready })
    one.add(1)
    assert.deepStrictEqual(one.relay.tick(start), [])
    assert.strictEqual(one.relay.next(), Infinity)
    ready = true
    assert.lengthOf(one.relay.tick(start + minute), 1)
  })

  it("is not told where there is none, and later goes with others", () => {
    let known = false
    const one = announcing({ ownAddress: () => (known ? own : undefined) })
    one.add(1)
    assert.deepStrictEqual(one.relay.tick(start), [])
    known = true
    one.relay.tick(one.relay.next())
    assert.deepStrictEqual(one.queued(1), ["88.1.1.1:8333"])
  })

  it("is an onion address only for peers that can read it", () => {
    const one = announcing({ ownAddress: () => address(onion) })
    one.add(1, "outbound-full-relay", { wantsV2: false })
    one.add(2)
    assert.deepStrictEqual(
      one.relay.tick(start).map(({ id }) => id),
      [2]
    )
  })

  it("is chosen for each peer", () => {
    const one = announcing({ ownAddress: ({ id }) => address(`88.1.1.${id}`) })
    one.add(1)
    one.add(2)
    assert.deepStrictEqual(
      one.relay.tick(start).map(({ addresses }) => text(addresses[0]!)),
      ["88.1.1.1:8333", "88.1.1.2:8333"]
    )
  })
})
