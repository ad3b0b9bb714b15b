/**
 * The targets of the fuzzer. Each makes inputs, and checks the rules that hold for any bytes. Its randomness comes from the given
 * dice or from the input itself, so that an input alone replays a finding.
 *
 * To add a target, append it to `targets`. Every message with a codec has one already.
 */
import assert from "node:assert/strict"
import * as Result from "effect/Result"
import { isDeepStrictEqual } from "node:util"
import { toLine } from "../../packages/btcpeer/src/events.ts"
import { inputs } from "../../packages/btcpeer/src/hexText.ts"
import { detect, find, formOf, forms } from "../../packages/btcpeer/src/scan.ts"
import { describe } from "../../packages/btcpeer/src/print.ts"
import { summarise } from "../../packages/btcpeer/src/summary.ts"
import * as Machine from "../../src/handshake/machine.ts"
import { commands } from "../../src/wire/messages.ts"
import * as Policy from "../../src/Policy.ts"
import * as Wire from "../../src/Wire.ts"
import { dice } from "../support/dice.ts"
import { plain } from "../support/generators.ts"
import { formats } from "./formats.ts"
import { commandField, frame, mutate, network, payloadOf, somePayload, streamOf, u32 } from "./inputs.ts"
import { bounded, comparable, cut, hashOf, parseWith, type Parsed, type Target } from "./rules.ts"

// ---- payloads

/** Every list of a message, all the way down. */
const listsOf = function* (value: unknown): Generator<Wire.List<unknown>> {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return
  if (Symbol.iterator in value && "at" in value) {
    const list = value as Wire.List<unknown>
    yield list
    for (const element of list) yield* listsOf(element)
  } else for (const field of Object.values(value)) yield* listsOf(field)
}

/** Checks access at both ends, in the middle and outside, in this order. */
const checkLists = (message: Wire.Message): void => {
  for (const list of listsOf(message)) {
    const elements = Array.from(list, plain)
    const last = list.length - 1
    assert.equal(elements.length, list.length)
    for (const index of [last, 0, last >> 1, Math.min(last, 1)]) {
      assert.ok(
        isDeepStrictEqual(plain(list.at(index)), elements.at(index)),
        `at(${index}) differs from the iterated element`
      )
    }
    assert.ok(isDeepStrictEqual(plain(list.at(-1)), elements.at(-1)), "at(-1) is not the last element")
    assert.equal(list.at(list.length), undefined)
    assert.equal(list.at(-list.length - 1), undefined)
  }
}

/** Whether an integer is beyond 2^53: int64 amounts can be decoded so, and cannot be encoded. */
const hasUnsafeInteger = (value: unknown): boolean =>
  typeof value === "number"
    ? !Number.isSafeInteger(value)
    : typeof value === "object" &&
      value !== null &&
      !(value instanceof Uint8Array) &&
      Object.values(value).some(hasUnsafeInteger)

const checkHashes = (message: Wire.Message): void => {
  const transactions = message._tag === "block" ? message.block.transactions : []
  const encodable = (transaction: Wire.Transaction) => !hasUnsafeInteger(plain(transaction))
  for (const transaction of message._tag === "tx" ? [message.transaction] : transactions) {
    assert.equal(Wire.txid(transaction).length, 32)
    assert.equal(Wire.wtxid(transaction).length, 32)
    if (!encodable(transaction)) continue
    assert.deepEqual(Wire.txid(plain(transaction)), Wire.txid(transaction), "plain data has another txid")
    assert.deepEqual(Wire.wtxid(plain(transaction)), Wire.wtxid(transaction), "plain data has another wtxid")
  }
  if (message._tag === "block") Wire.merkleRoot(Array.from(transactions, Wire.txid))
}

/** Checks what `btcpeer` prints for a message. */
const checkPrinted = (message: Wire.Message, bytes: number): void => {
  const summary = summarise(message)
  const text = describe(summary) + toLine({ event: "message", bytes, ...summary })
  // oxlint-disable-next-line no-control-regex
  assert.doesNotMatch(text, /[\x00-\x1f\x7f-\x9f]/, "a control character is printed")
}

