/** The BIP324 key exchange as a state machine, without a connection: both roles, any chunks, and every failure. */
import { assert, describe, it } from "@effect/vitest"
import { deriveSecrets, type KeyPair, type Secrets, sharedSecret } from "../src/transport/bip324Cipher.ts"
import * as KeyExchange from "../src/transport/keyExchange.ts"
import { Network } from "../src/index.ts"
import { makePacketParser } from "../src/transport/bip324Packets.ts"
import { concat } from "./support/generators.ts"
import { frames } from "./support/hostile.ts"
import { network, version } from "./support/peers.ts"
import { keyPairs, noise } from "./support/secured.ts"

type Role = "initiator" | "responder"

interface Plan {
  readonly keyPair: KeyPair
  readonly garbage: Uint8Array
  readonly decoys: ReadonlyArray<number>
}

const plans: Record<Role, Plan> = {
  initiator: { keyPair: keyPairs[0], garbage: noise(100), decoys: [] },
  responder: { keyPair: keyPairs[1], garbage: noise(200), decoys: [] }
}

/** One side and its driver: takes received bytes and returns bytes to send, until the exchange is done or has failed. */
const side = (role: Role, plan: Partial<Plan> = {}, magic: Uint8Array = network.magic) => {
  const { decoys, garbage, keyPair } = { ...plans[role], ...plan }
  const exchange = KeyExchange.make(role, magic)
  const drive = (from: KeyExchange.Step): { readonly sent: Uint8Array; readonly step: KeyExchange.Step } => {
    let sent: Uint8Array = new Uint8Array(0)
    let step = from
    while (true) {
      switch (step._tag) {
        case "NeedKey":
          sent = concat(sent, KeyExchange.offerKey(exchange, keyPair, garbage))
          break
        case "NeedSecrets": {
          const secret = sharedSecret(step.ours, step.theirs, role === "initiator")
          sent = concat(sent, KeyExchange.agree(exchange, deriveSecrets(secret, magic, role === "initiator"), decoys))
          break
        }
        default:
          return { sent, step }
      }
      step = KeyExchange.next(exchange)
    }
  }
  return {
    start: () => drive(KeyExchange.next(exchange)),
    receive: (bytes: Uint8Array) => drive(KeyExchange.receive(exchange, bytes))
  }
}

type Done = Extract<KeyExchange.Step, { readonly _tag: "Done" }>

/** Feeds the bytes in chunks of `size`; returns the last step, the bytes to send, and how many bytes were used. */
const fed = (receiver: ReturnType<typeof side>, bytes: Uint8Array, size: number) => {
  let last = receiver.receive(bytes.subarray(0, size))
  let sent = last.sent
  let offset = size
  while (last.step._tag === "NeedBytes" && offset < bytes.length) {
    last = receiver.receive(bytes.subarray(offset, (offset += size)))
    sent = concat(sent, last.sent)
  }
  return { sent, step: last.step, offset: Math.min(offset, bytes.length) }
}

/** Runs both sides against each other, in chunks of `size` bytes. */
const exchanged = (initiator: Partial<Plan>, responder: Partial<Plan>, size = Infinity) => {
  const [ours, theirs] = [side("initiator", initiator), side("responder", responder)]
  const first = ours.start()
  assert.strictEqual(first.step._tag, "NeedBytes")
  const second = fed(theirs, first.sent, size)
  const third = fed(ours, second.sent, size)
  const fourth = fed(theirs, third.sent, size)
  assert.isTrue(third.step._tag === "Done" && fourth.step._tag === "Done", `${third.step._tag} ${fourth.step._tag}`)
  return {
    initiator: third.step as Done,
    responder: fourth.step as Done,
    fromResponder: second.sent.subarray(third.offset),
    fromInitiator: third.sent.subarray(fourth.offset)
  }
}

const parserOf = ({ garbage, secrets }: { readonly garbage: Uint8Array; readonly secrets: Secrets }) =>
  makePacketParser({ direction: secrets.receive, garbage })

