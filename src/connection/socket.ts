/** A connection over an Effect `Socket`. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import { closedError, type ConnectionError, type Endpoint, resetError } from "../ConnectionError.ts"
import { type Closable, gracefulClose } from "./gracefulClose.ts"
import { ReceiveBuffer, type Receiver } from "./receiveBuffer.ts"
import { WaitList } from "../primitives/waitList.ts"

/** The parts of an opened `Socket`. */
export interface SocketParts {
  readonly pull: Effect.Effect<NonEmptyReadonlyArray<Uint8Array>, Socket.SocketError>
  readonly writer: Socket.Writer
  /** Owns the reader, the writer and the two fibers. */
  readonly scope: Scope.Closeable
  /** Owns the writer. Its close sends our end, if the transport has one. */
  readonly writeScope: Scope.Closeable
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  readonly closeTimeout: Duration.Input
}

/** The WebSocket codes of an orderly end: normal closure, going away, no code. The end of TCP is translated to them. */
const orderly: ReadonlySet<number> = new Set([1000, 1001, 1005])

const toError = (exit: Exit.Exit<unknown, Socket.SocketError>): ConnectionError => {
  if (Exit.isSuccess(exit) || Exit.hasInterrupts(exit)) return closedError()
  const cause = Cause.squash(exit.cause)
  if (!Socket.isSocketError(cause)) return resetError(cause)
  const reason = cause.reason
  if (reason._tag === "SocketCloseError" && orderly.has(reason.code)) return closedError()
  return resetError("cause" in reason && reason.cause !== undefined ? reason.cause : reason)
}

/**
 * The number of bytes that are read ahead of the puller; one batch of the socket can exceed it. Enough to see an end
 * after a few messages.
 */
const readAhead = 65_536

/** The number of pieces that are read ahead: each costs an object of 200 bytes and more, however short it is. */
const maxPieces = 1_024

/**
 * Two fibers, because reads and writes of a Socket are Effects. `write` is synchronous, so a fiber runs the writes of
 * the socket. `close` reads to the end of the remote whether or not a fiber pulls, so a fiber does the reads.
 */
export class SocketConnection implements Closable {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  private readonly parts: SocketParts
  private readonly receiveBuffer: ReceiveBuffer<ConnectionError> = new ReceiveBuffer<ConnectionError>({
    taken: () => this.taken.wake()
  })
  private outbox: Array<Uint8Array> = []
  private waitingBytes = 0
  private error: ConnectionError | undefined
  /** Our end is sent after the last waiting byte. */
  private ending = false
  private readEnded = false
  private writeEnded = false
  /** No bytes are left to flush, and no end is awaited. */
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
    // Uninterruptible from the end of the wait to the end of the shutdown: otherwise a fiber could leave the scope
    // open.
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

  receive(receiver: Receiver<ConnectionError>): () => void {
    return this.receiveBuffer.receive(receiver)
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
   * Ends the transport at once, then both fibers. Closing the scope alone leaves the handle open while the remote does
   * not read. It is forked, because some writers suspend after the end of the connection.
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
    // Like a TCP socket of Node: after the end of the remote ours is sent, when all written bytes are flushed.
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
    // After an orderly end the waiting bytes may still be flushed; after a break they cannot.
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
