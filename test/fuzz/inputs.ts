/** The inputs of the fuzzer: generated and recorded messages, and random changes to them. All randomness comes from dice. */
import * as Effect from "effect/Effect"
import * as Arbitrary from "effect/Arbitrary"
import { checksum } from "../../src/primitives/sha256.ts"
import * as Network from "../../src/Network.ts"
import * as Wire from "../../src/Wire.ts"
import type { Dice } from "../support/dice.ts"
import { encoded, examples, messages } from "../support/generators.ts"
import * as Vectors from "../support/vectors.ts"

export const network = Network.regtest

/** A payload and the command it belongs to. */
export interface Payload {
  readonly command: string
  readonly payload: Uint8Array
}

const samplesOfEach = 8

/** Messages that our own encoder wrote. */
const generated = (): ReadonlyArray<Payload> => [
  ...examples.map((message) => ({ command: Wire.command(message), payload: encoded(message) })),
  ...Object.entries(messages).flatMap(([tag, generator]) =>
    Effect.runSync(
      Arbitrary.sampleEffect(generator as Arbitrary.Arbitrary<Wire.Message>, { count: samplesOfEach, seed: tag })
    ).map((message) => ({ command: Wire.command(message), payload: encoded(message) }))
  )
]

/** Messages that other software wrote. Large ones are left out: they slow the run down and add no new structure. */
const recorded = (): ReadonlyArray<Payload> =>
  [
    ...Vectors.captures.flatMap(Vectors.readCapture),
    ...["compact426884", "compact898352"].map((file) => ({
      command: "cmpctblock",
      payload: Vectors.readVector(`compact/${file}.raw`)
    })),
    ...["merkle300025", "merkle300025-extended"].map((file) => ({
      command: "merkleblock",
      payload: Vectors.readVector(`merkleblock/${file}.raw`)
    })),
    ...["block482683", "block898352"].map((file) => ({ command: "block", payload: Vectors.readBlock(file) })),
    ...Vectors.readTransactions("tx_valid").map((payload) => ({ command: "tx", payload })),
    ...Vectors.readTransactions("tx_invalid").map((payload) => ({ command: "tx", payload }))
  ].filter(({ payload }) => payload.length <= 20_000)

/** All messages to start from, by command. */
const corpus = Map.groupBy([...generated(), ...recorded()], ({ command }) => command)
const commands = Array.from(corpus.keys())

