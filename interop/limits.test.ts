/**
 * Limits of messages in Bitcoin Core: a message above a limit ends the connection only if it can be read completely, and
 * addrv2 entries of unknown networks are dropped. test/Peer.limits.test.ts checks that our peer does the same.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Address, type Wire } from "../src/index.ts"
import { concat, decoded } from "../test/support/generators.ts"
import { limits, tooManyHeaders } from "../test/support/limits.ts"
import * as Bitcoind from "./bitcoind.ts"
import { eventually } from "./InteropNode.ts"
import * as RawPeer from "./rawPeer.ts"

const ping = new Uint8Array(8).fill(7)

describe.skipIf(Bitcoind.program === undefined)("Bitcoin Core", () => {
  it.live("ends a peer for a message above a limit only if the message is complete, except headers", () =>
    Effect.gen(function* () {
      const node = yield* Bitcoind.start({ args: ["-peerbloomfilters"] })
      const isEnded = (command: string, payload: Uint8Array) =>
        Effect.scoped(
          Effect.gen(function* () {
            const peer = yield* RawPeer.dial(node.port)
            yield* RawPeer.handshake(peer, "/limits/", 70_016)
            yield* peer.send(command, payload)
            // The node's pong to our ping is the first one with this nonce.
            yield* peer.send("ping", ping)
            return yield* Effect.raceFirst(
              Effect.as(peer.closed, true),
              Effect.as(peer.await("pong"), false).pipe(Effect.orElseSucceed(() => true))
            )
          })
        )
      const differences: Array<string> = []
      for (const { command, core, cut, field, whole } of limits) {
        if (!core) continue
        if ((yield* isEnded(command, whole.payload)) !== whole.ends) differences.push(`${command} ${field}, whole`)
        for (const [index, payload] of cut.entries()) {
          if (yield* isEnded(command, payload)) differences.push(`${command} ${field}, cut ${index}`)
        }
      }
      if (!(yield* isEnded("headers", tooManyHeaders.payload))) differences.push("headers, whole")
      for (const [index, payload] of tooManyHeaders.cut.entries()) {
        if (!(yield* isEnded("headers", payload))) differences.push(`headers, cut ${index}: the peer stays`)
      }
      // Transaction reconciliation is off by default.
      if (yield* isEnded("sendtxrcncl", new Uint8Array(12))) differences.push("sendtxrcncl after verack")
      assert.deepStrictEqual(differences, [])
    })
  )

  it.live("ignores a version of 72 bytes, with a sender but no nonce, and completes the handshake with the next", () =>
    Effect.gen(function* () {
      const node = yield* Bitcoind.start()
      const peer = yield* RawPeer.dial(node.port)
      yield* peer.send("version", RawPeer.version("/cut/", 70_016).subarray(0, 72))
      // Core ignores it, so a verack is out of place and is ignored as well.
      yield* peer.send("verack")
      yield* RawPeer.handshake(peer, "/whole/", 70_016)
      assert.strictEqual(peer.received().filter(({ command }) => command === "version").length, 1)
      const rows = yield* eventually(node.peers, (rows) => rows.length > 0 && rows[0]!.subver !== "")
      assert.strictEqual(rows[0]!.subver, "/whole/")
    })
  )

  it.live("keeps the other entries of an addrv2 with entries of unknown networks, as our decoder does", () =>
    Effect.gen(function* () {
      const node = yield* Bitcoind.start({ args: ["-whitelist=addr@127.0.0.1"] })
      const entry = (networkId: number, address: ReadonlyArray<number>): Uint8Array => {
        const timestamp = new Uint8Array(Uint32Array.of(Date.now() / 1_000 - 3_600).buffer)
        return concat(timestamp, [9, networkId, address.length], address, [0x20, 0x8d])
      }
      // A Tor v2 entry with 3 bytes, and an entry of an undefined network.
      const payload = concat(
        [4],
        entry(1, [11, 22, 33, 44]),
        entry(3, [3, 3, 3]),
        entry(9, [9]),
        entry(1, [55, 66, 77, 88])
      )
      const peer = yield* RawPeer.dial(node.port)
      yield* RawPeer.handshake(peer, "/limits/", 70_016)
      yield* peer.send("addrv2", payload)
      const known = yield* eventually(
        Effect.map(node.rpc("getnodeaddresses", 0), (answer) =>
          (answer as ReadonlyArray<{ readonly address: string }>).map(({ address }) => address).toSorted()
        ),
        (addresses) => addresses.length > 0
      )
      assert.deepStrictEqual(known, ["11.22.33.44", "55.66.77.88"])
      const { addresses } = decoded("addrv2", payload) as Wire.AddrV2
      assert.deepStrictEqual(Array.from(addresses, Address.formatHost).toSorted(), known)
    })
  )
})
