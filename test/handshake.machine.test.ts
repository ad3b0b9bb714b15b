/** The handshake as a state machine, without a connection or a clock. */
import { assert, describe, it } from "@effect/vitest"
import { Policy, type Wire } from "effect-bitcoin-peer"
import * as Machine from "../src/handshake/machine.ts"

const address = { services: 0n, address: new Uint8Array(16), port: 0 }

const version = (fields: Partial<Wire.Version> = {}): Wire.Version => ({
  _tag: "version",
  protocolVersion: 70_017,
  services: 0n,
  timestamp: 0,
  receiver: address,
  sender: address,
  nonce: 42n,
  userAgent: "/test/",
  startHeight: 0,
  relay: true,
  ...fields
})

const config = (fields: Partial<Machine.Config> = {}): Machine.Config => ({
  direction: "outbound",
  policy: Policy.core,
  minimumProtocolVersion: 31_800,
  requiredServices: [],
  features: [],
  isOwnNonce: (nonce) => nonce === 7n,
  version: version({ nonce: 7n }),
  ...fields
})

const tags = (messages: ReadonlyArray<Wire.Message>): ReadonlyArray<string> => messages.map(({ _tag }) => _tag)

/** Feeds messages to the machine until the first failure. */
const run = (config: Machine.Config, messages: ReadonlyArray<Wire.Message>) => {
  let state = Machine.initial
  const sent = [...Machine.start(config, 1_000)]
  for (const message of messages) {
    const step = Machine.step(config, state, message, 1_000)
    state = step.state
    sent.push(...step.send)
    if (step.failure !== undefined) return { state, sent, failure: step.failure }
  }
  return { state, sent, failure: undefined }
}

const verack: Wire.Message = { _tag: "verack" }
const feature = (id: string): Wire.Feature => ({ _tag: "feature", id, data: new Uint8Array(0) })

