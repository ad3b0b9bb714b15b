import type * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { closedError, type ConnectionError, type Endpoint, resetError } from "../ConnectionError.ts"
import { type Closable, gracefulClose } from "./gracefulClose.ts"
import { ReceiveBuffer } from "./receiveBuffer.ts"
import { WaitList } from "../primitives/waitList.ts"

/** What travels, in order: bytes, our end, or a break. */
type Parcel = Uint8Array | "end" | "break"

/** What both ends have in common. */
export interface MemoryOptions {
  readonly window: number
  readonly delayMillis: number
  readonly closeTimeout: Duration.Input | undefined
  readonly clock: Clock.Clock
  readonly split: ((bytes: Uint8Array) => ReadonlyArray<Uint8Array>) | undefined
}

/** First in, first out; taking out costs the same however many wait. */
class Fifo<A> {
  private items: Array<A> = []
  private from = 0

  get first(): A | undefined {
    return this.items[this.from]
  }

  push(item: A): void {
    this.items.push(item)
  }

  shift(): void {
    if (++this.from >= this.items.length) this.clear()
  }

  replaceFirst(item: A): void {
    this.items[this.from] = item
  }

  clear(): void {
    this.items = []
    this.from = 0
  }
}

/**
 * One end of an in-memory connection. It behaves as a TCP socket does: the window is the kernel's buffers, an end that
 * was told of the other's end answers with its own once its bytes are through, a destroyed end no longer takes part.
 *
 * A delivery runs the fiber that waits for it, which may come back here: state is changed first, then delivered.
 */
export class MemoryEnd implements Closable {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  private readonly options: MemoryOptions
  private readonly cutAfter: number
  private readonly receiveBuffer: ReceiveBuffer<ConnectionError>
  private other!: MemoryEnd

  /** Pieces that found no room in the window. */
  private readonly waiting = new Fifo<Uint8Array>()
  private waitingBytes = 0
  private readonly travelling = new Fifo<{ readonly at: number; readonly parcel: Parcel }>()
  private travellingBytes = 0
  private sent = 0
  private isCut = false

  private error: ConnectionError | undefined
  /** Our end follows the last byte that waits. */
  private ending = false
  private endSent = false
  private endReceived = false
  private broken = false

  private readonly drains = new WaitList<ConnectionError>(() => {
    if (this.error !== undefined) return Effect.fail(this.error)
    return this.waitingBytes === 0 ? Effect.void : undefined
  })
  private readonly departed = new WaitList(() => (this.travelling.first === undefined ? undefined : Effect.void))
  readonly over = new WaitList(() => (this.isOver() ? Effect.void : undefined))

  readonly pull: ReceiveBuffer<ConnectionError>["pull"]
  readonly drained: Effect.Effect<void, ConnectionError> = this.drains.wait
  readonly close: Effect.Effect<void>
  readonly destroy: Effect.Effect<void> = Effect.sync(() => this.destroyUnsafe())

  constructor(localAddress: Endpoint, remoteAddress: Endpoint, cutAfter: number | undefined, options: MemoryOptions) {
    this.localAddress = localAddress
    this.remoteAddress = remoteAddress
    this.options = options
    this.cutAfter = cutAfter ?? Number.POSITIVE_INFINITY
    this.receiveBuffer = new ReceiveBuffer<ConnectionError>(() => this.other.flush(), options.split !== undefined)
    this.pull = this.receiveBuffer.pull
    // Nothing is lost by not waiting: what was written stays with the pair until the other end has pulled it.
    this.close =
      options.closeTimeout === undefined ? Effect.sync(() => this.begin()) : gracefulClose(this, options.closeTimeout)
  }

  connect(other: MemoryEnd): void {
    this.other = other
  }

  readonly write = (bytes: Uint8Array): number => {
    if (this.error !== undefined) return -1
    for (const piece of this.options.split?.(bytes) ?? [bytes]) {
      if (piece.length === 0) continue
      this.waiting.push(piece)
      this.waitingBytes += piece.length
    }
    this.flush()
    // The delivery may have run the other side, which may have ended the connection.
    return this.error === undefined ? this.waitingBytes : -1
  }

  isOver(): boolean {
    return this.broken || (this.endSent && this.endReceived)
  }

