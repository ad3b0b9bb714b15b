/** A server of ours and two nodes of Bitcoin Core learn each other's addresses. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { Address } from "../src/index.ts"
import * as Bitcoind from "./bitcoind.ts"
import { eventually, type InteropNode } from "./InteropNode.ts"
import * as Net from "./routable.ts"

const { core1, core2, ours, ours2 } = Net.hosts
const { port } = Net

const parse = (text: string): Address.Address => Result.getOrThrow(Address.parse(text))

/** Gives Core addresses in many groups: they are told to whom asks. */
const fill = Effect.fnUntraced(function* (node: InteropNode, count: number) {
  for (let i = 0; i < count; i++) yield* node.rpc("addpeeraddress", `${30 + (i % 100)}.${i}.0.1`, port)
  return yield* Net.known(node)
})

const texts = ({ server }: Net.OurServer): ReadonlyArray<string> =>
  server.book.getAddresses(Date.now()).map((address) => Address.format(address))

describe.skipIf(Bitcoind.program === undefined || !Net.hasIp)("Bitcoin Core and Server", () => {
  it.live(
    "learn each other's addresses: by asking, by announcements, and through the other",
    () =>
      Effect.gen(function* () {
        yield* Net.addHosts
        // With the permission, Core takes more than an address in ten seconds.
        const one = yield* Net.startCore(core1, { args: [`-whitelist=addr@${ours}`] })
        const two = yield* Net.startCore(core2)
        const told = yield* fill(one, 200)
        assert.isAbove(told.length, 150)
        let entries = 0
        const mine = yield* Net.serve({
          at: [ours, ours2],
          external: [`${ours}:${port}`],
          speed: 6,
          peer: {
            onRead: (event) => {
              if (event._tag === "Received" && event.message._tag === "addrv2")
                entries += event.message.addresses.length
            }
          }
        })
        assert.deepStrictEqual((yield* mine.server.networkInfo).localaddresses, [{ address: ours, port, score: 4 }])

        // We dial the first. It announces itself at once, and answers getaddr with 23 % of its book.
        yield* mine.server.add(`${core1}:${port}`)
        yield* mine.server.awaitPeers(1)
        const hurry = Net.hurry(one)
        yield* eventually(
          Effect.andThen(
            hurry(),
            Effect.sync(() => texts(mine).length)
          ),
          (count) => count > 35
        )
        const learnt = texts(mine)
        assert.includeMembers([`${core1}:${port}`, ...told], [...learnt])
        assert.include(learnt, `${core1}:${port}`)
        const [seen] = yield* mine.server.peerInfo
        assert.deepInclude(seen as object, {
          addr_relay_enabled: true,
          addr_processed: entries,
          addr_rate_limited: 0
        })
        // What it told of is in the book as from it, two hours older than it said.
        const other = learnt.find((text) => text !== `${core1}:${port}`)!
        assert.strictEqual(Address.formatHost(mine.server.book.find(parse(other))!.source), core1)
        // It knows ours, because we announced it.
        yield* eventually(Net.known(one), (all) => all.includes(`${ours}:${port}`))

        // The second dials us, asks, and announces itself. We tell the first, and both know all three.
        yield* two.rpc("addnode", `${ours2}:${port}`, "add")
        yield* mine.awaitEvent("Ready", ({ kind }) => kind === "inbound")
        yield* eventually(
          Effect.sync(() => texts(mine)),
          (all) => all.includes(`${core2}:${port}`)
        )
        assert.isFalse(mine.server.book.find(parse(`${core2}:${port}`))?.isTried)
        yield* eventually(Net.known(two), (all) => all.includes(`${ours}:${port}`))
        // After half a minute on average, which is 5 s here.
        yield* eventually(Net.known(one), (all) => all.includes(`${core2}:${port}`), "80 seconds")
        const asked = yield* eventually(Net.known(two), ({ length }) => length > 5, "80 seconds")
        assert.includeMembers([...told, `${core1}:${port}`, `${ours}:${port}`], [...asked])
        const inbound = (yield* mine.server.peerInfo).find(({ inbound }) => inbound)
        assert.deepInclude(inbound as object, { addr_relay_enabled: true, addr_processed: 1, addr_rate_limited: 0 })
        const [row] = yield* Net.rows(two)
        // Two that want the same place in its book are one.
        assert.isAtLeast(row!.addr_processed, asked.length)
        assert.deepStrictEqual([...one.complaints(), ...two.complaints()], [])
      }),
    240_000
  )

  it.live(
    "ours asks Core as a seed node, ends the connection with the answer, and dials what it learnt",
    () =>
      Effect.gen(function* () {
        yield* Net.addHosts
        const node = yield* Net.startCore(core1)
        yield* fill(node, 100)
        const mine = yield* Net.serve({ seedNodes: [`${core1}:${port}`], fullRelay: 1, speed: 5 })
        const ready = yield* mine.awaitEvent("Ready")
        assert.strictEqual(ready.kind, "addr-fetch")
        const hurry = Net.hurry(node)
        yield* eventually(
          Effect.andThen(
            hurry(),
            Effect.sync(() => mine.events)
          ),
          (events) => events.some(({ _tag }) => _tag === "Ended"),
          "60 seconds"
        )
        assert.isAbove(texts(mine).length, 20)
        // All but the address of Core itself, which it announced, lead nowhere.
        const peers = yield* mine.server.awaitPeers(1, ({ kind }) => kind === "outbound-full-relay")
        assert.strictEqual(Address.format(peers[0]!.address), `${core1}:${port}`)
        assert.deepStrictEqual(node.complaints(), [])
      }),
    240_000
  )
})
