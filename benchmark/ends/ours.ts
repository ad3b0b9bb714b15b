/**
 * This package at both ends. The arguments: the checkout whose sources are used (also for Effect), "v1" or "v2", and "by hand" for
 * blocks that are asked by a sent getdata and read by a handler, instead of by `getData`, which also checks them.
 */
import type { Scope as ScopeTypes } from "effect"
import type { Peer as PeerTypes, Wire as WireTypes } from "../../src/index.ts"
import { createRequire } from "node:module"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { network } from "../data.ts"
import { blocksBy, Collector, invsBy, prepareBlocks, prepareInvs, runEnd, valueOfBlock, type Work } from "./end.ts"

const [, , checkout = path.join(import.meta.dirname, "../.."), transportName = "v1", how] = process.argv
const require = createRequire(path.join(checkout, "package.json"))
const load = (specifier: string): Promise<unknown> => import(pathToFileURL(require.resolve(specifier)).href)

const Duration = (await load("effect/Duration")) as typeof import("effect/Duration")
const Effect = (await load("effect/Effect")) as typeof import("effect/Effect")
const Exit = (await load("effect/Exit")) as typeof import("effect/Exit")
const ManagedRuntime = (await load("effect/ManagedRuntime")) as typeof import("effect/ManagedRuntime")
const Result = (await load("effect/Result")) as typeof import("effect/Result")
const Scope = (await load("effect/Scope")) as typeof import("effect/Scope")
const { Nonce, Peer, PeerServer, Wire } = (await load("effect-bitcoin-peer")) as typeof import("../../src/index.ts")
const NodeConnection = (await load(
  "effect-bitcoin-peer/NodeConnection"
)) as typeof import("../../src/NodeConnection.ts")

const transport = transportName === "v2" ? "v2" : "v1"
const runtime = ManagedRuntime.make(Nonce.layer)
const { bloom, network: fullNode, witness } = Wire.Service

const serve = async (onHandshake: () => void): Promise<number> => {
  const blocks = new Map<string, WireTypes.Message>()
  for (const { hash, payload } of prepareBlocks()) {
    blocks.set(Wire.hashToHex(hash), Result.getOrThrow(Wire.decode("block", new Uint8Array(payload))))
  }
  const invs = prepareInvs((items) => ({ _tag: "inv" as const, items }))
  const scope = await runtime.runPromise(Scope.make())
  const listener = await runtime.runPromise(Scope.provide(NodeConnection.listen({ host: "127.0.0.1", port: 0 }), scope))
  runtime.runFork(
    PeerServer.serve(listener, {
      peer: {
        network,
        transport,
        // A `mempool` is allowed to those that offer bloom filters.
        services: fullNode | witness | bloom,
        handlers: {
          getdata: ({ items }, peer) =>
            Effect.forEach(items, ({ hash }) => peer.send(blocks.get(Wire.hashToHex(hash))!), { discard: true }),
          mempool: (_, peer) => Effect.forEach(invs(), (inv) => peer.send(inv), { discard: true })
        }
      },
      onPeer: () => Effect.sync(onHandshake)
    })
  )
  return listener.address.port
}

const dial = (port: number) =>
  Peer.dial(NodeConnection.connect({ host: "127.0.0.1", port }), {
    network,
    transport,
    // A peer that gives the remote any time does not remember that a block was asked for, and so does not check it.
    dataStallTimeout: how === undefined ? undefined : Duration.infinity
  })

interface Dialled {
  readonly peer: PeerTypes.Peer
  readonly scope: ScopeTypes.Closeable
}

const connect = async (port: number): Promise<Dialled> => {
  const scope = await runtime.runPromise(Scope.make())
  return { peer: await runtime.runPromise(Scope.provide(dial(port), scope)), scope }
}

const use = ({ peer }: Dialled): Work => {
  const blocks = new Collector()
  const invs = new Collector()
  runtime.runSync(
    peer.handle({
      inv: ({ items }) => invs.add(items.at(0)!.hash[0]!),
      block:
        how === undefined
          ? undefined
          : ({ block }) => blocks.add(valueOfBlock(block.header.nonce, block.transactions.length))
    })
  )
  const itemsOf = (hashes: ReadonlyArray<Buffer>) =>
    hashes.map((hash) => ({ type: Wire.InventoryType.block | Wire.InventoryType.witnessFlag, hash }))
  return {
    pings: (count) =>
      runtime.runPromise(
        Effect.gen(function* () {
          for (let i = 0; i < count; i++) yield* peer.ping
          return count
        })
      ),
    blocks:
      how === undefined
        ? (hashes, atOnce) =>
            runtime.runPromise(
              Effect.gen(function* () {
                let sum = 0
                for (let i = 0; i < hashes.length; i += atOnce) {
                  for (const result of yield* peer.getData(itemsOf(hashes.slice(i, i + atOnce)))) {
                    if (result._tag !== "Found" || result.message._tag !== "block") throw new Error("not found")
                    const { header, transactions } = result.message.block
                    sum += valueOfBlock(header.nonce, transactions.length)
                  }
                }
                return sum
              })
            )
        : blocksBy(blocks, (hashes) => void runtime.runFork(peer.send({ _tag: "getdata", items: itemsOf(hashes) }))),
    invs: invsBy(invs, () => void runtime.runFork(peer.send({ _tag: "mempool" })))
  }
}

runEnd({
  serve,
  connect,
  close: ({ scope }) => runtime.runPromise(Scope.close(scope, Exit.void)),
  use,
  handshake: (port) => runtime.runPromise(Effect.scoped(Effect.asVoid(dial(port))))
})
