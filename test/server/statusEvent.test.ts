/** Events of a server as JSON, and which requests a status answers. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Schema } from "effect"
import { Address, Peer } from "effect-bitcoin-peer"
import type { Server } from "effect-bitcoin-peer/server"
import { isOwnHost, refusal } from "../../src/server/internal/requestGuard.ts"
import { StatusEvent, statusEvent } from "../../src/server/internal/statusEvent.ts"
import { Duplicate } from "../../src/server/ServerEvent.ts"

const target: Address.Address = { networkId: 1, address: Uint8Array.of(1, 2, 3, 4), port: 8333 }
const reason: Peer.EndReason = { _tag: "PingTimeout", after: Duration.seconds(20) }

const events: ReadonlyArray<readonly [Server.ServerEvent, Omit<StatusEvent, "event" | "time">]> = [
  [
    { _tag: "Dialing", id: 1, kind: "manual", target },
    { id: 1, connection_type: "manual", addr: "1.2.3.4:8333" }
  ],
  [
    {
      _tag: "DialFailed",
      id: 1,
      kind: "feeler",
      target: { host: "node.example", port: 8333 },
      error: new Duplicate({ address: "1.2.3.4:8333" })
    },
    {
      id: 1,
      connection_type: "feeler",
      addr: "node.example:8333",
      message: "the server is connected to 1.2.3.4:8333 already"
    }
  ],
  [
    { _tag: "Accepted", id: 2, host: "::1", port: 5 },
    { id: 2, connection_type: "inbound", addr: "[::1]:5" }
  ],
  [
    { _tag: "Refused", host: "1.2.3.4", step: "full", unlogged: 0 },
    { connection_type: "inbound", addr: "1.2.3.4", message: "full" }
  ],
  [
    { _tag: "Ready", id: 1, kind: "manual", target, userAgent: "/a:1/", services: 1n, transport: "v2" },
    { id: 1, connection_type: "manual", addr: "1.2.3.4:8333", message: "v2 /a:1/" }
  ],
  [
    { _tag: "Ended", id: 1, kind: "manual", target, reason, assessment: Peer.assess(reason), age: 5 },
    { id: 1, connection_type: "manual", addr: "1.2.3.4:8333", message: "no answer to a ping within 20s" }
  ],
  [
    { _tag: "Evicted", id: 3, by: 4 },
    { id: 3, message: "to make room for 4" }
  ],
  [{ _tag: "Evicted", id: 3, by: undefined }, { id: 3 }],
  [
    { _tag: "Discouraged", host: "1.2.3.4", why: "bad block" },
    { addr: "1.2.3.4", message: "bad block" }
  ],
  [
    { _tag: "Banned", subnet: "1.2.3.0/24", until: 86_400_000 },
    { addr: "1.2.3.0/24", message: "until 1970-01-02T00:00:00.000Z" }
  ],
  [{ _tag: "Unbanned", subnet: "1.2.3.0/24" }, { addr: "1.2.3.0/24" }],
  [{ _tag: "Offline" }, {}],
  [{ _tag: "Seeded", source: "seed.example", addresses: 25 }, { message: "25 addresses of seed.example" }],
  [{ _tag: "Warning", message: "look" }, { message: "look" }]
]

describe("an event of the status", () => {
  for (const [event, expected] of events) {
    it(`${event._tag} has its time, name and details`, () => {
      const flat = statusEvent(event, 1_500)
      assert.deepStrictEqual(flat, { time: 1.5, event: event._tag, ...expected })
      assert.deepStrictEqual(Schema.decodeUnknownSync(StatusEvent)(JSON.parse(JSON.stringify(flat))), flat)
    })
  }

  it("of a ban for ever has a time that can be written", () => {
    const flat = statusEvent({ _tag: "Banned", subnet: "1.2.3.4/32", until: Number.POSITIVE_INFINITY }, 0)
    assert.strictEqual(flat.message, "for ever")
  })
})

describe("a request to the status", () => {
  const none = new Set<string>()
  const from = (host: string | undefined, origin?: string, fetchSite?: string) =>
    refusal({ host, origin, fetchSite }, none)

  it("names this machine, an address or an allowed host", () => {
    for (const host of [
      "localhost",
      "LOCALHOST:80",
      "127.0.0.1",
      "127.0.0.1:8330",
      "[::1]",
      "[::1]:8330",
      "10.0.0.1"
    ]) {
      assert.isTrue(isOwnHost(host, none), host)
    }
    for (const host of [
      "",
      ":",
      "evil.example",
      "127.0.0.1.evil.example",
      "localhost.evil.example:8330",
      "1.2.3",
      "[::1].evil.example",
      "[evil.example]",
      "evil.example:127.0.0.1",
      "::1"
    ]) {
      assert.isFalse(isOwnHost(host, none), host)
    }
    assert.isTrue(isOwnHost("Status.Example:443", new Set(["status.example"])))
    assert.isFalse(isOwnHost("x.status.example", new Set(["status.example"])))
  })

  it("without a Host is refused", () => {
    assert.match(from(undefined) ?? "", /Host/)
  })

  it("of a page of this origin, or of no page, is answered", () => {
    assert.isUndefined(from("localhost:8330"))
    assert.isUndefined(from("localhost:8330", "http://localhost:8330", "same-origin"))
    assert.isUndefined(from("localhost:8330", undefined, "none"))
  })

  it("of a page of elsewhere is refused", () => {
    assert.match(from("localhost:8330", "null") ?? "", /origin/)
    assert.match(from("localhost:8330", "http://localhost:3000") ?? "", /origin/)
    assert.match(from("localhost:8330", undefined, "same-site") ?? "", /origin/)
    assert.match(from("localhost:8330", undefined, "cross-site") ?? "", /origin/)
  })
})
