/**
 * The order of checks, asked of Bitcoin Core: a message above a limit ends the connection only if all of it can be read.
 * Our peer is asked the same in test/Peer.limits.test.ts.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { limits, tooManyHeaders } from "../test/support/limits.ts"
import * as Bitcoind from "./bitcoind.ts"
import * as RawPeer from "./rawPeer.ts"

const ping = new Uint8Array(8).fill(7)

describe.skipIf(Bitcoind.program === undefined)("Bitcoin Core", () => {
  it.live("ends a peer for a message above a limit that it can read, and for no other but headers", () =>
    Effect.gen(function* () {
      const node = yield* Bitcoind.start({ args: ["-peerbloomfilters"] })
      const isEnded = (command: string, payload: Uint8Array) =>
        Effect.scoped(
          Effect.gen(function* () {
            const peer = yield* RawPeer.dial(node.port)
            yield* RawPeer.handshake(peer, "/limits/", 70_016)
            yield* peer.send(command, payload)
            // Its pong to a ping of ours is the first one with this nonce.
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
      // Reconciliation is off unless it is asked for.
      if (yield* isEnded("sendtxrcncl", new Uint8Array(12))) differences.push("sendtxrcncl after verack")
      assert.deepStrictEqual(differences, [])
    })
  )
})