const checkPayload = (command: string, input: Uint8Array): void => {
  const size = input.length
  const before = input.slice()
  const result = bounded("decoding", size, () => Wire.decode(command, input))
  const strict = Wire.decode(command, input, { trailingBytes: "malformed" })
  if (Result.isFailure(result)) {
    assert.ok(result.failure instanceof Wire.WireError && result.failure.message !== "")
    assert.ok(Result.isFailure(strict), "only the strict decoder accepts it")
    assert.deepEqual(strict.failure.reason, result.failure.reason)
    return
  }
  const message = result.success
  const value = bounded("walking", size, () => plain(message))
  if (Result.isFailure(strict)) assert.equal(strict.failure.reason._tag, "TrailingBytes")
  else assert.ok(isDeepStrictEqual(plain(strict.success), value), "the strict decoder gives another message")
  checkLists(message)
  checkHashes(message)
  checkPrinted(message, size)

  const again = bounded("encoding", size, () => Wire.encode(message))
  // Alerts are only decoded.
  const unsafe = hasUnsafeInteger(value) || command === "alert"
  const made = Wire.encode(value)
  assert.ok(unsafe === Result.isFailure(made), "a decoded message cannot be encoded")
  if (Result.isFailure(again)) {
    assert.ok(unsafe, `a decoded message cannot be encoded: ${again.failure.message}`)
    return
  }
  const payload = again.success
  if (Result.isSuccess(made)) assert.deepEqual(made.success, payload, "plain data encodes to other bytes")
  const repeated = Result.getOrThrow(Wire.decode(command, payload, { trailingBytes: "malformed" }))
  assert.ok(isDeepStrictEqual(plain(repeated), value), "encoding and decoding give another message")
  assert.deepEqual(Result.getOrThrow(Wire.encode(repeated)), payload)
  assert.deepEqual(input, before, "the input was changed")
}

const payloads = commands.map((command): Target => ({
  name: `payload:${command}`,
  make: (dice) => payloadOf(dice, command),
  check: (input) => checkPayload(command, input)
}))

// ---- the stream

const parse = (options: Wire.ParserOptions, chunks: ReadonlyArray<Uint8Array>): Parsed =>
  parseWith(Wire.makeParser(options), chunks)

const checkStream = (input: Uint8Array): void => {
  const own = dice(hashOf(input))
  const before = input.slice()
  for (const options of [
    { magic: network.magic },
    {
      magic: network.magic,
      badChecksum: "disconnect",
      malformed: "disconnect",
      trailingBytes: "malformed"
    }
  ] as const) {
    const whole = comparable(bounded("parsing", input.length, () => parse(options, [input])))
    for (const most of [...(input.length <= 2_000 ? [1] : []), 64, 5_000, 40_000]) {
      const chunks = cut(own, input, most)
      const parsed = bounded(`parsing in chunks of ${most}`, input.length, () => parse(options, chunks))
      assert.ok(isDeepStrictEqual(comparable(parsed), whole), `the events differ in chunks of up to ${most} bytes`)
    }
  }
  assert.deepEqual(input, before, "the input was changed")
}

const stream: Target = {
  name: "stream",
  make: (dice) => streamOf(dice, () => somePayload(dice)),
  check: checkStream
}

// ---- the handshake

const ownNonce = 7n
const unknownAddress = { services: 0n, address: new Uint8Array(16), port: 0 }
const policies = Policy.names.map(Policy.fromName)
const order = ["AwaitingVersion", "AwaitingVerack", "Done"]
/** Version, two announcements, our features and a verack. */
const mostSent = 5

/** The options that the first byte chooses. */
const configOf = (choice: number): Machine.Config => ({
  direction: (choice & 1) === 0 ? "inbound" : "outbound",
  policy: policies[(choice >> 1) % policies.length]!,
  minimumProtocolVersion: (choice & 8) === 0 ? 31_800 : 70_016,
  requiredServices: (choice & 16) === 0 ? [] : [Wire.Service.network | Wire.Service.networkLimited],
  features: (choice & 32) === 0 ? [] : [{ id: "test", data: new Uint8Array(5) }],
  isOwnNonce: (nonce) => nonce === ownNonce,
  version: {
    _tag: "version",
    protocolVersion: (choice & 64) === 0 ? 70_017 : 70_015,
    services: 0n,
    timestamp: 0,
    receiver: unknownAddress,
    sender: unknownAddress,
    nonce: ownNonce,
    userAgent: "/fuzz/",
    startHeight: 0,
    relay: true
  }
})

