/** The networks: magic, default port, genesis hash, and their JSON. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Network } from "effect-bitcoin-peer"

describe("Network", () => {
  it("has the magic, the port and the genesis hash of each network in wire order", () => {
    assert.deepStrictEqual(Array.from(Network.mainnet.magic), [0xf9, 0xbe, 0xb4, 0xd9])
    assert.deepStrictEqual(
      Network.all.map(({ name, port }) => [name, port]),
      [
        ["mainnet", 8333],
        ["testnet3", 18333],
        ["regtest", 18444],
        ["simnet", 18555],
        ["signet", 38333],
        ["testnet4", 48333]
      ]
    )
    for (const { genesisHash, magic } of Network.all) {
      assert.strictEqual(magic.length, 4)
      assert.strictEqual(genesisHash.length, 32)
    }
  })

  it("finds a network by magic, by default port and by name", () => {
    for (const network of Network.all) {
      assert.strictEqual(Network.fromMagic(network.magic), network)
      assert.strictEqual(Network.fromPort(network.port), network)
      assert.strictEqual(Network.fromName(network.name as Network.Name), network)
    }
    assert.isUndefined(Network.fromMagic(Uint8Array.of(1, 2, 3, 4)))
    assert.isUndefined(Network.fromPort(12_345))
  })

  it.effect("encodes to JSON and decodes from it, with the genesis hash in the usual reversed hex", () =>
    Effect.gen(function* () {
      const json = yield* Schema.encodeEffect(Network.Network)(Network.regtest)
      assert.strictEqual(json.magic, "fabfb5da")
      assert.strictEqual(json.genesisHash, "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206")
      assert.deepStrictEqual(yield* Schema.decodeEffect(Network.Network)(json), Network.regtest)
    })
  )

  it.effect("refuses a magic or hash of a wrong size, and a port out of range", () =>
    Effect.gen(function* () {
      const json = yield* Schema.encodeEffect(Network.Network)(Network.regtest)
      for (const bad of [{ magic: "fabfb5" }, { genesisHash: "00" }, { port: 0 }, { port: 70_000 }, { name: "" }]) {
        const exit = yield* Effect.exit(Schema.decodeEffect(Network.Network)({ ...json, ...bad }))
        assert.strictEqual(exit._tag, "Failure", JSON.stringify(bad))
      }
    })
  )
})
