import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import { closedError, type ConnectionError, type Endpoint, resetError } from "../ConnectionError.ts"
import { type Closable, gracefulClose } from "./gracefulClose.ts"
import { ReceiveBuffer } from "./receiveBuffer.ts"
import { WaitList } from "../primitives/waitList.ts"

/** What an opened `Socket` consists of. */
export interface SocketParts {
  readonly pull: Effect.Effect<NonEmptyReadonlyArray<Uint8Array>, Socket.SocketError>
  readonly writer: Socket.Writer
  /** Owns the reader, the writer and the two fibers. */
  readonly scope: Scope.Closeable
  /** Owns the writer: closing it sends our end, where the transport knows one. */
  readonly writeScope: Scope.Closeable
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  readonly closeTimeout: Duration.Input
}

/** Normal closure, going away, no code given: what a WebSocket says in order, and what TCP's end is translated to. */
const orderly: ReadonlySet<number> = new Set([1000, 1001, 1005])

const toError = (exit: Exit.Exit<unknown, Socket.SocketError>): ConnectionError => {
  if (Exit.isSuccess(exit) || Exit.hasInterrupts(exit)) return closedError()
  const cause = Cause.squash(exit.cause)
  if (!Socket.isSocketError(cause)) return resetError(cause)
  const reason = cause.reason
  if (reason._tag === "SocketCloseError" && orderly.has(reason.code)) return closedError()
  return resetError("cause" in reason && reason.cause !== undefined ? reason.cause : reason)
}

/** So much is read ahead of the puller, and one batch of the socket more: enough to see the end behind a few messages. */
const readAhead = 65_536

/** Each piece costs an object of 200 bytes and more, however few bytes are in it: so many are enough as well. */
const maxPieces = 1_024

/**
 * Two fibers, for a Socket's reads and writes are Effects: `write` is synchronous, so someone else has to run the
 * socket's; and `close` reads to the remote's end whether or not somebody pulls, so reading cannot be left to the puller.
 */
export class SocketConnection implements Closable {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  private readonly parts: SocketParts
  private readonly receiveBuffer: ReceiveBuffer<ConnectionError> = new ReceiveBuffer<ConnectionError>(() =>
    this.taken.wake()
  )
  private outbox: Array<Uint8Array> = []
  private waitingBytes = 0
  private error: ConnectionError | undefined
  /** Our end follows the last byte that waits. */
  private ending = false
  private readEnded = false
  private writeEnded = false
  /** Nothing is left to flush or to wait for. */
  private destroyed = false
  private shutting = false

  private readonly taken = new WaitList(() =>
    this.receiveBuffer.size < readAhead && this.receiveBuffer.pieces < maxPieces ? Effect.void : undefined
  )
  private readonly toWrite = new WaitList(() => (this.outbox.length > 0 || this.ending ? Effect.void : undefined))
  private readonly drains = new WaitList<ConnectionError>(() => {
    if (this.error !== undefined) return Effect.fail(this.error)
    return this.waitingBytes === 0 ? Effect.void : undefined
  })
  readonly over = new WaitList(() => (this.isOver() ? Effect.void : undefined))

  readonly pull: ReceiveBuffer<ConnectionError>["pull"] = this.receiveBuffer.pull
  readonly drained: Effect.Effect<void, ConnectionError> = this.drains.wait
  readonly close: Effect.Effect<void>
  readonly destroy: Effect.Effect<void>
  readonly reading: Effect.Effect<void>
  readonly writing: Effect.Effect<void>

