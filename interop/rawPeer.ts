/**
 * A peer made of `node:net` and hand-written bytes: independent of this package, able to misbehave, with a record of all
 * received frames. For tests of the harness itself and for exploring the behavior of a node.
 */
import { createHash } from "node:crypto"
import { createServer, connect, type Socket } from "node:net"
import { Deferred, Effect, type Scope } from "effect"
import { InteropError } from "./InteropNode.ts"

export interface Frame {
  readonly command: string
  readonly payload: Buffer
  /** Milliseconds since the connection was made. */
  readonly at: number
}

export interface RawPeer {
  /** Our `host:port`, as the node sees it. */
  readonly address: string
  readonly send: (command: string, payload?: Uint8Array) => Effect.Effect<void>
  readonly sendBytes: (bytes: Uint8Array) => Effect.Effect<void>
  /** All frames received so far. */
  readonly received: () => ReadonlyArray<Frame>
  /** The first frame with this command, past or future. Fails after 30 s, or when the connection ends. */
  readonly await: (command: string) => Effect.Effect<Frame, InteropError>
  /** Waits until the node has closed the connection. */
  readonly closed: Effect.Effect<void>
}

const magic = Buffer.from("fabfb5da", "hex")
const doubleSha256 = (bytes: Uint8Array): Buffer =>
  createHash("sha256").update(createHash("sha256").update(bytes).digest()).digest()

/** A v1 frame of regtest. */
export const frame = (command: string, payload: Uint8Array = Buffer.alloc(0)): Buffer => {
  const header = Buffer.alloc(24)
  magic.copy(header)
  header.write(command, 4, "ascii")
  header.writeUInt32LE(payload.length, 16)
  doubleSha256(payload).copy(header, 20, 0, 4)
  return Buffer.concat([header, payload])
}

/** The payload of a version message that offers NETWORK and WITNESS. */
export const version = (userAgent: string, protocolVersion: number): Buffer => {
  const fixed = Buffer.alloc(80)
  fixed.writeInt32LE(protocolVersion, 0)
  fixed.writeBigUInt64LE(9n, 4)
  fixed.writeBigInt64LE(BigInt(Math.floor(Date.now() / 1000)), 12)
  // The two addresses of 26 bytes each stay zero.
  fixed.writeBigUInt64LE(BigInt(Math.floor(Math.random() * 2 ** 48)) + 1n, 72)
  const agent = Buffer.from(userAgent)
  // Height 0, relay.
  return Buffer.concat([fixed, Buffer.of(agent.length), agent, Buffer.of(0, 0, 0, 0, 1)])
}

const fromSocket = Effect.fnUntraced(function* (socket: Socket): Effect.fn.Return<RawPeer, never, Scope.Scope> {
  const frames: Array<Frame> = []
  const watchers = new Set<() => void>()
  const closed = yield* Deferred.make<void>()
  const start = performance.now()
  let buffer = Buffer.alloc(0)
  socket.on("data", (chunk: Buffer) => {
    buffer = Buffer.concat([buffer, chunk])
    while (buffer.length >= 24 && buffer.length >= 24 + buffer.readUInt32LE(16)) {
      const end = 24 + buffer.readUInt32LE(16)
      const command = buffer.toString("ascii", 4, 16).replaceAll("\0", "")
      frames.push({ command, payload: buffer.subarray(24, end), at: Math.round(performance.now() - start) })
      buffer = buffer.subarray(end)
    }
    for (const watcher of watchers) watcher()
  })
  // The event "close" follows.
  socket.on("error", () => {})
  socket.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
  yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))

  const address = `${socket.localAddress}:${socket.localPort}`
  const fail = (command: string, problem: string) =>
    Effect.suspend(() =>
      Effect.fail(
        new InteropError({
          node: "raw peer",
          operation: `await ${command}`,
          problem: `${problem}; got ${frames.map((frame) => frame.command).join(" ")}`
        })
      )
    )
  const sendBytes = (bytes: Uint8Array) => Effect.sync(() => void socket.write(bytes))
  return {
    address,
    send: (command, payload) => sendBytes(frame(command, payload)),
    sendBytes,
    received: () => frames,
    await: (command) =>
      Effect.callback<Frame>((resume) => {
        const watcher = () => {
          const found = frames.find((frame) => frame.command === command)
          if (found === undefined) return
          watchers.delete(watcher)
          resume(Effect.succeed(found))
        }
        watchers.add(watcher)
        watcher()
        return Effect.sync(() => watchers.delete(watcher))
      }).pipe(
        Effect.raceFirst(Effect.andThen(Deferred.await(closed), fail(command, "the connection ended"))),
        Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => fail(command, "no such frame in 30 s") })
      ),
    closed: Deferred.await(closed)
  }
})

/** Connects to a node; sends nothing by itself. */
export const dial = (port: number): Effect.Effect<RawPeer, InteropError, Scope.Scope> =>
  Effect.callback<Socket, InteropError>((resume) => {
    const socket = connect({ host: "127.0.0.1", port, noDelay: true })
    socket.once("connect", () => resume(Effect.succeed(socket)))
    socket.once("error", (cause) =>
      resume(Effect.fail(new InteropError({ node: "raw peer", operation: "dial", problem: cause.message, cause })))
    )
  }).pipe(Effect.flatMap(fromSocket))

/** Listens, passes the port to `invite`, and accepts the first connection. */
export const accept = <E, R>(
  invite: (port: number) => Effect.Effect<void, E, R>
): Effect.Effect<RawPeer, InteropError | E, R | Scope.Scope> =>
  Effect.gen(function* () {
    const socket = yield* Deferred.make<Socket>()
    const port = yield* Effect.acquireRelease(
      Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
        const server = createServer({ noDelay: true }, (incoming) =>
          Deferred.doneUnsafe(socket, Effect.succeed(incoming))
        )
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          const port = typeof address === "object" && address !== null ? address.port : 0
          resume(Effect.succeed({ port, close: () => void server.close() }))
        })
      }),
      (server) => Effect.sync(server.close)
    )
    yield* invite(port.port)
    return yield* fromSocket(yield* Deferred.await(socket))
  })

/** Exchanges version and verack; completes when the node has sent its verack. */
export const handshake = (
  peer: RawPeer,
  userAgent: string,
  protocolVersion: number
): Effect.Effect<void, InteropError> =>
  Effect.gen(function* () {
    yield* peer.send("version", version(userAgent, protocolVersion))
    yield* peer.await("version")
    yield* peer.send("verack")
    yield* peer.await("verack")
  })
