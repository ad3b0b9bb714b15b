/** A connected socket of `node:net` as a connection: where it reads to, how far ahead, and how it ends. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as net from "node:net"
import { unwritten } from "../../primitives/bytes.ts"
import { closedError, type ConnectionError, type Endpoint, resetError } from "../../ConnectionError.ts"
import { type Closable, defaultCloseTimeout, gracefulClose } from "../gracefulClose.ts"
import { ReceiveBuffer } from "../receiveBuffer.ts"
import { WaitList } from "../../primitives/waitList.ts"
import { plainHost } from "./hosts.ts"

/**
 * Reading pauses when so much was not pulled. The last chunk (Node reads 64 KiB at a time) may exceed it, and Node's own
 * buffer takes two more before the kernel's window closes: at most 256 KiB wait in this process for a puller that is away.
 */
const pauseAt = 65_536

/** Each piece costs an object of 200 bytes and more, however few bytes are in it: so many pause reading as well. */
const maxPieces = 1_024

/** For what may be ignored: an `error` event that nobody listens to ends the process. */
export const noop = (): void => {}

/** What `uninterruptibleMask` hands out. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const endpointOf = (host: string | undefined, port: number | undefined, otherwise: Endpoint): Endpoint =>
  host === undefined || port === undefined ? otherwise : { host: plainHost(host), port }

export const unspecified: Endpoint = { host: "0.0.0.0", port: 0 }

/** Both sides of a connection, as they are told. */
export interface Addresses {
  readonly local: Endpoint
  readonly remote: Endpoint
}

export const addressesOf = (socket: net.Socket, remote: Endpoint): Addresses => ({
  local: endpointOf(socket.localAddress, socket.localPort, unspecified),
  remote: endpointOf(socket.remoteAddress, socket.remotePort, remote)
})

/**
 * Where all dialed sockets read to, one after the other, while little comes: what was read is copied out before the next
 * read begins. A socket left to itself takes 64 KiB for each read, however little comes: round trips take 1.2 times as
 * long.
 */
const readBuffer = process.platform === "win32" ? undefined : new Uint8Array(65_536)

/**
 * A socket whose read filled that buffer reads to one of its own, from which nothing is copied, until so little comes again
 * that copying it costs less. Below 128 KiB, from where on the system gives and takes back each one by itself.
 */
const ownBufferSize = 122_880
const largeRead = 32_768

/** A socket, and who is told what it reads. */
export interface Source {
  readonly socket: net.Socket
  onData: ((chunk: Uint8Array) => void) | undefined
}

/** A socket that tells by data events. */
export const streaming = (socket: net.Socket): Source => ({ socket, onData: undefined })

/** A socket that can be dialed with. */
export const makeSource = (): Source => {
  // Windows holds on to a buffer while it waits for bytes: there none can be shared.
  if (readBuffer === undefined) return streaming(new net.Socket())
  /** The rest of the own buffer, nothing read into it yet. */
  let free: Uint8Array | undefined
  const source: Source = {
    socket: new net.Socket({
      onread: {
        buffer: () => {
          if (free === undefined) return readBuffer
          if (free.length < readBuffer.length) free = unwritten(ownBufferSize)
          return free
        },
        callback: (size) => {
          let chunk: Uint8Array
          if (free === undefined) {
            chunk = readBuffer.slice(0, size)
            if (size === readBuffer.length) free = unwritten(ownBufferSize)
          } else {
            chunk = free.subarray(0, size)
            free = size < largeRead ? undefined : free.subarray(size)
          }
          source.onData?.(chunk)
          return true
        }
      }
    }),
    onData: undefined
  }
  // Nothing may be read before somebody listens.
  source.socket.pause()
  return source
}

/** A connected socket as a connection. Reading starts at once, up to what is held for a puller. */
export class NodeSocketConnection implements Closable {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  private readonly socket: net.Socket
  private readonly closeTimeout: Duration.Input
  private readonly receiveBuffer: ReceiveBuffer<ConnectionError> = new ReceiveBuffer<ConnectionError>(() =>
    this.onTaken()
  )
  private paused = false
  private closing = false
  /** Node's own `closed` is true before it told us of the error. */
  private closed = false
  private error: ConnectionError | undefined

