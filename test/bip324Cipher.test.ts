/** Keys and ciphers of the v2 transport (BIP324): its test vectors, and node:crypto and noble against each other. */
import { assert, describe, it, vi } from "@effect/vitest"
import * as crypto from "node:crypto"
import {
  deriveKeys,
  deriveSecrets,
  makeKeyPair,
  noAad,
  nobleAead,
  sharedSecret,
  workingNodeAead
} from "../src/transport/bip324Cipher.ts"
import { sealPackets } from "../src/transport/bip324Packets.ts"
import { Network } from "../src/index.ts"
import { bothSecrets, elligatorSwift, noise } from "./support/secured.ts"
import { readVectorText } from "./support/vectors.ts"

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** Rows of a CSV file without quoted cells, keyed by the names in its first line. */
const rows = (file: string): Array<Record<string, string>> => {
  const [head = "", ...lines] = readVectorText(`bip324/${file}.csv`).trim().split(/\r?\n/)
  const names = head.split(",")
  return lines.map((line) => Object.fromEntries(line.split(",").map((cell, index) => [names[index], cell])))
}

/** An unsealed packet. */
const packet = (contents: Uint8Array, isDecoy: boolean): Uint8Array => {
  const unsealed = new Uint8Array(contents.length + 20)
  unsealed[3] = isDecoy ? 0x80 : 0
  unsealed.set(contents, 4)
  return unsealed
}

const repeated = (bytes: Uint8Array, times: number): Uint8Array => {
  const all = new Uint8Array(bytes.length * times)
  for (let i = 0; i < times; i++) all.set(bytes, i * bytes.length)
  return all
}

const aeads = { node: workingNodeAead()!, noble: nobleAead }

describe("the vectors of BIP324", () => {
  it("decode keys", () => {
    const vectors = rows("ellswift_decode_test_vectors")
    assert.strictEqual(vectors.length, 76)
    for (const { ellswift, x } of vectors) assert.strictEqual(hex(elligatorSwift.decode(bytes(ellswift))), x)
  })

  it("encode keys, for each of the eight cases, with or without a solution", () => {
    const vectors = rows("xswiftec_inv_test_vectors")
    assert.strictEqual(vectors.length, 32)
    for (const row of vectors) {
      const [u, x] = [BigInt(`0x${row.u}`), BigInt(`0x${row.x}`)]
      for (let way = 0; way < 8; way++) {
        const t = elligatorSwift._inv(x, u, way)
        assert.strictEqual(t === undefined ? "" : t.toString(16).padStart(64, "0"), row[`case${way}_t`])
        if (t !== undefined) {
          assert.strictEqual(hex(elligatorSwift.decode(bytes(row.u + t.toString(16).padStart(64, "0")))), row.x)
        }
      }
    }
  })

  for (const [name, aead] of Object.entries(aeads)) {
    it(`derive secrets, seal and open packets, with ${name}`, () => {
      const vectors = rows("packet_encoding_test_vectors")
      assert.strictEqual(vectors.length, 7)
      for (const row of vectors) {
        const ours = { privateKey: bytes(row.in_priv_ours), publicKey: bytes(row.in_ellswift_ours) }
        const initiator = row.in_initiating === "1"
        const { magic } = Network.mainnet
        assert.strictEqual(hex(elligatorSwift.decode(ours.publicKey)), row.mid_x_ours)
        assert.strictEqual(hex(elligatorSwift.decode(bytes(row.in_ellswift_theirs))), row.mid_x_theirs)
        const secret = sharedSecret(ours, bytes(row.in_ellswift_theirs), initiator)
        assert.strictEqual(hex(secret), row.mid_shared_secret)
        const keys = deriveKeys(secret, magic)
        assert.strictEqual(hex(keys.initiatorLength), row.mid_initiator_l)
        assert.strictEqual(hex(keys.initiatorContents), row.mid_initiator_p)
        assert.strictEqual(hex(keys.responderLength), row.mid_responder_l)
        assert.strictEqual(hex(keys.responderContents), row.mid_responder_p)
        const secrets = deriveSecrets(secret, magic, initiator, aead)
        assert.strictEqual(hex(secrets.sendTerminator), row.mid_send_garbage_terminator)
        assert.strictEqual(hex(secrets.receiveTerminator), row.mid_recv_garbage_terminator)
        assert.strictEqual(hex(secrets.sessionId), row.out_session_id)

        const other = deriveSecrets(secret, magic, !initiator, aead).receive
        for (let index = 0; index < Number(row.in_idx); index++) {
          const sealed = sealPackets(secrets.send, [packet(new Uint8Array(0), false)])
          other.lengthMask()
          assert.isDefined(other.open([sealed.subarray(3)], noAad))
        }
        const contents = repeated(bytes(row.in_contents), Number(row.in_multiply))
        const sealed = sealPackets(secrets.send, [packet(contents, row.in_ignore === "1")], bytes(row.in_aad))
        if (row.out_ciphertext !== "") assert.strictEqual(hex(sealed), row.out_ciphertext)
        else assert.isTrue(hex(sealed).endsWith(row.out_ciphertext_endswith))
        const length = (sealed[0] | (sealed[1] << 8) | (sealed[2] << 16)) ^ other.lengthMask()
        assert.strictEqual(length, contents.length)
        const plain = other.open([sealed.subarray(3)], bytes(row.in_aad))
        assert.isTrue(plain !== undefined && Buffer.compare(plain.subarray(1), contents) === 0)
      }
    })
  }
})

