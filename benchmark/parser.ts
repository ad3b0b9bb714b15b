/** The cost of framing and decoding beyond that of the checksums, which every implementation must compute. */
import assert from "node:assert/strict"
import { hash } from "node:crypto"
import * as Result from "effect/Result"
import { Wire } from "../src/index.ts"
import { checksum } from "../src/primitives/sha256.ts"
import { loadLibraries } from "./competitors.ts"
import { block1MB, frames, network } from "./data.ts"
import { ask, printTable } from "./harness.ts"
import { buffer } from "./shared.ts"

/** The largest chunk that Node reads from a socket, in bytes. */
const chunkSize = 65_536

const nodeChecksum = (payload: Uint8Array): number =>
  hash("sha256", hash("sha256", payload, "buffer"), "buffer").readUInt32LE(0)

/** Frames of one size, one after another. */
const stream = (frame: (index: number) => Uint8Array, count: number) => {
  const size = frame(0).length
  const bytes = new Uint8Array(size * count)
  for (let i = 0; i < count; i++) bytes.set(frame(i), i * size)
  const chunks: Array<Uint8Array> = []
  // Copies, because each chunk of a socket is a buffer of its own.
  for (let at = 0; at < bytes.length; at += chunkSize) chunks.push(bytes.slice(at, at + chunkSize))
  const payloads = Array.from({ length: count }, (_, i) => bytes.subarray(i * size + 24, (i + 1) * size))
  const view = new DataView(bytes.buffer)
  const expected = payloads.map((_, i) => view.getUint32(i * size + 20, true))
  return { bytes, chunks, payloads, expected }
}

const libraries = loadLibraries()
const bcoin = libraries.find(({ name }) => name.startsWith("bcoin"))

const questions = [
  {
    title: "50,000 pings",
    messages: "pings",
    ...stream((index) => frames({ _tag: "ping", nonce: BigInt(index) }), 50_000)
  },
  {
    title: "20 blocks of 1 MB",
    messages: "MB",
    ...((payload) => {
      const frame = frames(Result.getOrThrow(Wire.decode("block", payload)))
      return stream(() => frame, 20)
    })(block1MB())
  }
]

for (const { bytes, chunks, expected, messages, payloads, title } of questions) {
  // The parsed messages encode to the sent bytes.
  const parser = Wire.makeParser({ magic: network.magic })
  const events = chunks.flatMap((chunk) => parser.push(chunk))
  assert.equal(events.length, payloads.length)
  for (const [i, event] of events.entries()) {
    assert.ok(event._tag === "Received")
    assert.ok(Buffer.compare(Result.getOrThrow(Wire.encode(event.message)), payloads[i]!) === 0)
  }

  const buffers = chunks.map(buffer)
  const checksums = (of: (payload: Uint8Array) => number): number => {
    let good = 0
    for (let i = 0; i < payloads.length; i++) if (of(payloads[i]!) === expected[i]) good++
    return good
  }

  await ask({
    title: `parse ${title}, in chunks of 64 KiB`,
    competitors: [
      {
        name: "Wire.makeParser",
        run: () => {
          let good = 0
          const parser = Wire.makeParser({ magic: network.magic })
          for (const chunk of chunks) {
            for (const event of parser.push(chunk)) if (event._tag === "Received") good++
          }
          return good
        }
      },
      { name: "checksums alone, our function", run: () => checksums(checksum) },
      { name: "checksums alone, node:crypto", run: () => checksums(nodeChecksum) },
      // Only for pings: bcoin's parser decodes blocks to objects at once, which `codec` compares.
      ...(messages === "pings" ? libraries : []).map(
        ({ countFrames, name }) => countFrames && { name, run: () => countFrames(buffers) }
      )
    ],
    amount: messages === "MB" ? { count: bytes.length / 1e6, unit: "MB" } : { count: payloads.length, unit: messages },
    // A block is joined from its chunks, which takes time that no checksum takes.
    targets: { "checksums alone, our function": messages === "MB" ? 0.7 : 0.833, [bcoin?.name ?? ""]: 1 }
  })
}

printTable("parser: a stream of frames")
