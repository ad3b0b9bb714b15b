/**
 * A connection that speaks messages: it pulls, parses and counts bytes, and encodes, counts and writes messages. The handshake
 * and the loops of a peer use the same one, one after the other.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Connection, ConnectionError } from "../Connection.ts"
import type { Policy } from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { type Framing, makeV1, type Outgoing } from "./framing.ts"
import { type ActiveRecording, startRecording } from "./recording.ts"

export type { Outgoing } from "./framing.ts"

/** How many messages of one command went one way, and their bytes, headers included. */
export interface Tally {
  messages: number
  bytes: number
}

/** Plain numbers, counted on the hot path and published on request. Times are milliseconds since the epoch. */
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

/** The observers of a connection's messages; neither may throw. */
interface Observers {
  readonly onRead?: ((event: Wire.ParserEvent) => void) | undefined
  readonly onWrite?: ((message: Wire.Message, size: number) => void) | undefined
}

interface Parts extends Observers {
  readonly framing: Framing
  readonly clock: Clock.Clock
  readonly recording: ActiveRecording | undefined
}

/** The name under which unknown commands are counted: a remote must not grow the map by inventing names. */
export const otherCommands = "*other*"

/** What bytes that belong to no message are counted under. */
export const noMessage = "*no message*"

const count = (tallies: Map<string, Tally>, command: string, bytes: number): void => {
  const tally = tallies.get(command)
  if (tally === undefined) tallies.set(command, { messages: 1, bytes })
  else {
    tally.messages++
    tally.bytes += bytes
  }
}

const countedAs = (message: Wire.Message): string => (message._tag === "Unknown" ? otherCommands : message._tag)

/** Of a connection that is no longer read. */
const closedParser: Wire.Parser = { push: () => [], failure: undefined, buffered: 0 }

export class MessageConnection {
  readonly connection: Connection
  readonly traffic: Traffic
  /** The next batch of messages; empty when the bytes did not complete one. */
  readonly read: Effect.Effect<ReadonlyArray<Wire.ParserEvent>, ConnectionError>
  #framing: Framing
  readonly #clock: Clock.Clock
  readonly #recording: ActiveRecording | undefined
  readonly #observers: Observers

  private constructor(connection: Connection, { clock, framing, recording, ...observers }: Parts) {
    this.connection = connection
    this.#framing = framing
    this.#clock = clock
    this.#recording = recording
    this.#observers = observers
    this.traffic = {
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
    const read = Effect.map(connection.pull, (chunks) => {
      this.countBytes(chunks)
      return this.#parse(chunks)
    })
    // The wait comes before the pull: an interruption must not lose bytes that were pulled.
    this.read = recording === undefined ? read : Effect.andThen(recording.room, read)
  }

  /** Speaks version 1 until `use` sets another framing. Records where the context has a recorder. */
  static readonly open = Effect.fnUntraced(function* (
    connection: Connection,
    magic: Uint8Array,
    policy: Policy,
    { onRead, onWrite }: Observers = {}
  ): Effect.fn.Return<MessageConnection, never, Scope.Scope> {
    const recording = yield* startRecording(connection)
    const framing = makeV1(magic, policy, recording?.received)
    return new MessageConnection(connection, { clock: yield* Clock.Clock, framing, onRead, onWrite, recording })
  })

  get framing(): Framing {
    return this.#framing
  }

  /** Set once nothing more can be read from the stream. */
  get failure(): Wire.WireError | undefined {
    return this.#framing.parser.failure
  }

  /** Sees each frame before its payload is read, where the connection is recorded. */
  get onFrame(): Wire.ParserOptions["onFrame"] {
    return this.#recording?.received
  }

  /** A wait between two writes, where there is one. */
  get room(): Effect.Effect<void> | undefined {
    return this.#recording?.room
  }

  /** Uses a framing from now on; returns the messages in bytes that were pulled already. */
  use(framing: Framing, bytes: Uint8Array): ReadonlyArray<Wire.ParserEvent> {
    this.#framing = framing
    return this.#parse([bytes])
  }

  /** Counts bytes of the key exchange that were pulled. */
  countBytes(chunks: ReadonlyArray<Uint8Array>): void {
    this.traffic.lastReceivedAt = this.#clock.currentTimeMillisUnsafe()
    for (const chunk of chunks) this.traffic.bytesReceived += chunk.length
  }

  /** Counts and writes bytes of the key exchange. */
  writeBytes(bytes: Uint8Array): void {
    this.traffic.lastSentAt = this.#clock.currentTimeMillisUnsafe()
    this.traffic.bytesSent += bytes.length
    this.connection.write(bytes)
  }

  encode(message: Wire.Message): Result.Result<Outgoing, Wire.WireError> {
    return Result.map(this.#framing.encode(message), (frame) => ({ message, frame }))
  }

  /** Hands frames to the connection, joined into one write; returns how many bytes wait there. */
  writeFrames(frames: ReadonlyArray<Outgoing>): number {
    if (frames.length === 0) return 0
    const { traffic } = this
    const { onWrite } = this.#observers
    const recording = this.#recording
    traffic.lastSentAt = this.#clock.currentTimeMillisUnsafe()
    for (const { frame, message } of frames) {
      traffic.bytesSent += frame.length
      traffic.messagesSent++
      count(traffic.sent, countedAs(message), frame.length)
      if (recording !== undefined) recording.sent(Wire.command(message), this.#framing.payloadOf(frame))
      if (onWrite !== undefined) onWrite(message, frame.length)
    }
    // Last: an in-memory write may run the other side, which then sees all of this done.
    return this.connection.write(this.#framing.seal(frames))
  }

  /** Encodes and writes messages; returns the error of the first that cannot be encoded, and then writes nothing. */
  write(messages: ReadonlyArray<Wire.Message>): Wire.WireError | undefined {
    const frames: Array<Outgoing> = []
    for (const message of messages) {
      const encoded = this.encode(message)
      if (Result.isFailure(encoded)) return encoded.failure
      frames.push(encoded.success)
    }
    this.writeFrames(frames)
    return undefined
  }

  /** Frees the bytes of an incomplete frame; nothing is read any more. */
  release(): void {
    this.#framing = { ...this.#framing, parser: closedParser }
  }

  /** Ends the recording, after the last read and write. */
  get endRecording(): Effect.Effect<void> {
    return this.#recording?.end ?? Effect.void
  }

  #parse(chunks: ReadonlyArray<Uint8Array>): ReadonlyArray<Wire.ParserEvent> {
    const { traffic } = this
    const { onRead } = this.#observers
    const { parser } = this.#framing
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
}
