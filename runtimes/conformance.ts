/**
 * Checks that the package works on the runtime that executes this file: `npm run test:runtimes` runs it on each. It uses the built
 * package, as a user's program does, and no test framework. Arguments: the port of the node in runtimes/run.ts, which runs on Node.
 *
 * The node dials back, so that each runtime is the initiator and the responder of a key exchange with another runtime. A cipher that is
 * wrong in both directions would agree with itself only.
 */
import * as assert from "node:assert/strict"
import * as process from "node:process"
import { Deferred, Effect } from "effect"
import { Nonce, Peer, Wire } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import { blocks, readBlock, readCapture, readTransactions } from "../test/support/vectors.ts"
import { big, echo, inviteCommand, isSame, network, services } from "./echo.ts"

const nodePort = Number(process.argv[2])

/** Sends a message of this size and waits for the node to send it back. */
const echoed = Effect.fnUntraced(function* (peer: Peer.Peer, size: number) {
  const answer = yield* Deferred.make<Uint8Array>()
  yield* peer.handle({ Unknown: ({ payload }) => void Deferred.doneUnsafe(answer, Effect.succeed(payload)) })
  const message = big(size)
  yield* peer.sendAndWait(message)
  assert.ok(isSame(yield* Deferred.await(answer), message.payload), `${size} bytes came back changed`)
})

/** What a connected peer must do. The sizes are around the limits of the ciphers and of the socket's buffers. */
const talk = Effect.fnUntraced(function* (peer: Peer.Peer, transport: "v1" | "v2") {
  assert.equal(peer.info.transport, transport)
  yield* peer.ping
  for (const size of [0, 1, 119, 2_047, 2_048, 2_049, 65_536, 1_000_000]) yield* echoed(peer, size)
  // More packets than one key is for.
  for (let turn = 0; turn < 300; turn++) yield* peer.ping
})

const connect = (port: number) => NodeConnection.connect({ host: "127.0.0.1", port })

const dial = (port: number, transport: "v1" | "v2") =>
  Peer.dial(connect(port), { network, transport, requiredServices: [] }).pipe(
    Effect.flatMap((peer) => talk(peer, transport)),
    Effect.scoped,
    Effect.provide(Nonce.layer)
  )

/** Both peers on this runtime. */
const alone = (transport: "v1" | "v2") =>
  Effect.gen(function* () {
    const listener = yield* NodeConnection.listen({ port: 0 })
    yield* Effect.forkChild(echo(listener))
    yield* dial(listener.address.port, transport)
  }).pipe(Effect.scoped)

/** The node dials this runtime. */
const invited = (transport: "v1" | "v2") =>
  Effect.gen(function* () {
    const listener = yield* NodeConnection.listen({ port: 0 })
    const node = yield* Peer.dial(connect(nodePort), { network, requiredServices: [] })
    const payload = new TextEncoder().encode(`${listener.address.port} ${transport}`)
    yield* node.send({ _tag: "Unknown", command: inviteCommand, payload })
    const connection = yield* listener.accept
    yield* talk(yield* Peer.make(connection, { network, direction: "inbound", services }), transport)
  }).pipe(Effect.scoped, Effect.provide(Nonce.layer))

/** Waits for the end of a connection that the other side ends. */
const ends = Effect.gen(function* () {
  const listener = yield* NodeConnection.listen({ port: 0 })
  const ours = yield* connect(listener.address.port)
  const theirs = yield* listener.accept
  theirs.write(Uint8Array.of(1, 2, 3))
  const bytes = yield* ours.pull
  assert.deepEqual([...bytes[0]!], [1, 2, 3])
  yield* theirs.close
  const end = yield* Effect.flip(ours.pull)
  assert.equal(end.reason._tag, "Closed")
  const refused = yield* Effect.flip(connect(1))
  assert.equal(refused.reason._tag, "DialFailed")
}).pipe(Effect.scoped)

const decodes = Effect.sync(() => {
  for (const { file, hash, witness } of blocks) {
    const bytes = readBlock(file)
    const message = Wire.decode("block", bytes)
    assert.ok(message._tag === "Success" && message.success._tag === "block", file)
    assert.equal(Wire.hashToHex(Wire.blockHash(message.success.block.header)), hash)
    const encoded = Wire.encode(message.success)
    assert.ok(encoded._tag === "Success" && isSame(encoded.success, bytes), file)
    assert.equal(
      [...message.success.block.transactions].some(({ inputs }) =>
        Array.from(inputs).some((input) => input.witness.length > 0)
      ),
      witness
    )
  }
  for (const bytes of readTransactions("tx_valid")) {
    const message = Wire.decode("tx", bytes)
    assert.ok(message._tag === "Success")
    const encoded = Wire.encode(message.success)
    assert.ok(encoded._tag === "Success" && isSame(encoded.success, bytes))
  }
  for (const { command, payload } of readCapture("light-client-received")) {
    assert.equal(Wire.decode(command, payload)._tag, "Success", command)
  }
})

const checks: Readonly<Record<string, Effect.Effect<unknown, unknown>>> = {
  "decodes and encodes blocks, transactions and captured messages": decodes,
  "sees the end of a connection and a refused dial": ends,
  "both peers on this runtime, v1": alone("v1"),
  "both peers on this runtime, v2": alone("v2"),
  "dials Node, v1": dial(nodePort, "v1"),
  "dials Node, v2": dial(nodePort, "v2"),
  "is dialled by Node, v1": invited("v1"),
  "is dialled by Node, v2": invited("v2")
}

let failed = 0
for (const [name, check] of Object.entries(checks)) {
  const exit = await Effect.runPromiseExit(Effect.timeout(check, "60 seconds"))
  if (exit._tag === "Success") console.log(`  ok      ${name}`)
  else {
    failed++
    console.log(`  FAILED  ${name}\n${String(exit.cause)}`)
  }
}
process.exit(failed === 0 ? 0 : 1)
