/** A WebSocket as a `Socket` that holds its writer back and closes gracefully, which Effect's own does not. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Socket from "effect/socket/Socket"

/**
 * The members of a WebSocket that are used: those of a browser's, and those that only the `ws` package has.
 *
 * @category models
 * @since 0.1.0
 */
export interface WebSocketLike extends Socket.WebSocketLike {
  readonly bufferedAmount?: number | undefined
  pause?(): void
  terminate?(): void
}

/**
 * The number of bytes that may wait in the WebSocket for the network: it takes as many at once in any case, and they are
 * enough for 50 MB/s.
 */
const sendAhead = 262_144

/**
 * No event says that fewer bytes wait, so they are checked at this interval. Browsers round it up to 4 ms, and to a
 * second in hidden pages.
 */
const lookEvery = Duration.millis(5)

/** Browsers hide the cause of a failure, so that no page can explore a network. */
const causeOf = (event: unknown): unknown => {
  if (typeof event !== "object" || event === null || event instanceof Error) return event
  if ("error" in event && event.error instanceof Error) return event.error
  const message = "message" in event && typeof event.message === "string" ? event.message : ""
  return new Error(message === "" ? "the WebSocket failed" : message)
}

const failed = (reason: Socket.SocketError["reason"]): Socket.SocketError => {
  switch (reason._tag) {
    case "SocketOpenError":
      return new Socket.SocketError({
        reason: new Socket.SocketOpenError({ kind: reason.kind, cause: causeOf(reason.cause) })
      })
    case "SocketReadError":
      return new Socket.SocketError({ reason: new Socket.SocketReadError({ cause: causeOf(reason.cause) }) })
    default:
      return new Socket.SocketError({ reason })
  }
}

/** The memory of a message besides its bytes. */
const messageCost = 256

const sizeOf = (data: unknown): number => {
  if (typeof data === "string") return data.length
  return data instanceof ArrayBuffer ? data.byteLength : 0
}

/**
 * Counts the bytes that are received and not pulled, and closes beyond `maxUnread`: a browser then delivers no more.
 * Effect's own limit fails the reader, but bytes that arrive later are still held.
 */
class Unread {
  private size = 0
  private readonly limit: number
  private readonly webSocket: WebSocketLike
  private overflow: Error | undefined

  constructor(webSocket: WebSocketLike, limit: number) {
    this.webSocket = webSocket
    this.limit = limit
    webSocket.addEventListener("message", ({ data }) => this.add(data))
  }

  /** Counts a batch that was pulled. */
  readonly pulled = <A extends ReadonlyArray<Uint8Array | string>>(batch: A): A => {
    for (const message of batch) this.size -= message.length + messageCost
    return batch
  }

  /** The error of the overflow, if that caused the end. */
  readonly failed = ({ reason }: Socket.SocketError): Socket.SocketError =>
    failed(this.overflow === undefined ? reason : new Socket.SocketReadError({ cause: this.overflow }))

  private add(data: unknown): void {
    this.size += sizeOf(data) + messageCost
    if (this.size <= this.limit || this.overflow !== undefined) return
    this.overflow = new Error(`more than ${this.limit} bytes arrived and were not pulled`)
    this.webSocket.close(1000)
  }
}

export const makeSocket = (
  webSocket: WebSocketLike,
  options: { readonly openTimeout?: Duration.Input | undefined; readonly maxUnread: number }
): Effect.Effect<Socket.Socket> =>
  Effect.map(Socket.fromWebSocket(Effect.succeed(webSocket), { openTimeout: options.openTimeout }), (socket) => {
    // A WebSocket that can pause does so at Effect's own limit.
    const unread = new Unread(webSocket, webSocket.pause === undefined ? options.maxUnread : Infinity)
    let end: Socket.SocketError | undefined
    webSocket.addEventListener("close", ({ code = 1006, reason = "" }) => {
      end = new Socket.SocketError({ reason: new Socket.SocketCloseError({ code, closeReason: reason }) })
    })
    const isFull = () => (webSocket.bufferedAmount ?? 0) > sendAhead
    const room = Effect.whileLoop({
      while: () => end === undefined && isFull(),
      body: () => Effect.sleep(lookEvery),
      step: () => {}
    }).pipe(
      // The bytes that were not sent are lost.
      Effect.andThen(
        Effect.suspend(() => (end !== undefined && isFull() ? Effect.fail(unread.failed(end)) : Effect.void))
      )
    )
    const destroy = Effect.sync(() => {
      if (webSocket.terminate === undefined) webSocket.close(1000)
      else webSocket.terminate()
    })
    return Socket.make({
      reader: socket.reader.pipe(
        Effect.map((reader) => ({
          ...reader,
          pull: Effect.mapBoth(reader.pull, { onSuccess: unread.pulled, onFailure: unread.failed })
        })),
        Effect.mapError(unread.failed)
      ),
      writer: Effect.acquireRelease(
        Effect.map(socket.writer, (writer) => ({
          write: (chunk) => (Socket.isCloseEvent(chunk) ? destroy : Effect.andThen(writer.write(chunk), room)),
          writeAll: (chunks) => Effect.andThen(writer.writeAll(chunks), room)
        })),
        // Our close. The remote answers with its own.
        () => Effect.sync(() => webSocket.close(1000))
      )
    })
  })
