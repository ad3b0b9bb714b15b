/** The type of a target, and the rules for all of them: bounded time and memory, and the same result for any chunks. */
import assert from "node:assert/strict"
import { getHeapStatistics } from "node:v8"
import type * as Wire from "../../src/Wire.ts"
import type { Dice } from "../support/dice.ts"
import { plain } from "../support/generators.ts"

export interface Target {
  /** Its name for `--target`. */
  readonly name: string
  readonly make: (dice: Dice) => Uint8Array
  /** Throws if the input breaks a rule. */
  readonly check: (input: Uint8Array) => void
}

/** Milliseconds of processor time: for any input, and for each kilobyte of it. */
const time = { base: 100, perKilobyte: 1 }
/** Bytes of buffers: for any input, and for each byte of it. */
const memory = { base: 65_536, perByte: 8 }

/** Processor time of this thread, which other work on the machine does not change. */
const processorTime = (): number => {
  const { system, user } = process.threadCpuUsage()
  return (system + user) / 1_000
}

/** Bytes in buffers. `process.memoryUsage` gives them too, and takes 10 µs for its other numbers. */
const buffered = (): number => getHeapStatistics().external_memory

/** Runs a repeatable function, and checks that its time and memory are linear in the size of the input. */
export const bounded = <A>(what: string, size: number, evaluate: () => A, perByte = memory.perByte): A => {
  const allowed = time.base + (time.perKilobyte * size) / 1_000
  const allocated = buffered()
  const started = processorTime()
  const result = evaluate()
  let took = processorTime() - started
  const buffers = buffered() - allocated
  assert.ok(buffers <= memory.base + perByte * size, `${what} allocated ${buffers} bytes for ${size}`)
  // A full garbage collection may fall into one run, but not into three.
  for (let again = 0; again < 2 && took > allowed; again++) {
    const started = processorTime()
    evaluate()
    took = Math.min(took, processorTime() - started)
  }
  assert.ok(took <= allowed, `${what} took ${took.toFixed(1)} ms for ${size} bytes`)
  return result
}

export const hashOf = (bytes: Uint8Array): number => {
  let hash = bytes.length
  for (const byte of bytes) hash = (Math.imul(hash, 31) + byte) | 0
  return hash
}

// ---- parsers

export interface Parsed {
  readonly events: ReadonlyArray<Wire.ParserEvent>
  readonly failure: Wire.WireReason | undefined
}

/** The events of a parser for some chunks. Checks the bytes that it holds. */
export const parseWith = (parser: Wire.Parser, chunks: ReadonlyArray<Uint8Array>, packets = false): Parsed => {
  const events: Array<Wire.ParserEvent> = []
  let waiting = 0
  for (const chunk of chunks) {
    waiting += chunk.length
    for (const event of parser.push(chunk)) {
      events.push(event)
      waiting -= event.size
    }
    if (parser.failure !== undefined) break
    // A packet without a message, for example a decoy, gives no event.
    if (packets) assert.ok(parser.buffered <= waiting, "the parser holds more bytes than have arrived")
    else assert.equal(parser.buffered, waiting, "the parser does not hold exactly the bytes of the incomplete frame")
  }
  if (parser.failure !== undefined) {
    assert.equal(parser.buffered, 0)
    assert.equal(parser.push(Uint8Array.of(1)).length, 0, "the parser gives events after its failure")
  }
  return { events, failure: parser.failure?.reason }
}

export const comparable = ({ events, failure }: Parsed): unknown => ({
  events: events.map((event) =>
    event._tag === "Received"
      ? { ...event, message: plain(event.message) }
      : { ...event, error: { command: event.error.command, reason: event.error.reason } }
  ),
  // The received part of a wrong magic depends on the chunks.
  failure: failure?._tag === "WrongMagic" ? failure._tag : failure
})

/** Cuts bytes into copies of random sizes, as a socket gives them. */
export const cut = (dice: Dice, bytes: Uint8Array, most: number): Array<Uint8Array> => {
  const chunks: Array<Uint8Array> = []
  for (let offset = 0; offset < bytes.length;) {
    const size = 1 + dice.below(most)
    chunks.push(bytes.slice(offset, offset + size))
    offset += size
  }
  return chunks
}
