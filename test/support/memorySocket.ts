/** Pairs of Effect Sockets in memory. */
import { Effect, Queue, Scope } from "effect"
import { Socket } from "effect/socket"

const closed = (code: number) => new Socket.SocketError({ reason: new Socket.SocketCloseError({ code }) })

type Pipe = Queue.Queue<Uint8Array, Socket.SocketError>

const side = (input: Pipe, output: Pipe): Socket.Socket =>
  Socket.make({
    reader: Effect.gen(function* () {
      const scope = yield* Effect.scope
      yield* Scope.addFinalizer(
        scope,
        Effect.andThen(Queue.fail(input, closed(1006)), Queue.fail(output, closed(1000)))
      )
      return { pull: Queue.takeAll(input), upgrade: Socket.SocketUpgradeError.unsupported }
    }),
    writer: Effect.acquireRelease(
      Effect.succeed<Socket.Writer>({
        write: (piece) =>
          Effect.asVoid(
            Socket.isCloseEvent(piece)
              ? Queue.fail(output, closed(piece.code))
              : Queue.offer(output, piece as Uint8Array)
          ),
        writeAll: (pieces) => Effect.asVoid(Queue.offerAll(output, pieces as ReadonlyArray<Uint8Array>))
      }),
      () => Queue.fail(output, closed(1000))
    )
  })

/** Two Effect Sockets joined by bounded queues, and an effect that resets the second one. */
export const makeSocketPair = Effect.gen(function* () {
  const ab = yield* Queue.bounded<Uint8Array, Socket.SocketError>(16)
  const ba = yield* Queue.bounded<Uint8Array, Socket.SocketError>(16)
  const lost = new Socket.SocketError({ reason: new Socket.SocketReadError({ cause: new Error("lost") }) })
  return {
    first: side(ba, ab),
    second: side(ab, ba),
    resetSecond: Effect.asVoid(Queue.fail(ab, lost))
  }
})
