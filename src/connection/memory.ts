/** The in-memory pair: two connections in one process, with delays, cuts and resets for tests. */
import type * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { closedError, type ConnectionError, type Endpoint, resetError } from "../ConnectionError.ts"
import { type Closable, gracefulClose } from "./gracefulClose.ts"
import { ReceiveBuffer, type Receiver } from "./receiveBuffer.ts"
import { WaitList } from "../primitives/waitList.ts"

/** What an end sends, in order: bytes, its end, or a break. */
type Parcel = Uint8Array | "end" | "break"

/** The options of both ends. */
export interface MemoryOptions {
  readonly window: number
  readonly delayMillis: number
  readonly closeTimeout: Duration.Input | undefined
  readonly clock: Clock.Clock
  readonly split: ((bytes: Uint8Array) => ReadonlyArray<Uint8Array>) | undefined
  /** Carries bytes, or without bytes the end, in place of the delay. */
  readonly carry: ((bytes: Uint8Array | undefined, arrive: () => void) => void) | undefined
}

/** A queue. Removing an entry costs the same, however many there are. */
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
 * One end of an in-memory connection. It behaves like a TCP socket: the window is the buffer of the kernel; an end that
 * receives the end of the other side flushes and sends its own; a destroyed end neither sends nor receives.
 *
 * A delivery runs the fiber that waits for it, and this fiber may call this class: change the state first, then deliver.
 */
export class MemoryEnd implements Closable {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  private readonly options: MemoryOptions
  private readonly cutAfter: number
  private readonly receiveBuffer: ReceiveBuffer<ConnectionError>
  private other!: MemoryEnd

  /** The pieces for which the window has no room. */
  private readonly waiting = new Fifo<Uint8Array>()
  private waitingBytes = 0
  private readonly travelling = new Fifo<{ readonly at: number; readonly parcel: Parcel }>()
  private travellingBytes = 0
  /** Counts the breaks: what a carrier brings from before a break is dropped. */
  private era = 0
  private sent = 0
  private isCut = false

  private error: ConnectionError | undefined
  /** Our end is sent after the last waiting byte. */
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
    this.receiveBuffer = new ReceiveBuffer<ConnectionError>(
      { taken: () => this.other.flush() },
      options.split !== undefined
    )
    this.pull = this.receiveBuffer.pull
    // Written bytes stay with the pair until the other end pulls them, so nothing is lost without a wait.
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

  receive(receiver: Receiver<ConnectionError>): () => void {
    return this.receiveBuffer.receive(receiver)
  }

  isOver(): boolean {
    return this.broken || (this.endSent && this.endReceived)
  }

  begin(): void {
    if (this.receiveBuffer.discarding) return
    this.error ??= closedError()
    this.ending = true
    this.receiveBuffer.discard(this.error)
    // The dropped bytes make room for the other end, which may wait to flush its own.
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

  /** Breaks the connection at both ends. */
  resetBoth(cause: unknown): void {
    this.resetHere(cause)
    this.other.resetHere(cause)
  }

  /** Delivers each parcel when its time has come. */
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

  /** Moves waiting bytes into the window, wakes the fibers that wait for that, and sends our end if it is due. */
  private flush(): void {
    for (let piece = this.waiting.first; piece !== undefined && !this.isCut; piece = this.waiting.first) {
      const held = this.travellingBytes + this.other.receiveBuffer.size
      const room = this.other.receiveBuffer.discarding ? Number.POSITIVE_INFINITY : this.options.window - held
      if (room <= 0) return
      // A piece that the test chose is cut only if the window is too small for it when empty. Otherwise each pulled
      // byte would bring one more.
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
    const carry = this.options.carry
    if (carry !== undefined && parcel !== "break") {
      const bytes = parcel === "end" ? undefined : parcel
      const era = this.era
      const size = bytes?.length ?? 0
      this.travellingBytes += size
      carry(bytes, () => {
        if (era !== this.era) return
        this.travellingBytes -= size
        this.deliver(parcel)
      })
      return
    }
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
    this.era++
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