describe.each(["inbound", "outbound"] as const)("%s handshake", (direction) => {
  it("sends version, wtxidrelay, sendaddrv2, feature, verack in this order", () => {
    const { sent, state } = run(config({ direction, features: [{ id: "BIP1", data: new Uint8Array(0) }] }), [
      version(),
      verack
    ])
    assert.deepStrictEqual(tags(sent), ["version", "wtxidrelay", "sendaddrv2", "feature", "verack"])
    assert.strictEqual(state._tag, "Done")
  })

  it.each([
    [31_800, ["version", "verack"]],
    [70_015, ["version", "verack"]],
    [70_016, ["version", "wtxidrelay", "sendaddrv2", "verack"]],
    [70_017, ["version", "wtxidrelay", "sendaddrv2", "feature", "verack"]],
    [80_000, ["version", "wtxidrelay", "sendaddrv2", "feature", "verack"]]
  ])("sends a peer of version %i only the messages that the common version allows", (protocolVersion, expected) => {
    const { sent } = run(config({ direction, features: [{ id: "BIP1", data: new Uint8Array(0) }] }), [
      version({ protocolVersion })
    ])
    assert.deepStrictEqual(tags(sent), expected)
  })

  it("sends the right number of messages for every version from 31800 to 70017", () => {
    for (let protocolVersion = 31_800; protocolVersion <= 70_017; protocolVersion++) {
      const { failure, sent } = run(config({ direction, features: [{ id: "BIP1", data: new Uint8Array(0) }] }), [
        version({ protocolVersion }),
        verack
      ])
      assert.isUndefined(failure)
      const expected = protocolVersion >= 70_017 ? 5 : protocolVersion >= 70_016 ? 4 : 2
      assert.strictEqual(sent.length, expected, String(protocolVersion))
    }
  })

  it("takes the lower of both protocol versions as the common one", () => {
    const { sent } = run(config({ direction, version: version({ protocolVersion: 70_015 }) }), [version()])
    assert.deepStrictEqual(tags(sent), ["version", "verack"])
  })

  it("sets the timestamp of our version when it is sent", () => {
    const { sent } = run(config({ direction }), [version()])
    assert.strictEqual((sent[0] as Wire.Version).timestamp, 1_000)
  })

  it("is done at the peer's verack, and not before", () => {
    assert.strictEqual(run(config({ direction }), [version()]).state._tag, "AwaitingVerack")
    assert.strictEqual(run(config({ direction }), [version(), verack]).state._tag, "Done")
  })

  it("records wtxidrelay, sendaddrv2 and features between version and verack", () => {
    const { state } = run(config({ direction }), [
      version(),
      { _tag: "wtxidrelay" },
      { _tag: "sendaddrv2" },
      { ...feature("BIP434"), data: Uint8Array.of(1) },
      verack
    ])
    assert.isTrue(state.wtxidRelay)
    assert.isTrue(state.addrV2)
    assert.deepStrictEqual(Array.from(state.features), [["BIP434", Uint8Array.of(1)]])
  })

  it("ignores repeated negotiation messages and keeps the first", () => {
    const { failure, state } = run(config({ direction }), [
      version(),
      { _tag: "wtxidrelay" },
      { _tag: "wtxidrelay" },
      { _tag: "sendaddrv2" },
      { _tag: "sendaddrv2" },
      { ...feature("BIP434"), data: Uint8Array.of(1) },
      { ...feature("BIP434"), data: Uint8Array.of(2) },
      verack
    ])
    assert.isUndefined(failure)
    assert.deepStrictEqual(state.features.get("BIP434"), Uint8Array.of(1))
  })

  it("records at most 64 features", () => {
    const features = Array.from({ length: 1_000 }, (_, index) => feature(`feature ${index}`))
    const { failure, state } = run(config({ direction }), [version(), ...features, verack])
    assert.isUndefined(failure)
    assert.strictEqual(state.features.size, 64)
    assert.isTrue(state.features.has("feature 63"))
  })

  it("ignores wtxidrelay below 70016", () => {
    const { failure, state } = run(config({ direction }), [
      version({ protocolVersion: 70_015 }),
      { _tag: "wtxidrelay" },
      verack
    ])
    assert.isUndefined(failure)
    assert.isFalse(state.wtxidRelay)
  })

  it("refuses a feature below 70017", () => {
    const { failure } = run(config({ direction }), [version({ protocolVersion: 70_016 }), feature("BIP434")])
    assert.strictEqual(failure?._tag, "BadFeature")
  })

  it("ignores other messages before verack (btcd #2278)", () => {
    const { failure, state } = run(config({ direction }), [
      version(),
      { _tag: "sendtxrcncl", version: 1, salt: 1n },
      { _tag: "ping", nonce: 1n },
      { _tag: "sendheaders" },
      { _tag: "inv", items: [] },
      verack
    ])
    assert.isUndefined(failure)
    assert.strictEqual(state._tag, "Done")
  })

  it("detects a connection to ourselves before it answers", () => {
    const { failure, sent } = run(config({ direction }), [version({ nonce: 7n })])
    assert.strictEqual(failure?._tag, "SelfConnection")
    assert.deepStrictEqual(tags(sent), direction === "outbound" ? ["version"] : [])
  })

  it("refuses a version below the minimum, and accepts the minimum", () => {
    assert.strictEqual(
      run(config({ direction }), [version({ protocolVersion: 31_799 })]).failure?._tag,
      "VersionTooOld"
    )
    assert.isUndefined(run(config({ direction }), [version({ protocolVersion: 31_800 }), verack]).failure)
  })

  it("refuses a peer with no bit of a required mask, and accepts one with any bit of each mask", () => {
    const strict = config({ direction, requiredServices: [1n | 1024n, 8n] })
    assert.strictEqual(run(strict, [version({ services: 1n })]).failure?._tag, "ServicesMissing")
    assert.strictEqual(run(strict, [version({ services: 8n })]).failure?._tag, "ServicesMissing")
    assert.isUndefined(run(strict, [version({ services: 8n | 1024n }), verack]).failure)
    assert.isUndefined(run(strict, [version({ services: 9n }), verack]).failure)
  })

  const early: ReadonlyArray<Wire.Message> = [verack, { _tag: "ping", nonce: 1n }, { _tag: "sendaddrv2" }]

  it("fails on a first message other than version under btcd's policy", () => {
    for (const message of early) {
      const { failure } = run(config({ direction, policy: Policy.btcd }), [message, version(), verack])
      assert.deepStrictEqual(failure, { _tag: "NotVersionFirst", received: message._tag })
    }
  })

  it("ignores messages before version under Core's policy", () => {
    const { failure, state } = run(config({ direction, policy: Policy.core }), [...early, version(), verack])
    assert.isUndefined(failure)
    assert.strictEqual(state._tag, "Done")
    assert.isFalse(state.addrV2)
  })

  it("fails on a second version under btcd's policy, and ignores it under Core's", () => {
    const again = [version(), version({ protocolVersion: 60_000 }), verack]
    assert.strictEqual(run(config({ direction, policy: Policy.btcd }), again).failure?._tag, "DuplicateVersion")
    const { state } = run(config({ direction, policy: Policy.core }), again)
    assert.strictEqual(state.remote?.protocolVersion, 70_017)
    assert.strictEqual(state._tag, "Done")
  })

  it("sends a reject only under btcd's policy, and not to a peer below version 70002", () => {
    const rejects = (policy: Policy.Policy, messages: ReadonlyArray<Wire.Message>) =>
      run(config({ direction, policy, minimumProtocolVersion: 70_002 }), messages).sent.filter(
        ({ _tag }) => _tag === "reject"
      )
    assert.deepStrictEqual(rejects(Policy.core, [version(), version()]), [])
    assert.deepStrictEqual(rejects(Policy.btcd, [version(), version()]), [
      { _tag: "reject", rejected: "version", code: 0x12, reason: "duplicate version message", hash: undefined }
    ])
    assert.deepStrictEqual(rejects(Policy.btcd, [version({ protocolVersion: 70_001 })]), [])
    assert.lengthOf(rejects(Policy.btcd, [verack]), 1)
  })
})