describe("the key exchange", () => {
  it("gives both sides the same secrets, with garbage of 0, 1 and 4,095 bytes on either side", () => {
    for (const ours of [0, 1, 4_095]) {
      for (const theirs of [0, 1, 4_095]) {
        const both = exchanged({ garbage: noise(ours, 5) }, { garbage: noise(theirs, 6) })
        assert.deepStrictEqual(both.initiator.secrets.sessionId, both.responder.secrets.sessionId)
        assert.deepStrictEqual(both.initiator.garbage, noise(theirs, 6))
        assert.deepStrictEqual(both.responder.garbage, noise(ours, 5))
        for (const { garbage, rest, secrets } of [both.initiator, both.responder]) {
          const parser = parserOf({ garbage, secrets })
          assert.isFalse(parser.confirmed)
          assert.deepStrictEqual(parser.push(rest), [])
          assert.isTrue(parser.confirmed)
        }
      }
    }
  })

  it("loses no byte when bytes arrive one at a time", () => {
    const both = exchanged({ decoys: [10] }, { decoys: [0, 3] }, 1)
    const parser = parserOf(both.initiator)
    parser.push(both.initiator.rest)
    parser.push(both.fromResponder)
    assert.isTrue(parser.confirmed)
    const other = parserOf(both.responder)
    other.push(both.responder.rest)
    other.push(both.fromInitiator)
    assert.isTrue(other.confirmed)
  })

  it("accepts decoys first, and authenticates the garbage with the first packet, decoy or not", () => {
    for (const decoys of [[], [0], [5, 1_000, 70_000]]) {
      const { initiator } = exchanged({}, { decoys, garbage: noise(50) })
      const parser = parserOf(initiator)
      assert.deepStrictEqual(parser.push(initiator.rest), [])
      assert.isTrue(parser.confirmed)
      assert.isUndefined(parser.failure)

      const again = exchanged({}, { decoys, garbage: noise(50) }).initiator
      const altered = parserOf({ ...again, garbage: noise(50, 9) })
      altered.push(again.rest)
      assert.strictEqual(altered.failure?.reason._tag, "NotAuthentic")
      assert.isFalse(altered.confirmed)
    }
  })

  it("fails at 4,096 bytes of garbage or without a terminator, and not earlier, in any chunks", () => {
    for (const size of [1, 1_000, Infinity]) {
      const initiator = side("initiator")
      const { sent } = fed(side("responder"), initiator.start().sent, Infinity)
      const terminator = sent.subarray(64 + 200, 64 + 200 + 16)
      const tooLong = concat(sent.subarray(0, 64), noise(4_096), terminator)
      const { offset, step } = fed(initiator, tooLong, size)
      assert.deepStrictEqual(step, { _tag: "Failed", failure: { _tag: "NoTerminator" } })
      if (size === 1) assert.strictEqual(offset, 64 + 4_095 + 16)

      const other = side("initiator")
      other.start()
      assert.strictEqual(fed(other, concat(sent.subarray(0, 64), noise(4_110)), size).step._tag, "NeedBytes")
      assert.strictEqual(fed(other, noise(1), size).step._tag, "Failed")
    }
  })

  it("finds a terminator that overlaps a partial match", () => {
    const initiator = side("initiator")
    const { sent } = fed(side("responder", { garbage: noise(0) }), initiator.start().sent, Infinity)
    const terminator = sent.subarray(64, 80)
    const almost = concat(sent.subarray(0, 64), terminator.subarray(0, 15), terminator.subarray(0, 1), terminator)
    const { step } = fed(initiator, almost, 7)
    assert.strictEqual(step._tag, "Done")
    assert.strictEqual((step as Done).garbage.length, 16)
  })

  it("fails when the remote is on another network", () => {
    const initiator = side("initiator")
    const { sent } = fed(side("responder", {}, Network.signet.magic), initiator.start().sent, Infinity)
    assert.strictEqual(fed(initiator, concat(sent, noise(4_111)), Infinity).step._tag, "Failed")
  })

  it("sends only key and garbage while the remote's key is incomplete", () => {
    const initiator = side("initiator")
    assert.strictEqual(initiator.start().sent.length, 64 + 100)
    assert.deepStrictEqual(initiator.receive(noise(63)), { sent: new Uint8Array(0), step: { _tag: "NeedBytes" } })
  })
})

describe("the first received bytes", () => {
  const hello = frames([version()])

  it("mean v1 for a responder when 16 of them are those of a version message, and not before", () => {
    const responder = side("responder")
    for (let i = 0; i < 15; i++) {
      assert.deepStrictEqual(responder.receive(hello.subarray(i, i + 1)).step, { _tag: "NeedBytes" })
    }
    const { sent, step } = responder.receive(hello.subarray(15, 30))
    assert.deepStrictEqual(step, { _tag: "Version1", bytes: hello.subarray(0, 30) })
    assert.strictEqual(sent.length, 0)
  })

  it("mean v2 for a responder from the first one that differs from a version message", () => {
    // From byte 4 on the magic is ours, so this is not a version message of another network.
    for (let different = 0; different < 16; different++) {
      const bytes = hello.slice(0, different + 1)
      bytes[different]! ^= 1
      const alone = side("responder")
      const { sent, step } = fed(alone, bytes, 1)
      assert.strictEqual(step._tag, "NeedBytes")
      assert.strictEqual(sent.length, 64 + 200)
    }
  })

  it("make a responder fail with OtherNetwork if they are a v1 version message of another network", () => {
    for (const size of [1, 16, Infinity]) {
      const other = concat(Network.signet.magic, hello.subarray(4))
      const { step } = fed(side("responder"), other, size)
      assert.deepStrictEqual(step, { _tag: "Failed", failure: { _tag: "OtherNetwork", magic: Network.signet.magic } })
    }
    const known = fed(side("responder"), concat(Network.signet.magic, hello.subarray(4)), Infinity)
    assert.strictEqual(known.sent.length, 0, "no key is sent to a v1 node of another network")
  })

  it("are a key for an initiator, even if they begin like a v1 version message", () => {
    const initiator = side("initiator")
    initiator.start()
    assert.strictEqual(initiator.receive(concat(hello.subarray(0, 16), noise(48))).step._tag, "NeedBytes")
  })
})