const checkHandshake = (input: Uint8Array): void => {
  const config = configOf(input[0] ?? 0)
  const { events } = parse({ magic: network.magic }, [input.subarray(1)])
  let state = Machine.initial
  for (const event of events) {
    if (event._tag === "Dropped") continue
    const before = state
    const { failure, send, state: after } = Machine.step(config, before, event.message, 1_000)
    assert.deepEqual(
      Machine.step(config, before, event.message, 1_000).state,
      after,
      "the same step gives another state"
    )
    assert.ok(send.length <= mostSent, `${send.length} messages are sent for one`)
    Result.getOrThrow(Wire.encodeFrames(network.magic, send))
    assert.ok(order.indexOf(after._tag) >= order.indexOf(before._tag), "goes back")
    assert.ok(before.remote === undefined || after.remote === before.remote, "a second version replaces the first")
    assert.ok(after.features.size <= Machine.maximumFeatures, "the machine records too many features")
    if (after._tag !== "AwaitingVersion" && after.remote!.nonce === ownNonce)
      assert.fail("a connection to ourselves is not detected")
    if (failure !== undefined) return
    state = after
    // After this the session takes over.
    if (after._tag === "Done") {
      assert.equal(event.message._tag, "verack")
      return
    }
  }
}

const words = ["version", "version", "verack", "wtxidrelay", "sendaddrv2", "feature", "feature", "ping"]

const handshake: Target = {
  name: "handshake",
  make: (dice) => {
    let first = dice.chance(0.9)
    const stream = streamOf(dice, () => {
      if (dice.chance(0.1)) return somePayload(dice)
      const command = first ? "version" : dice.pick(words)
      first = false
      return { command, payload: payloadOf(dice, command) }
    })
    const input = new Uint8Array(1 + stream.length)
    input[0] = dice.below(256)
    input.set(stream, 1)
    return input
  },
  check: checkHandshake
}

// ---- the input of `btcpeer decode`

const checkFound = (input: Uint8Array): void => {
  /** A bad input of the user gives an `Error` with a text, and no other exception. */
  const attempt = <A>(evaluate: () => A): A | undefined => {
    try {
      return evaluate()
    } catch (error) {
      assert.ok(error instanceof Error && Object.getPrototypeOf(error) === Error.prototype, String(error))
      return undefined
    }
  }
  for (const as of [undefined, ...forms, "inv"]) {
    for (const { bytes } of attempt(() => inputs(input, as)) ?? []) {
      const form = as === undefined ? detect(bytes) : attempt(() => formOf(as, bytes))
      if (form === undefined) continue
      let end = 0
      const walk = () => {
        end = 0
        for (const found of find(form, bytes)) {
          assert.ok(found.offset >= end && found.bytes >= 0, "found twice")
          end = found.offset + found.bytes
          if (form._tag === "Capture" && found._tag === "Message") end += 24
          if (form._tag === "BlockFile" && found._tag === "Message") end += 8
        }
      }
      // Every magic, 4 bytes, gets a parser, which allocates 16 KiB once a header announces a payload.
      bounded(`finding ${form._tag}`, bytes.length, walk, 16_384 / 4)
      assert.ok(end <= bytes.length, "an item ends after the input")
      for (const found of find(form, bytes)) {
        if (found._tag === "Message") checkPrinted(found.message, found.bytes)
        else {
          const { bytes, command, offset, problem: message, reason } = found
          toLine({ event: "dropped", offset, bytes, command, reason, message })
        }
      }
    }
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

const decodeCommand: Target = {
  name: "decode",
  make: (dice) => {
    const kind = dice.below(5)
    const parts = Array.from({ length: 1 + dice.below(4) }, () => {
      const { command, payload } = somePayload(dice)
      switch (kind) {
        case 0:
          return [u32(0), u32(0x5e0b0), commandField(command), u32(payload.length), payload]
        case 1:
          return [frame({ command, payload })]
        case 2:
          return [network.magic, u32(payload.length), payload]
        case 3:
          return [Buffer.from(`${hex(payload)}\n`)]
        default:
          return [payload]
      }
    })
    const whole = new Uint8Array(Buffer.concat(parts.flat()))
    return dice.chance(0.2) ? whole : mutate(dice, whole)
  },
  check: checkFound
}

/** All targets. */
export const targets: ReadonlyArray<Target> = [...payloads, stream, handshake, decodeCommand, ...formats]
