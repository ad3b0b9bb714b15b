/**
 * A connection that speaks messages: it pulls, parses and counts bytes, and encodes, counts and writes messages. The handshake
 * and the loops of a peer use the same one, one after the other.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Connection, ConnectionError, Receiver } from "../Connection.ts"
import type { Policy } from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { type Framing, makeV1, type Outgoing } from "./framing.ts"
import { type ActiveRecording, Recorder, startRecording } from "./recording.ts"

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

/** Takes the messages of a connection as they arrive, without a fiber. */
export interface MessageReceiver {
  /** Takes a batch, which is empty when the bytes did not complete a message. Returns whether it takes the next one too. */
  readonly onEvents: (events: ReadonlyArray<Wire.ParserEvent>) => boolean
  /** The connection has ended, and all its messages were taken. */
  readonly onEnd: (error: ConnectionError) => void
  /** An observer, or `onEvents`, has thrown. Nothing follows. */
  readonly onDefect: (defect: unknown) => void
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

export class MessageConnection implements Receiver<ConnectionError> {
  readonly connection: Connection
  readonly traffic: Traffic
  #framing: Framing
  readonly #context: Context.Context<never>
  readonly #clock: Clock.Clock
  readonly #recording: ActiveRecording | undefined
  readonly #observers: Observers
  #receiver: MessageReceiver | undefined

  private constructor(
    connection: Connection,
    framing: Framing,
    context: Context.Context<never>,
    observers: Observers,
    recording: ActiveRecording | undefined
  ) {
    const clock = Context.get(context, Clock.Clock)
    this.connection = connection
    this.#framing = framing
    this.#context = context
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
  }

  /** Speaks version 1 until `use` sets another framing. Records where the context has a recorder. */
  static open(
    connection: Connection,
    magic: Uint8Array,
    policy: Policy,
    observers: Observers = {}
  ): Effect.Effect<MessageConnection, never, Scope.Scope> {
    const over = (context: Context.Context<never>, recording?: ActiveRecording) =>
      new MessageConnection(connection, makeV1(magic, policy, recording?.received), context, observers, recording)
    return Effect.contextWith((context: Context.Context<never>) =>
      Context.get(context, Recorder) === undefined
        ? Effect.succeed(over(context))
        : Effect.map(startRecording(connection), (recording) => over(context, recording))
    )
  }

  get #pull(): Connection["pull"] {
    const { pull } = this.connection
    // The wait comes before the pull: an interruption must not lose bytes that were pulled.
    return this.#recording === undefined ? pull : Effect.andThen(this.#recording.room, pull)
  }

  /** The next batch of messages; empty when the bytes did not complete one. */
  get read(): Effect.Effect<ReadonlyArray<Wire.ParserEvent>, ConnectionError> {
    return Effect.map(this.#pull, (chunks) => this.#parse(chunks))
  }

  /** Hands the messages to `receiver`, those of bytes that are held at once. The returned Effect stops that. */
  receive(receiver: MessageReceiver): Effect.Effect<void> {
    this.#receiver = receiver
    if (this.connection.receive !== undefined && this.#recording === undefined) {
      return Effect.sync(this.connection.receive(this))
    }
    // A connection of the caller's own, or a recording, which may have to be waited for: a fiber pulls.
    const loop: Effect.Effect<void> = Effect.matchCauseEffect(this.#pull, {
      onSuccess: (chunks) => (this.onBytes(chunks) ? loop : Effect.void),
      onFailure: (cause) => {
        const error = Cause.findError(cause)
        if (Result.isSuccess(error)) receiver.onEnd(error.success)
        else if (!Cause.hasInterrupts(cause)) receiver.onDefect(Cause.squash(cause))
        return Effect.void
      }
    })
    // Waits for the end of the fiber, since a connection of the caller's own may have to finish something.
    return Fiber.interrupt(Effect.runForkWith(this.#context)(loop))
  }

  onBytes(chunks: ReadonlyArray<Uint8Array>): boolean {
    const receiver = this.#receiver!
    try {
      return receiver.onEvents(this.#parse(chunks))
    } catch (defect) {
      receiver.onDefect(defect)
      return false
    }
  }

  onEnd(error: ConnectionError): void {
    this.#receiver!.onEnd(error)
  }

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
    return this.#events([bytes])
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
    this.countBytes(chunks)
    return this.#events(chunks)
  }

  #events(chunks: ReadonlyArray<Uint8Array>): ReadonlyArray<Wire.ParserEvent> {
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