  private readonly drains = new WaitList<ConnectionError>(() => {
    if (this.error !== undefined) return Effect.fail(this.error)
    return this.socket.writableLength === 0 ? Effect.void : undefined
  })
  readonly over = new WaitList(() => (this.isOver() ? Effect.void : undefined))

  readonly pull: ReceiveBuffer<ConnectionError>["pull"] = this.receiveBuffer.pull
  readonly drained: Effect.Effect<void, ConnectionError> = this.drains.wait
  // Put together when it runs, for an idle connection shall not hold what is used once.
  readonly close: Effect.Effect<void> = Effect.suspend(() => gracefulClose(this, this.closeTimeout))
  readonly destroy: Effect.Effect<void> = Effect.sync(() => this.destroyUnsafe())

  constructor(source: Source, { local, remote }: Addresses, closeTimeout: Duration.Input) {
    const { socket } = source
    this.socket = socket
    this.closeTimeout = closeTimeout
    this.localAddress = local
    this.remoteAddress = remote
    socket.on("error", this.onError)
    socket.on("end", this.onEnd)
    socket.on("close", this.onClose)
    // A source tells one or the other way.
    source.onData = this.onData
    socket.on("data", this.onData)
    // They come paused.
    socket.resume()
    // It may have ended before anybody listened: its events may be over. Some runtimes have no `errored`.
    if (socket.errored) this.onError(socket.errored)
    if (socket.destroyed) this.onClose()
  }

  readonly write = (bytes: Uint8Array): number => {
    if (this.error !== undefined) return 0
    const socket = this.socket
    if (bytes.length > 0) socket.write(bytes, this.onWritten)
    return socket.destroyed ? 0 : socket.writableLength
  }

  isOver(): boolean {
    return this.closed
  }

  begin(): void {
    if (this.closing) return
    this.closing = true
    this.error ??= closedError()
    this.receiveBuffer.discard(this.error)
    this.socket.end()
    this.socket.resume()
  }

  destroyUnsafe(): void {
    this.closing = true
    this.error ??= closedError()
    this.receiveBuffer.discard(this.error)
    this.socket.destroy()
    this.drains.wake(Effect.fail(this.error))
  }

  private onTaken(): void {
    if (!this.paused) return
    this.paused = false
    this.socket.resume()
  }

  private readonly onData = (chunk: Uint8Array): void => {
    this.receiveBuffer.push(chunk)
    if (this.receiveBuffer.size < pauseAt && this.receiveBuffer.pieces < maxPieces) return
    this.paused = true
    this.socket.pause()
  }

  // One function for all writes: Node then reports those of one turn together.
  private readonly onWritten = (): void => {
    if (this.socket.writableLength === 0) this.drains.wake()
  }

  // Node ends our side by itself then (no allowHalfOpen), once what was written is flushed.
  private readonly onEnd = (): void => {
    this.error ??= closedError()
    this.receiveBuffer.fail(this.error)
  }

  private readonly onError = (cause: Error): void => {
    this.error ??= resetError(cause)
    // What a paused socket still holds; Node itself would not hand it out any more.
    for (let chunk: unknown = this.socket.read(); chunk instanceof Uint8Array; chunk = this.socket.read()) {
      this.receiveBuffer.push(chunk)
    }
    this.receiveBuffer.fail(this.error)
    this.drains.wake(Effect.fail(this.error))
  }

  private readonly onClose = (): void => {
    this.closed = true
    this.error ??= closedError()
    this.receiveBuffer.fail(this.error)
    this.drains.wake(Effect.fail(this.error))
    this.over.wake()
  }
}

/** To be run where nothing interrupts, for until the finalizer is there nobody owns the socket. */
export const adopt = (
  source: Source,
  addresses: Addresses,
  closeTimeout: Duration.Input = defaultCloseTimeout
): Effect.Effect<NodeSocketConnection, never, Scope.Scope> =>
  Effect.suspend(() => {
    const connection = new NodeSocketConnection(source, addresses, closeTimeout)
    return Effect.as(
      Effect.addFinalizer(() => connection.close),
      connection
    )
  })
