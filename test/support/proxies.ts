/** Small proxies on loopback: a SOCKS5 server (RFC 1928, RFC 1929) and an I2P router that speaks SAM 3.1. */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as net from "node:net"

/** A TCP server on loopback that calls `onSocket` for each connection, and the sockets that are open. */
export const serveTcp = (onSocket: (socket: net.Socket) => void) =>
  Effect.acquireRelease(
    Effect.callback<{
      readonly host: string
      readonly port: number
      readonly sockets: Set<net.Socket>
      server: net.Server
    }>((resume) => {
      const sockets = new Set<net.Socket>()
      const server = net.createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {}).on("close", () => sockets.delete(socket))
        onSocket(socket)
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        if (typeof address !== "object" || address === null) throw new Error("no address")
        resume(Effect.succeed({ host: "127.0.0.1", port: address.port, sockets, server }))
      })
    }),
    ({ server, sockets }) =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
  )

/** Reads exactly `wanted` bytes, or a line without its newline. */
type Read = (wanted: number | "line") => Promise<Buffer>

const readerOf = (socket: net.Socket): { read: Read; stop: () => void } => {
  let held: Buffer = Buffer.alloc(0)
  let check = () => {}
  const onData = (chunk: Buffer) => {
    held = Buffer.concat([held, chunk])
    check()
  }
  socket.on("data", onData)
  return {
    read: (wanted) =>
      new Promise((resolve) => {
        check = () => {
          const end = wanted === "line" ? held.indexOf(10) : wanted
          if (end < 0 || held.length < end) return
          check = () => {}
          const taken = held.subarray(0, end)
          held = held.subarray(wanted === "line" ? end + 1 : end)
          resolve(taken)
        }
        check()
      }),
    stop: () => {
      socket.pause()
      socket.off("data", onData)
      if (held.length > 0) socket.unshift(held)
    }
  }
}

const join = (one: net.Socket, other: net.Socket): void => {
  one.pipe(other)
  other.pipe(one)
  one.on("close", () => other.destroy()).on("error", () => {})
  other.on("close", () => one.destroy()).on("error", () => {})
}

/** The greeting, login and request of one client of the SOCKS5 server. */
export interface Asked {
  readonly methods: ReadonlyArray<number>
  readonly user?: string
  readonly password?: string
  readonly type: number
  readonly host: string
  readonly port: number
}

export interface Socks5Behaviour {
  /** The accepted login. Without it no login is needed, or any is accepted if `wantsLogin`. */
  readonly login?: { readonly user: string; readonly password: string }
  readonly wantsLogin?: boolean
  /** The reply code to each request, instead of a connection. */
  readonly reply?: number
  /** The target of every connection, instead of the requested one. */
  readonly to?: net.TcpSocketConnectOpts
  /** Bytes sent in one write with the reply, as from a target that speaks first. */
  readonly early?: Uint8Array
  /** The address in the reply, from its type on. */
  readonly bound?: ReadonlyArray<number>
  /** Sends its answers one byte at a time. */
  readonly byByte?: boolean
}

