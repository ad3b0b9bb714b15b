/** Runs in a page of a browser: the default export is what a test calls there. */
import { Effect } from "effect"
import { Connection } from "effect-bitcoin-peer"

/** Opens a WebSocket, pulls nothing until it is closed, and tells what came and what was held. */
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

/** Writes to who does not read until nothing is taken for so long, and tells how much that was. */
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
