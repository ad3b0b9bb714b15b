/** NodeTorControl over TCP on loopback, with a cookie file: a control port that speaks SAFECOOKIE. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { cookieProof } from "../../src/server/internal/torReplies.ts"
import * as NodeTorControl from "../../src/server/NodeTorControl.ts"
import * as TorControl from "../../src/server/TorControl.ts"

const serviceId = "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid"

const temporaryFile = (bytes: Uint8Array) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "cookie-")), "control auth cookie")
      fs.writeFileSync(file, bytes)
      return file
    }),
    (file) => Effect.sync(() => fs.rmSync(path.dirname(file), { recursive: true }))
  )

/** A control port that checks the proof of its client. */
const serveControl = Effect.fnUntraced(function* (cookie: Uint8Array, cookieFile: string) {
  const sockets = new Set<net.Socket>()
  const server = net.createServer((socket) => {
    sockets.add(socket)
    socket.on("close", () => sockets.delete(socket))
    socket.on("error", () => {})
    let held = ""
    let expected = ""
    const answer = (command: string): string => {
      if (command === "PROTOCOLINFO 1") {
        return `250-PROTOCOLINFO 1\r\n250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="${cookieFile}"\r\n250 OK\r\n`
      }
      if (command.startsWith("AUTHCHALLENGE SAFECOOKIE ")) {
        const client = Uint8Array.from(Buffer.from(command.slice(25), "hex"))
        const nonce = new Uint8Array(randomBytes(32))
        expected = Buffer.from(cookieProof("controller", cookie, client, nonce)).toString("hex")
        const proof = Buffer.from(cookieProof("server", cookie, client, nonce)).toString("hex")
        return `250 AUTHCHALLENGE SERVERHASH=${proof} SERVERNONCE=${Buffer.from(nonce).toString("hex")}\r\n`
      }
      if (command === `AUTHENTICATE ${expected}`) return "250 OK\r\n"
      if (command.startsWith("GETINFO")) return '250-net/listeners/socks="127.0.0.1:9050"\r\n250 OK\r\n'
      if (command.startsWith("ADD_ONION")) return `250-ServiceID=${serviceId}\r\n250 OK\r\n`
      return "515 Bad authentication\r\n"
    }
    socket.on("data", (chunk) => {
      held += chunk.toString("latin1")
      for (let end = held.indexOf("\r\n"); end >= 0; end = held.indexOf("\r\n")) {
        socket.write(answer(held.slice(0, end)))
        held = held.slice(end + 2)
      }
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resume(Effect.void))
      })
  )
  return { port: (server.address() as net.AddressInfo).port, sockets }
})

const settled = Effect.flatMap(TorControl.TorControl, ({ changes }) =>
  Stream.runHead(Stream.filter(changes, ({ _tag }) => _tag !== "Starting"))
)

describe("NodeTorControl", () => {
  it.live("logs in with the cookie file and brings the service up", () =>
    Effect.gen(function* () {
      const cookie = new Uint8Array(randomBytes(32))
      const file = yield* temporaryFile(cookie)
      const { port, sockets } = yield* serveControl(cookie, file)
      const layer = NodeTorControl.layer({ control: { host: "127.0.0.1", port } })
      const status = yield* Effect.provide(settled, layer)
      assert.isTrue(status._tag === "Some" && status.value._tag === "Up")
      // The layer has ended, and the service with it.
      for (let n = 0; n < 1_000 && sockets.size > 0; n++) yield* Effect.sleep(2)
      assert.strictEqual(sockets.size, 0)
    })
  )

  it.live("is down with a cookie file that is too long, or not there", () =>
    Effect.gen(function* () {
      const cookie = new Uint8Array(randomBytes(32))
      const file = yield* temporaryFile(new Uint8Array(1_000))
      for (const name of [file, `${file}.missing`]) {
        const { port } = yield* serveControl(cookie, name)
        const status = yield* Effect.provide(settled, NodeTorControl.layer({ control: { host: "127.0.0.1", port } }))
        assert.isTrue(
          status._tag === "Some" && status.value._tag === "Down" && status.value.error.reason._tag === "BadCookie"
        )
      }
    })
  )
})
