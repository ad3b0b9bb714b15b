/**
 * A connection that speaks messages: bytes are pulled, parsed and counted, messages are encoded, written and counted.
 * The handshake and the loops of a peer use the same one, one after the other.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Connection, ConnectionError } from "../Connection.ts"
import * as Wire from "../Wire.ts"
import type { Framing, Outgoing } from "./framing.ts"
import type { Started } from "./recording.ts"

export type { Outgoing } from "./framing.ts"

/** How many messages of one command went one way, and their bytes, headers included. */
export interface Tally {
  messages: number
  bytes: number
}

/** Plain numbers, counted on the hot path and published when asked for. Times are milliseconds since the epoch. */
export interface Traffic {
  readonly connectedAt: number
  lastReceivedAt: number | undefined
  lastSentAt: number | undefined
  bytesReceived: number
  bytesSent: number
  messagesReceived: number
  messagesSent: number
  dropped: number
  readonly received: Map<string, Tally>
  readonly sent: Map<string, Tally>
}

export interface Link {
  readonly connection: Connection
  readonly traffic: Traffic
  /** How the connection is spoken on now. */
  readonly framing: () => Framing
  /** Bytes of what comes before messages: counts those that were pulled, counts and writes ours. */
  readonly countBytes: (chunks: ReadonlyArray<Uint8Array>) => void
  readonly writeBytes: (bytes: Uint8Array) => void
  /** Speaks with that framing from now on; returns what bytes that were pulled already hold. */
  readonly use: (framing: Framing, bytes: Uint8Array) => ReadonlyArray<Wire.ParserEvent>
  /** The next batch of messages; empty when the bytes did not complete one. */
  readonly read: Effect.Effect<ReadonlyArray<Wire.ParserEvent>, ConnectionError>
  /** Is to see each frame before its payload is read, where something is. */
  readonly onFrame: Wire.ParserOptions["onFrame"]
  /** Set once nothing more can be read from the stream. */
  readonly failure: () => Wire.WireError | undefined
  /** Lets go of what an incomplete frame has brought; nothing is read any more. */
  readonly release: () => void
  readonly encode: (message: Wire.Message) => Result.Result<Outgoing, Wire.WireError>
  /** Hands frames to the connection, joined into one write; returns how many bytes wait there. */
  readonly writeFrames: (frames: ReadonlyArray<Outgoing>) => number
  /** Encodes and writes; returns what was wrong with the first message that cannot be sent, then nothing was. */
  readonly write: (messages: ReadonlyArray<Wire.Message>) => Wire.WireError | undefined
  /** What is to be waited for between two writes, where something is. */
  readonly room: Effect.Effect<void> | undefined
  /** Ends the recording, once nothing is read or written any more. */
  readonly endRecording: Effect.Effect<void>
}

export interface LinkOptions {
  /** How it is spoken until `use` says otherwise. */
  readonly framing: Framing
  readonly clock: Clock.Clock
  readonly onRead: ((event: Wire.ParserEvent) => void) | undefined
  readonly onWrite: ((message: Wire.Message, size: number) => void) | undefined
  readonly recording: Started | undefined
}

/** What unknown commands are counted under: a remote must not grow the map by inventing names. */
export const otherCommands = "*other*"

const count = (tallies: Map<string, Tally>, command: string, bytes: number): void => {
  const tally = tallies.get(command)
  if (tally === undefined) tallies.set(command, { messages: 1, bytes })
  else {
    tally.messages++
    tally.bytes += bytes
  }
}

const nothing: ReadonlyArray<Wire.ParserEvent> = []
const closedParser: Wire.Parser = { push: () => nothing, failure: undefined, buffered: 0 }

const countedAs = (message: Wire.Message): string => (message._tag === "Unknown" ? otherCommands : message._tag)

export const makeLink = (connection: Connection, options: LinkOptions): Link => {
  const { clock, onRead, onWrite, recording } = options
  let framing = options.framing
  let parser: Wire.Parser = framing.parser
  const traffic: Traffic = {
    connectedAt: clock.currentTimeMillisUnsafe(),
    lastReceivedAt: undefined,
    lastSentAt: undefined,
    bytesReceived: 0,
    bytesSent: 0,
    messagesReceived: 0,
    messagesSent: 0,
    dropped: 0,
    received: new Map(),
    sent: new Map()
  }

  const countBytes = (chunks: ReadonlyArray<Uint8Array>): void => {
    traffic.lastReceivedAt = clock.currentTimeMillisUnsafe()
    for (const chunk of chunks) traffic.bytesReceived += chunk.length
  }

  const parse = (chunks: ReadonlyArray<Uint8Array>): ReadonlyArray<Wire.ParserEvent> => {
    const events = chunks.length === 1 ? parser.push(chunks[0]!) : chunks.flatMap((chunk) => parser.push(chunk))
    for (const event of events) {
      if (event._tag === "Received") {
        traffic.messagesReceived++
        count(traffic.received, countedAs(event.message), event.size)
      } else traffic.dropped++
      if (onRead !== undefined) onRead(event)
    }
    return events
  }

  const encode = (message: Wire.Message): Result.Result<Outgoing, Wire.WireError> =>
    Result.map(framing.encode(message), (frame) => ({ message, frame }))

  const writeFrames = (frames: ReadonlyArray<Outgoing>): number => {
    if (frames.length === 0) return 0
    traffic.lastSentAt = clock.currentTimeMillisUnsafe()
    for (const { frame, message } of frames) {
      traffic.bytesSent += frame.length
      traffic.messagesSent++
      count(traffic.sent, countedAs(message), frame.length)
      if (recording !== undefined) recording.sent(Wire.command(message), framing.payloadOf(frame))
      if (onWrite !== undefined) onWrite(message, frame.length)
    }
    // Last: an in-memory write may run the other side, which then sees all of this done.
    return connection.write(framing.seal(frames))
  }

  const read = Effect.map(connection.pull, (chunks) => {
    countBytes(chunks)
    return parse(chunks)
  })

  return {
    connection,
    traffic,
    framing: () => framing,
    countBytes,
    writeBytes: (bytes) => {
      traffic.lastSentAt = clock.currentTimeMillisUnsafe()
      traffic.bytesSent += bytes.length
      connection.write(bytes)
    },
    use: (other, bytes) => {
      framing = other
      parser = other.parser
      return parse([bytes])
    },
    // What was pulled is never left to an interruption: the waiting comes before.
    read: recording === undefined ? read : Effect.andThen(recording.room, read),
    onFrame: recording?.received,
    failure: () => parser.failure,
    release: () => {
      parser = closedParser
      framing = { ...framing, parser }
    },
    encode,
    writeFrames,
    write: (messages) => {
      const frames: Array<Outgoing> = []
      for (const message of messages) {
        const encoded = encode(message)
        if (Result.isFailure(encoded)) return encoded.failure
        frames.push(encoded.success)
      }
      writeFrames(frames)
      return undefined
    },
    room: recording?.room,
    endRecording: recording?.end ?? Effect.void
  }
}
