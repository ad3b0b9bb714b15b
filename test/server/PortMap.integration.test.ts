/** PortMap over UDP on loopback, at a router that is a socket of this test. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { createSocket, type RemoteInfo } from "node:dgram"
import { Address } from "effect-bitcoin-peer"
import * as PortMap from "../../src/server/PortMap.ts"

/** A router that answers with the packets of `answer`. */
const serveRouter = Effect.fnUntraced(function* (answer: (request: Uint8Array) => ReadonlyArray<Uint8Array>) {
  const requests: Array<Uint8Array> = []
  const socket = yield* Effect.acquireRelease(
    Effect.sync(() => createSocket("udp4")),
    (socket) => Effect.callback<void>((resume) => void socket.close(() => resume(Effect.void)))
  )
  socket.on("message", (bytes: Uint8Array, { address, port }: RemoteInfo) => {
    requests.push(Uint8Array.from(bytes))
    for (const packet of answer(bytes)) socket.send(packet, port, address)
  })
  yield* Effect.callback<void>((resume) => void socket.bind(0, "127.0.0.1", () => resume(Effect.void)))
  return { requests, gateway: { host: "127.0.0.1", port: socket.address().port } }
})

const granted = (request: Uint8Array): Uint8Array => {
  const packet = new Uint8Array(60)
  packet.set([2, 0x81])
  new DataView(packet.buffer).setUint32(4, 2_400)
  packet.set(request.subarray(24, 42), 24)
  new DataView(packet.buffer).setUint16(42, 18_444)
  packet.set([0xff, 0xff, 8, 8, 8, 8], 54)
  return packet
}

const settled = Effect.flatMap(PortMap.PortMap, ({ changes }) =>
  Stream.runHead(Stream.filter(changes, ({ failures, mappings }) => failures.length + mappings.length > 0))
)

describe("PortMap", () => {
  it.live("maps a port, and releases it at the end of the layer", () =>
    Effect.gen(function* () {
      const { gateway, requests } = yield* serveRouter((request) => [new Uint8Array(2_000), granted(request)])
      const log: Array<string> = []
      const layer = PortMap.layer({
        port: 18_444,
        gateway,
        onMapped: ({ external }) => Effect.sync(() => void log.push(Address.format(external)))
      })
      const status = yield* Effect.provide(settled, layer)
      assert.isTrue(status._tag === "Some" && status.value.mappings[0]?.protocol === "PCP")
      assert.deepStrictEqual(log, ["8.8.8.8:18444"])
      for (let n = 0; n < 500 && requests.length < 2; n++) yield* Effect.sleep(2)
      const [first, last] = requests
      // Our address on the way to the router, and the same nonce in both requests.
      assert.deepStrictEqual(first!.subarray(18, 24), Uint8Array.of(0xff, 0xff, 127, 0, 0, 1))
      assert.deepStrictEqual(first!.subarray(4, 8), Uint8Array.of(0, 0, 0x09, 0x60))
      assert.deepStrictEqual(last!.subarray(4, 8), new Uint8Array(4))
      assert.deepStrictEqual(last!.subarray(24, 36), first!.subarray(24, 36))
      assert.isTrue(first!.subarray(24, 36).some((byte) => byte !== 0))
    })
  )

  it.live("asks a router without PCP by NAT-PMP", () =>
    Effect.gen(function* () {
      const { gateway } = yield* serveRouter((request) => {
        if (request[0] === 2) return [Uint8Array.of(0, 0x81, 0, 1, 0, 0, 0, 0)]
        if (request[1] === 0) return [Uint8Array.of(0, 0x80, 0, 0, 0, 0, 0, 1, 8, 8, 4, 4)]
        const [high = 0, low = 0] = request.subarray(4, 6)
        return [Uint8Array.of(0, 0x82, 0, 0, 0, 0, 0, 1, high, low, high, low, 0, 0, 14, 16)]
      })
      const status = yield* Effect.provide(settled, PortMap.layer({ port: 8333, gateway }))
      if (status._tag === "None") return assert.fail("no status")
      assert.deepStrictEqual(
        status.value.mappings.map(({ external, internal, protocol }) => [
          protocol,
          Address.format(external),
          Address.format(internal)
        ]),
        [["NAT-PMP", "8.8.4.4:8333", "127.0.0.1:8333"]]
      )
    })
  )

  it.live("says that the router has no such service", () =>
    Effect.gen(function* () {
      // A port that was free a moment ago.
      const { gateway } = yield* Effect.scoped(serveRouter(() => []))
      const status = yield* Effect.provide(settled, PortMap.layer({ port: 8333, gateway }))
      if (status._tag === "None") return assert.fail("no status")
      const [error] = status.value.failures
      assert.strictEqual(error?.reason._tag, "SocketFailed")
      assert.match(error!.message, /^the router 127\.0\.0\.1 does not map the port: .*ECONNREFUSED/)
    })
  )

  it.live("has no mapping where there is no router to ask", () =>
    Effect.gen(function* () {
      // This machine has no public IPv6 address, or a router is asked in vain.
      const layer = PortMap.layer({ port: 8333, gateway: { host: "::1", port: 1 } })
      const { mappings } = yield* Effect.provide(
        Effect.flatMap(PortMap.PortMap, ({ status }) => status),
        layer
      )
      assert.deepStrictEqual(mappings, [])
    })
  )
})
