/** A connected socket of `node:net` as a connection: its read buffer, how far it reads ahead, and how it ends. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
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

/** `remote` is where it was dialled; undefined for a socket that was accepted. */
export const addressesOf = (socket: net.Socket, remote?: Endpoint): Addresses => ({
  local: endpointOf(socket.localAddress, socket.localPort, unspecified),
  // Each question to the system takes some microseconds.
  remote:
    remote !== undefined && net.isIPv4(remote.host)
      ? { host: remote.host, port: remote.port }
      : endpointOf(socket.remoteAddress, socket.remotePort, remote ?? unspecified)
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

/** A socket with the connection that gets its bytes. */
export interface Source {
  readonly socket: net.Socket
  onData: { readonly received: (chunk: Uint8Array) => void } | undefined
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
          source.onData?.received(chunk)
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

const owner = Symbol("effect-bitcoin-peer/NodeSocketConnection")

/** A socket whose events go to its connection: listeners that all sockets share, in place of five functions for each. */
interface OwnedSocket extends net.Socket {
  [owner]: NodeSocketConnection
}

function onError(this: OwnedSocket, cause: Error): void {
  this[owner].failed(cause)
}
function onEnd(this: OwnedSocket): void {
  this[owner].ended()
}
function onClose(this: OwnedSocket): void {
  this[owner].closed()
}
function onData(this: OwnedSocket, chunk: Uint8Array): void {
  this[owner].received(chunk)
}

/** A connected socket as a connection. It reads at once, up to the number of bytes that are held for a puller. */
export class NodeSocketConnection implements Closable {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  private readonly socket: net.Socket
  private readonly closeTimeout: Duration.Input
  private readonly receiveBuffer: ReceiveBuffer<ConnectionError>
  private paused = false
  private closing = false
  /** Node's own `closed` is true before Node reports the error. */
  private isClosed = false
  private error: ConnectionError | undefined
  // Made with the first wait: most connections take all that is written.
  private drains: WaitList<ConnectionError> | undefined
  private overs: WaitList | undefined

  constructor(source: Source, { local, remote }: Addresses, closeTimeout: Duration.Input) {
    const { socket } = source
    this.socket = socket
    this.closeTimeout = closeTimeout
    this.localAddress = local
    this.remoteAddress = remote
    this.receiveBuffer = new ReceiveBuffer<ConnectionError>(this)
    const owned = Object.assign(socket, { [owner]: this })
    owned.on("error", onError)
    owned.on("end", onEnd)
    owned.on("close", onClose)
    // A source delivers bytes in one of the two ways.
    source.onData = this
    owned.on("data", onData)
    // Sources are paused.
    socket.resume()
    // The socket may have ended already, and its events have been emitted. Some runtimes have no `errored`.
    if (socket.errored) this.failed(socket.errored)
    if (socket.destroyed) this.closed()
  }

  get pull(): ReceiveBuffer<ConnectionError>["pull"] {
    return this.receiveBuffer.pull
  }

  receive(receiver: Receiver<ConnectionError>): () => void {
    return this.receiveBuffer.receive(receiver)
  }

  write(bytes: Uint8Array): number {
    if (this.error !== undefined) return -1
    const socket = this.socket
    if (bytes.length > 0) socket.write(bytes, this.onWritten)
    return socket.destroyed ? -1 : socket.writableLength
  }

  get drained(): Effect.Effect<void, ConnectionError> {
    this.drains ??= new WaitList<ConnectionError>(() => {
      if (this.error !== undefined) return Effect.fail(this.error)
      return this.socket.writableLength === 0 ? Effect.void : undefined
    })
    return this.drains.wait
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => gracefulClose(this, this.closeTimeout))
  }

  get destroy(): Effect.Effect<void> {
    return Effect.sync(() => this.destroyUnsafe())
  }

  get over(): WaitList {
    return (this.overs ??= new WaitList(() => (this.isOver() ? Effect.void : undefined)))
  }

  isOver(): boolean {
    return this.isClosed
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
    this.drains?.wake(Effect.fail(this.error))
  }

  /** Bytes were taken out of the buffer. */
  taken(): void {
    if (!this.paused) return
    this.paused = false
    this.socket.resume()
  }

  /** Bytes have arrived. */
  received(chunk: Uint8Array): void {
    this.receiveBuffer.push(chunk)
    if (this.receiveBuffer.size < pauseAt && this.receiveBuffer.pieces < maxPieces) return
    this.paused = true
    this.socket.pause()
  }

  // One function for all writes: Node then reports those of one turn together.
  private readonly onWritten = (): void => {
    if (this.drains !== undefined && this.socket.writableLength === 0) this.drains.wake()
  }

  /** The remote has ended. Node ends our side by itself (no allowHalfOpen), when all written bytes are flushed. */
  ended(): void {
    this.error ??= closedError()
    this.receiveBuffer.fail(this.error)
  }

  failed(cause: Error): void {
    this.error ??= resetError(cause)
    // The bytes that a paused socket still holds: Node itself does not deliver them any more.
    for (let chunk: unknown = this.socket.read(); chunk instanceof Uint8Array; chunk = this.socket.read()) {
      this.receiveBuffer.push(chunk)
    }
    this.receiveBuffer.fail(this.error)
    this.drains?.wake(Effect.fail(this.error))
  }

  closed(): void {
    this.isClosed = true
    this.error ??= closedError()
    this.receiveBuffer.fail(this.error)
    this.drains?.wake(Effect.fail(this.error))
    this.overs?.wake()
  }
}

/** Makes a connection of a socket, and its finalizer. Run it uninterruptibly: nothing owns the socket before. */
export const adopt = (
  source: Source,
  addresses: Addresses,
  closeTimeout: Duration.Input = defaultCloseTimeout
): Effect.Effect<NodeSocketConnection, never, Scope.Scope> =>
  Effect.contextWith((context: Context.Context<Scope.Scope>) => {
    const connection = new NodeSocketConnection(source, addresses, closeTimeout)
    return Effect.as(
      Scope.addFinalizerExit(Context.get(context, Scope.Scope), () => connection.close),
      connection
    )
  })