describe("the secrets of a connection", () => {
  it("are equal on both sides, and differ with another key or on another network", () => {
    const [initiator, responder] = bothSecrets()
    assert.deepStrictEqual(initiator.sessionId, responder.sessionId)
    assert.deepStrictEqual(initiator.sendTerminator, responder.receiveTerminator)
    assert.deepStrictEqual(initiator.receiveTerminator, responder.sendTerminator)
    assert.notDeepEqual(bothSecrets(Network.mainnet.magic)[0].sessionId, initiator.sessionId)
    const [one, other] = [makeKeyPair(), makeKeyPair()]
    assert.notDeepEqual(one.publicKey, other.publicKey)
    assert.deepStrictEqual(sharedSecret(one, other.publicKey, true), sharedSecret(other, one.publicKey, false))
  })

  it("exist for any 64 bytes that a remote sends as its key", () => {
    const ours = makeKeyPair()
    for (const theirs of [new Uint8Array(64), new Uint8Array(64).fill(0xff), noise(64), ours.publicKey]) {
      assert.strictEqual(sharedSecret(ours, theirs, false).length, 32)
    }
  })
})

describe("node:crypto of another runtime", () => {
  type NodeCrypto = NonNullable<Parameters<typeof workingNodeAead>[0]>
  const node: NodeCrypto = crypto
  const unknown = (): never => {
    throw new Error("Unknown cipher")
  }
  /** Node's module with one method of its ciphers or deciphers replaced. */
  const altered = (
    which: "createCipheriv" | "createDecipheriv",
    method: string,
    replacement: (...args: ReadonlyArray<unknown>) => unknown
  ): NodeCrypto => ({
    ...node,
    [which]: (...args: Parameters<typeof crypto.createCipheriv>) =>
      Object.assign(node[which](...args), { [method]: replacement })
  })
  const broken: Readonly<Record<string, NodeCrypto | undefined>> = {
    "that is missing": undefined,
    "without ChaCha20-Poly1305, as in Bun 1.4": { createCipheriv: unknown, createDecipheriv: unknown },
    "that seals but does not open": { ...node, createDecipheriv: unknown },
    "that rejects the tag": altered("createDecipheriv", "setAuthTag", unknown),
    "that rejects associated data": altered("createCipheriv", "setAAD", unknown),
    "that computes a wrong tag": altered("createCipheriv", "getAuthTag", () => new Uint8Array(16)),
    "that computes a wrong ciphertext": altered("createCipheriv", "update", (bytes) => bytes),
    "that opens packets with a wrong tag": altered("createDecipheriv", "final", () => new Uint8Array(0))
  }
  for (const [what, module] of Object.entries(broken)) {
    it(`is not used: a module ${what}`, () => assert.isUndefined(workingNodeAead(module ?? ({} as NodeCrypto))))
  }

  it("is used if it works", () => assert.isDefined(workingNodeAead(node)))

  it("causes no exception when it fails on received bytes", () => {
    const { createDecipheriv } = node
    for (const method of ["update", "setAAD", "setAuthTag", "final"]) {
      let works = true
      const aead = workingNodeAead({
        ...node,
        createDecipheriv: ((...args: Parameters<typeof createDecipheriv>) => {
          const decipher = createDecipheriv(...args)
          return works ? decipher : Object.assign(decipher, { [method]: unknown })
        }) as typeof createDecipheriv
      })
      works = false
      assert.isUndefined(aead!.open(noise(32), noise(12), noise(5), [noise(3_000)]), method)
    }
  })

  it("is replaced by noble for packets of any length where it does not work", async () => {
    vi.resetModules()
    const builtin = vi.spyOn(process, "getBuiltinModule").mockReturnValue({ createCipheriv: unknown } as never)
    const { deriveSecrets } = await import("../src/transport/bip324Cipher.ts")
    const secret = noise(32)
    const [ours, theirs] = [true, false].map((initiator) => deriveSecrets(secret, Network.mainnet.magic, initiator))
    for (const size of [10, 100_000, 2_048, 2_049]) {
      const sealed = new Uint8Array(size + 16)
      ours!.send.seal(noise(size), noAad, sealed)
      assert.deepStrictEqual(theirs!.receive.open([sealed], noAad), noise(size))
    }
    assert.strictEqual(builtin.mock.calls.filter(([name]) => name === "node:crypto").length > 0, true)
    vi.restoreAllMocks()
    vi.resetModules()
  })
})

describe("the packet ciphers of node and noble", () => {
  it("give the same bytes for any size, associated data and chunks", () => {
    const [key, nonce] = [noise(32, 2), noise(12, 3)]
    for (const size of [0, 1, 15, 16, 17, 63, 64, 65, 1_000, 70_000]) {
      for (const aad of [noAad, noise(5), noise(4_095)]) {
        const plain = noise(size, size)
        const sealed = [aeads.node, aeads.noble].map((aead) => {
          const room = new Uint8Array(size + 16)
          room.set(plain)
          aead.seal(key, nonce, aad, room.subarray(0, size), room)
          return room
        })
        assert.deepStrictEqual(sealed[0], sealed[1])
        for (const aead of [aeads.node, aeads.noble]) {
          assert.deepStrictEqual(aead.open(key, nonce, aad, [sealed[0]]), plain)
          for (const cut of [0, 1, size, size + 1, size + 15]) {
            const parts = [sealed[0].subarray(0, cut), sealed[0].subarray(cut, cut + 3), sealed[0].subarray(cut + 3)]
            assert.deepStrictEqual(aead.open(key, nonce, aad, parts), plain)
          }
          for (const at of [0, size, size + 15]) {
            const altered = sealed[0].slice()
            altered[at] ^= 1
            assert.isUndefined(aead.open(key, nonce, aad, [altered]))
          }
          assert.isUndefined(aead.open(key, nonce, noise(6), [sealed[0]]))
        }
      }
    }
  })
})