  constructor(parts: SocketParts) {
    this.parts = parts
    this.localAddress = parts.localAddress
    this.remoteAddress = parts.remoteAddress
    // Uninterruptible from the end of the wait to the end of the shutdown, else a fiber could leave with the scope open.
    this.close = Effect.ensuring(gracefulClose(this, parts.closeTimeout), this.shutdown)
    this.destroy = Effect.uninterruptible(
      Effect.andThen(
        Effect.sync(() => this.destroyUnsafe()),
        this.shutdown
      )
    )
    this.reading = parts.pull.pipe(
      Effect.flatMap((batch) => {
        this.receiveBuffer.pushAll(batch)
        return this.taken.wait
      }),
      Effect.forever({ disableYield: true }),
      Effect.onExit((exit) => Effect.sync(() => this.readingEnded(toError(exit)))),
      Effect.ignoreCause
    )
    this.writing = Effect.whileLoop({
      while: () => !this.ending || this.outbox.length > 0,
      body: () => Effect.andThen(this.toWrite.wait, this.writeBatch),
      step: () => {}
    }).pipe(
      Effect.andThen(Scope.close(parts.writeScope, Exit.void)),
      Effect.onExit((exit) => Effect.sync(() => this.writingEnded(exit))),
      Effect.ignoreCause
    )
  }

  readonly write = (bytes: Uint8Array): number => {
    if (this.error !== undefined) return -1
    if (bytes.length > 0) {
      this.outbox.push(bytes)
      this.waitingBytes += bytes.length
      this.toWrite.wake()
    }
    return this.waitingBytes
  }

  isOver(): boolean {
    return this.destroyed || (this.readEnded && this.writeEnded)
  }

  begin(): void {
    if (this.receiveBuffer.discarding) return
    this.error ??= closedError()
    this.receiveBuffer.discard(this.error)
    this.taken.wake()
    this.end()
  }

  destroyUnsafe(): void {
    this.destroyed = true
    this.error ??= closedError()
    this.dropWaiting(this.error)
    this.begin()
    this.over.wake()
  }

  private readonly writeBatch = Effect.suspend(() => {
    const batch = this.outbox
    const [first, ...rest] = batch
    if (first === undefined) return Effect.void
    this.outbox = []
    return Effect.map(this.parts.writer.writeAll([first, ...rest]), () => {
      for (const bytes of batch) this.waitingBytes -= bytes.length
      if (this.waitingBytes <= 0) this.drains.wake()
    })
  })

  /**
   * Tells the transport to end now, for closing the scope alone leaves the handle open while the remote does not read;
   * forked, for some writers suspend once the connection ended. Then ends both fibers.
   */
  private readonly shutdown: Effect.Effect<void> = Effect.suspend(() => {
    if (this.shutting) return Effect.void
    this.shutting = true
    return Effect.suspend(() => this.parts.writer.write(new Socket.CloseEvent())).pipe(
      Effect.ignoreCause,
      Effect.forkIn(this.parts.scope, { startImmediately: true }),
      Effect.andThen(Scope.close(this.parts.scope, Exit.void)),
      Effect.ignoreCause
    )
  })

  private readingEnded(error: ConnectionError): void {
    this.readEnded = true
    this.ended(error)
    // As a TCP socket of Node does: the remote's end is answered with ours, once what was written is flushed.
    this.end()
    if (this.isOver()) this.over.wake()
  }

  private writingEnded(exit: Exit.Exit<unknown, Socket.SocketError>): void {
    this.writeEnded = true
    if (Exit.isFailure(exit)) this.ended(toError(exit))
    if (this.isOver()) this.over.wake()
  }

  private ended(error: ConnectionError): void {
    this.error ??= error
    this.receiveBuffer.fail(this.error)
    // After an orderly end what waits may still be flushed, after a break it cannot.
    if (error.reason._tag === "Closed") {
      this.drains.wake(Effect.fail(this.error))
    } else {
      this.destroyed = true
      this.dropWaiting(this.error)
    }
  }

  private end(): void {
    this.ending = true
    this.toWrite.wake()
  }

  private dropWaiting(error: ConnectionError): void {
    this.outbox = []
    this.waitingBytes = 0
    this.drains.wake(Effect.fail(error))
  }
}
