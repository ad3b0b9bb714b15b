/** A connected socket of `node:net` as a connection: its read buffer, how far it reads ahead, and how it ends. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as net from "node:net"
import { unwritten } from "../../primitives/bytes.ts"
import { closedError, type ConnectionError, type Endpoint, resetError } from "../../ConnectionError.ts"
import { type Closable, defaultCloseTimeout, gracefulClose } from "../gracefulClose.ts"
import { ReceiveBuffer, type Receiver } from "../receiveBuffer.ts"
import { WaitList } from "../../primitives/waitList.ts"
import { plainHost } from "./hosts.ts"

/**
 * Reading pauses when this number of bytes was not pulled. The last chunk (Node reads 64 KiB at a time) may exceed it,
 * and Node's own buffer takes two more before the window of the kernel closes: at most 256 KiB wait in this process.
 */
const pauseAt = 65_536

/** Reading also pauses at this number of pieces: each costs an object of 200 bytes and more, however short it is. */
const maxPieces = 1_024

/** For events that may be ignored: an `error` event without a listener ends the process. */
export const noop = (): void => {}

/** The argument of the callback of `uninterruptibleMask`. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const endpointOf = (host: string | undefined, port: number | undefined, otherwise: Endpoint): Endpoint =>
  host === undefined || port === undefined ? otherwise : { host: plainHost(host), port }

export const unspecified: Endpoint = { host: "0.0.0.0", port: 0 }

/** The addresses of both sides of a connection. */
export interface Addresses {
  readonly local: Endpoint
  readonly remote: Endpoint
}

export const addressesOf = (socket: net.Socket, remote: Endpoint): Addresses => ({
  local: endpointOf(socket.localAddress, socket.localPort, unspecified),
  remote: endpointOf(socket.remoteAddress, socket.remotePort, remote)
})

/**
 * The buffer to which all dialled sockets read while little arrives: the bytes are copied out of it before the next read
 * begins. A socket without it allocates 64 KiB for each read, however little arrives, and round trips take 1.2 times as
 * long.
 */
const readBuffer = process.platform === "win32" ? undefined : new Uint8Array(65_536)

/**
 * A socket whose read filled that buffer reads to one of its own, out of which nothing is copied, until so little
 * arrives that a copy costs less. It is below 128 KiB, from which on the system maps and unmaps each buffer.
 */
const ownBufferSize = 122_880
const largeRead = 32_768

/** A socket with the function that gets its bytes. */
export interface Source {
  readonly socket: net.Socket
  onData: ((chunk: Uint8Array) => void) | undefined
}

/** A socket that delivers bytes by data events. */
export const streaming = (socket: net.Socket): Source => ({ socket, onData: undefined })

/** A socket to dial with. */
export const makeSource = (): Source => {
  // Windows keeps a buffer while it waits for bytes, so none can be shared there.
  if (readBuffer === undefined) return streaming(new net.Socket())
  /** The unused rest of the own buffer. */
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
  // Nothing may be read before there is a listener.
  source.socket.pause()
  return source
}

/** A connected socket as a connection. It reads at once, up to the number of bytes that are held for a puller. */
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
  /** Node's own `closed` is true before Node reports the error. */
  private closed = false
  private error: ConnectionError | undefined

  private readonly drains = new WaitList<ConnectionError>(() => {
    if (this.error !== undefined) return Effect.fail(this.error)
    return this.socket.writableLength === 0 ? Effect.void : undefined
  })
  readonly over = new WaitList(() => (this.isOver() ? Effect.void : undefined))

  readonly pull: ReceiveBuffer<ConnectionError>["pull"] = this.receiveBuffer.pull
  readonly drained: Effect.Effect<void, ConnectionError> = this.drains.wait
  // Assembled when it runs: an idle connection need not hold an Effect that is used once.
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
    // A source delivers bytes in one of the two ways.
    source.onData = this.onData
    socket.on("data", this.onData)
    // Sources are paused.
    socket.resume()
    // The socket may have ended already, and its events have been emitted. Some runtimes have no `errored`.
    if (socket.errored) this.onError(socket.errored)
    if (socket.destroyed) this.onClose()
  }

  readonly write = (bytes: Uint8Array): number => {
    if (this.error !== undefined) return -1
    const socket = this.socket
    if (bytes.length > 0) socket.write(bytes, this.onWritten)
    return socket.destroyed ? -1 : socket.writableLength
  }

  receive(receiver: Receiver<ConnectionError>): () => void {
    return this.receiveBuffer.receive(receiver)
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

  // Node ends our side by itself (no allowHalfOpen), when all written bytes are flushed.
  private readonly onEnd = (): void => {
    this.error ??= closedError()
    this.receiveBuffer.fail(this.error)
  }

  private readonly onError = (cause: Error): void => {
    this.error ??= resetError(cause)
    // The bytes that a paused socket still holds: Node itself does not deliver them any more.
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

/** Makes a connection of a socket, and its finalizer. Run it uninterruptibly: nothing owns the socket before. */
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