export const serveSocks5 = Effect.fnUntraced(function* (behaviour: Socks5Behaviour = {}) {
  const asked: Array<Asked> = []
  const serve = async (socket: net.Socket): Promise<void> => {
    const { read, stop } = readerOf(socket)
    const send = async (...bytes: ReadonlyArray<number>) => {
      if (behaviour.byByte !== true) return void socket.write(Uint8Array.from(bytes))
      for (const byte of bytes) {
        socket.write(Uint8Array.of(byte))
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    const [version, count = 0] = await read(2)
    if (version !== 5) return void socket.destroy()
    const methods = [...(await read(count))]
    const wantsLogin = behaviour.login !== undefined || (behaviour.wantsLogin === true && methods.includes(2))
    const method = wantsLogin ? 2 : 0
    if (!methods.includes(method)) {
      await send(5, 0xff)
      return void socket.end()
    }
    await send(5, method)
    let credentials: { user: string; password: string } | undefined
    if (wantsLogin) {
      const text = async () => (await read((await read(1))[0] ?? 0)).toString()
      await read(1)
      credentials = { user: await text(), password: await text() }
      const { login } = behaviour
      const isWelcome =
        login === undefined || (login.user === credentials.user && login.password === credentials.password)
      await send(1, isWelcome ? 0 : 1)
      if (!isWelcome) return void socket.end()
    }
    const [, , , type = 0] = await read(4)
    const raw = await read(type === 1 ? 4 : type === 4 ? 16 : ((await read(1))[0] ?? 0))
    const host = type === 1 ? raw.join(".") : raw.toString()
    const port = (await read(2)).readUInt16BE()
    asked.push({ methods, ...credentials, type, host, port })
    if (behaviour.reply !== undefined) {
      await send(5, behaviour.reply, 0, 1, 0, 0, 0, 0, 0, 0)
      return void socket.end()
    }
    const bound = behaviour.bound ?? [1, 10, 1, 2, 3, 0xff, 0xfe]
    const granted = [5, 0, 0, ...bound, ...(behaviour.early ?? [])]
    const { to } = behaviour
    if (to === undefined) return send(...granted)
    const target = net.connect(to, () => {
      stop()
      void send(...granted).then(() => join(socket, target))
    })
    target.on("error", () => void send(5, 5, 0, 1, 0, 0, 0, 0, 0, 0).then(() => socket.end()))
  }
  const server = yield* serveTcp((socket) => void serve(socket))
  return { ...server, asked }
})

const i2pBase64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64").replaceAll("+", "-").replaceAll("/", "~")

/** A destination of 391 bytes (with a certificate of 4) and a private key that begins with it. */
export const i2pKeys = (seed: number) => {
  const destination = Buffer.alloc(391, seed)
  destination.writeUInt16BE(4, 385)
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
  let bits = ""
  for (const byte of createHash("sha256").update(destination).digest()) bits += byte.toString(2).padStart(8, "0")
  const name = (bits.padEnd(260, "0").match(/.{5}/g) ?? []).map((five) => alphabet[Number.parseInt(five, 2)]).join("")
  return {
    name: `${name}.b32.i2p`,
    destination: i2pBase64(destination),
    privateKey: i2pBase64(Buffer.concat([destination, Buffer.alloc(96, seed + 1)]))
  }
}

/** A router in which all sessions can reach each other by the names of their destinations. */
export const serveSam = Effect.gen(function* () {
  const requests: Array<string> = []
  const sessions = new Map<
    string,
    { readonly keys: { name: string; destination: string }; readonly waiting: Array<net.Socket> }
  >()
  let seed = 0
  const known = new Map<string, { name: string; destination: string; privateKey: string }>()
  const serve = async (socket: net.Socket): Promise<void> => {
    const { read, stop } = readerOf(socket)
    const say = (line: string) => void socket.write(`${line}\n`)
    while (true) {
      const line = (await read("line")).toString()
      requests.push(line)
      const value = (key: string) => new RegExp(`${key}=(\\S+)`).exec(line)?.[1] ?? ""
      const byDestination = () => [...sessions.values()].find(({ keys }) => keys.destination === value("DESTINATION"))
      if (line.startsWith("HELLO")) say("HELLO REPLY RESULT=OK VERSION=3.1")
      else if (line.startsWith("SESSION CREATE")) {
        const given = value("DESTINATION")
        const keys = known.get(given) ?? i2pKeys(++seed)
        known.set(keys.privateKey, keys)
        const id = value("ID")
        sessions.set(id, { keys, waiting: [] })
        socket.on("close", () => {
          for (const waiting of sessions.get(id)?.waiting ?? []) waiting.destroy()
          sessions.delete(id)
        })
        say(`SESSION STATUS RESULT=OK DESTINATION=${keys.privateKey}`)
      } else if (line.startsWith("NAMING LOOKUP")) {
        const found = [...sessions.values()].find(({ keys }) => keys.name === value("NAME"))
        say(
          found === undefined
            ? `NAMING REPLY RESULT=KEY_NOT_FOUND NAME=${value("NAME")}`
            : `NAMING REPLY RESULT=OK NAME=${value("NAME")} VALUE=${found.keys.destination}`
        )
      } else if (!sessions.has(value("ID"))) say('STREAM STATUS RESULT=INVALID_ID MESSAGE="no such session"')
      else if (line.startsWith("STREAM ACCEPT")) {
        stop()
        sessions.get(value("ID"))?.waiting.push(socket)
        say("STREAM STATUS RESULT=OK")
        return
      } else if (line.startsWith("STREAM CONNECT")) {
        const waiting = byDestination()?.waiting.shift()
        if (waiting === undefined) {
          say("STREAM STATUS RESULT=CANT_REACH_PEER")
          continue
        }
        stop()
        say("STREAM STATUS RESULT=OK")
        waiting.write(`${sessions.get(value("ID"))?.keys.destination}\n`)
        join(socket, waiting)
        return
      }
    }
  }
  const server = yield* serveTcp((socket) => void serve(socket))
  return { ...server, requests, sessions }
})