const numbers = [
  [0],
  [0xff],
  [0xfc],
  [0xfd, 0xfc, 0],
  [0xfd, 0xff, 0xff],
  [0xfe, 0, 0, 0, 2],
  [0xfe, 1, 0, 0, 2],
  [0xfe, 0xff, 0xff, 0xff, 0xff],
  [0xff, 0, 0, 0, 0, 0, 0, 0, 0],
  [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
  [0xff, 0xff, 0xff, 0xff],
  [0, 0, 0, 0x80],
  [0xff, 0xff, 0xff, 0x7f],
  // The largest payload and one more.
  [0x00, 0x09, 0x3d, 0x00],
  [0x01, 0x09, 0x3d, 0x00],
  [0, 0, 0, 0, 0, 0, 0x20, 0],
  [0, 0, 0, 0, 0, 0, 0, 0x80]
]

/** The size to which changes may grow an input. */
const largest = 200_000

/** A random range, more often short than long. */
const range = (dice: Dice, length: number): readonly [start: number, end: number] => {
  const start = dice.below(length + 1)
  const size = dice.chance(0.7) ? dice.below(40) : dice.below(length + 1)
  return [start, Math.min(length, start + size)]
}

/** A random offset, often near the beginning, where counts and lengths are. */
const place = (dice: Dice, length: number): number => dice.below(dice.chance(0.5) ? Math.min(length, 100) : length)

const changed = (dice: Dice, bytes: Uint8Array): Uint8Array => {
  if (bytes.length === 0) return dice.bytes(dice.below(100))
  const overwritten = (offset: number, by: ArrayLike<number>): Uint8Array => {
    const copy = bytes.slice()
    for (let i = 0; i < by.length && offset + i < copy.length; i++) copy[offset + i] = by[i]!
    return copy
  }
  const at = place(dice, bytes.length)
  const [start, end] = range(dice, bytes.length)
  const before = bytes.subarray(0, start)
  const part = bytes.subarray(start, end)
  const after = bytes.subarray(end)
  switch (dice.below(10)) {
    case 0:
      return overwritten(at, [bytes[at]! ^ (1 << dice.below(8))])
    case 1:
      return overwritten(at, [dice.below(256)])
    case 2:
      return overwritten(at, dice.pick(numbers))
    case 3:
      return joined(bytes.subarray(0, at), dice.pick(numbers), bytes.subarray(at + 1))
    case 4:
      return bytes.slice(0, start)
    case 5:
      return joined(before, after)
    case 6:
      return joined(before, part, part, after)
    case 7:
      return joined(before, dice.bytes(dice.below(64)), after)
    case 8:
      return joined(before, somePayload(dice).payload, after)
    default: {
      // Quadratic time shows only with many repetitions, which take long to check.
      const times = dice.chance(0.05) ? 5_000 : dice.below(50)
      const size = Math.max(1, part.length)
      return joined(before, ...Array.from({ length: Math.min(times, Math.floor(largest / size)) }, () => part), after)
    }
  }
}

const joined = (...parts: ReadonlyArray<ArrayLike<number>>): Uint8Array => {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}

/** Changes an input one to four times. */
export const mutate = (dice: Dice, bytes: Uint8Array): Uint8Array => {
  let result = bytes
  for (let left = 1 + dice.below(4); left > 0; left--) result = changed(dice, result)
  return result.length > largest ? result.slice(0, largest) : result
}

/** An unchanged message of any type. */
export const somePayload = (dice: Dice): Payload => dice.pick(corpus.get(dice.pick(commands))!)

/** An input that resembles a payload of a command. */
export const payloadOf = (dice: Dice, command: string): Uint8Array => {
  if (dice.chance(0.05)) return dice.bytes(dice.below(400))
  const own = corpus.get(command)
  const start = own === undefined || dice.chance(0.03) ? somePayload(dice).payload : dice.pick(own).payload
  return dice.chance(0.05) ? start : mutate(dice, start)
}

export const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)

export const commandField = (command: string): Uint8Array =>
  Uint8Array.from({ length: 12 }, (_, index) => (index < command.length ? command.charCodeAt(index) : 0))

/** A correct frame around any payload. */
export const frame = ({ command, payload }: Payload): Uint8Array =>
  joined(network.magic, commandField(command), u32(payload.length), u32(checksum(payload)), payload)

/** Corrects the checksum of each whole frame, so that a changed payload reaches the decoder. */
const mended = (stream: Uint8Array): Uint8Array => {
  const bytes = stream.slice()
  const view = new DataView(bytes.buffer)
  for (let offset = 0; bytes.length - offset >= 24;) {
    const end = offset + 24 + view.getUint32(offset + 16, true)
    if (network.magic.some((byte, index) => bytes[offset + index] !== byte) || end > bytes.length) break
    view.setUint32(offset + 20, checksum(bytes.subarray(offset + 24, end)), true)
    offset = end
  }
  return bytes
}

/** A stream of frames: some with changed payloads in correct frames, some changed as a whole. */
export const streamOf = (dice: Dice, payload: () => Payload): Uint8Array => {
  if (dice.chance(0.03)) return dice.bytes(dice.below(400))
  const parts = Array.from({ length: 1 + dice.below(6) }, () => {
    const { command, payload: bytes } = payload()
    return frame({ command, payload: dice.chance(0.5) ? bytes : mutate(dice, bytes) })
  })
  const whole = joined(...parts)
  if (dice.chance(0.5)) return whole
  const broken = mutate(dice, whole)
  return dice.chance(0.7) ? mended(broken) : broken
}