  begin(): void {
    if (this.receiveBuffer.discarding) return
    this.error ??= closedError()
    this.ending = true
    this.receiveBuffer.discard(this.error)
    // What we no longer hold makes room for the other end, which may be waiting to flush its own bytes.
    this.other.flush()
    this.flush()
  }

  destroyUnsafe(): void {
    this.error ??= closedError()
    this.dropWaiting(this.error)
    this.begin()
    this.flush()
    this.breakOff()
  }

  /** Both ends see a break now. */
  resetBoth(cause: unknown): void {
    this.resetHere(cause)
    this.other.resetHere(cause)
  }

  /** Carries what travels, each parcel when its time has come. */
  readonly courier: Effect.Effect<never> = Effect.forever(
    Effect.andThen(
      this.departed.wait,
      Effect.suspend(() => {
        const first = this.travelling.first
        if (first === undefined) return Effect.void
        const rest = first.at - this.options.clock.currentTimeMillisUnsafe()
        if (rest > 0) return Effect.sleep(Math.ceil(rest))
        this.travelling.shift()
        if (typeof first.parcel !== "string") this.travellingBytes -= first.parcel.length
        this.deliver(first.parcel)
        return Effect.void
      })
    ),
    { disableYield: true }
  )

  /** Moves what waits into the window, then tells who waited for that, then sends our end if it is due. */
  private flush(): void {
    for (let piece = this.waiting.first; piece !== undefined && !this.isCut; piece = this.waiting.first) {
      const held = this.travellingBytes + this.other.receiveBuffer.size
      const room = this.other.receiveBuffer.discarding ? Number.POSITIVE_INFINITY : this.options.window - held
      if (room <= 0) return
      // A piece chosen by the test is cut only if the window never has room for it, else each byte that is pulled would
      // bring one more.
      if (this.options.split !== undefined && piece.length > room && held > 0) return
      const limit = Math.min(room, this.cutAfter - this.sent)
      if (piece.length > limit) {
        this.waiting.replaceFirst(piece.subarray(limit))
        piece = piece.subarray(0, limit)
      } else {
        this.waiting.shift()
      }
      this.waitingBytes -= piece.length
      this.sent += piece.length
      this.isCut = this.sent >= this.cutAfter
      if (piece.length > 0) this.send(piece)
      if (this.isCut) this.send("break")
    }
    if (this.isCut || this.broken) {
      this.dropWaiting(this.error)
      return
    }
    this.drains.wake()
    if (this.ending && !this.endSent && this.waiting.first === undefined) {
      this.endSent = true
      this.send("end")
      this.wakeIfOver()
    }
  }

  private send(parcel: Parcel): void {
    if (this.options.delayMillis === 0) {
      this.deliver(parcel)
      return
    }
    this.travelling.push({ at: this.options.clock.currentTimeMillisUnsafe() + this.options.delayMillis, parcel })
    if (typeof parcel !== "string") this.travellingBytes += parcel.length
    this.departed.wake()
  }

  private deliver(parcel: Parcel): void {
    if (parcel === "end") this.other.receiveEnd()
    else if (parcel === "break") this.resetBoth(new Error(`cut after ${this.cutAfter} bytes`))
    else this.other.receiveBuffer.push(parcel)
  }

  private receiveEnd(): void {
    if (this.endReceived || this.broken) return
    this.endReceived = true
    this.ending = true
    this.error ??= closedError()
    this.receiveBuffer.fail(this.error)
    this.flush()
    this.wakeIfOver()
  }

  private resetHere(cause: unknown): void {
    this.travelling.clear()
    this.travellingBytes = 0
    if (this.isOver()) return
    this.error ??= resetError(cause)
    this.dropWaiting(this.error)
    this.breakOff()
    this.receiveBuffer.fail(this.error)
  }

  private dropWaiting(error: ConnectionError | undefined): void {
    this.waiting.clear()
    this.waitingBytes = 0
    if (error !== undefined) this.drains.wake(Effect.fail(error))
  }

  private breakOff(): void {
    this.broken = true
    this.over.wake()
  }

  private wakeIfOver(): void {
    if (this.isOver()) this.over.wake()
  }
}
