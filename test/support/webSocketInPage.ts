/** Runs in a page of a browser; tests call the functions of the default export there. */
import { Effect } from "effect"
import { Connection } from "effect-bitcoin-peer"

/** Opens a WebSocket and pulls only after it is closed; returns the received and the held number of bytes, and the end. */
const hold = Effect.fnUntraced(function* (url: string, maxUnread: number) {
  const webSocket = new WebSocket(url)
  let received = 0
  webSocket.addEventListener("message", ({ data }) => {
    received += data.byteLength
  })
  const closed = new Promise((resolve) => {
    webSocket.addEventListener("close", resolve)
  })
  const connection = yield* Connection.fromWebSocket(() => webSocket, { maxUnread })
  yield* Effect.promise(() => closed)
  let held = 0
  const end = yield* connection.pull.pipe(
    Effect.map((pieces) => {
      for (const bytes of pieces) held += bytes.length
    }),
    Effect.forever,
    Effect.flip
  )
  return { received, held, end: end.message }
}, Effect.scoped)

/** Writes to a remote that does not read until `drained` takes longer than `millis`; returns the bytes written and buffered. */
const fillUp = Effect.fnUntraced(function* (url: string, millis: number) {
  const webSocket = new WebSocket(url)
  const connection = yield* Connection.fromWebSocket(() => webSocket, { closeTimeout: 0 })
  let written = 0
  while (true) {
    written += connection.write(new Uint8Array(65_536))
    const drained = yield* Effect.timeoutOption(connection.drained, millis)
    if (drained._tag === "None") return { written, buffered: webSocket.bufferedAmount }
  }
}, Effect.scoped)

export default {
  hold: (url: string, maxUnread: number) => Effect.runPromise(hold(url, maxUnread)),
  fillUp: (url: string, millis: number) => Effect.runPromise(fillUp(url, millis))
}
