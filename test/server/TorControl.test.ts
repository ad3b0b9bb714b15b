/** The onion service over a scripted control port in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Scope, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { Address, Connection, Network } from "effect-bitcoin-peer"
import { cookieProof } from "../../src/server/internal/torReplies.ts"
import * as TorControl from "../../src/server/TorControl.ts"

const serviceId = "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid"
const otherId = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaam2dqd"
const key = `ED25519-V3:${"A".repeat(86)}==`
const cookie = new Uint8Array(32).fill(7)
const clientNonce = new Uint8Array(32).fill(9)
const serverNonce = new Uint8Array(32).fill(4)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Lets all fibers go on until they wait: the TestClock waits for those alone that it wakes. */
const settle = Effect.repeat(Effect.yieldNow, { times: 300 })

/** The reply to a command; `undefined` for none. */
type Script = (command: string) => string | undefined

const info = (auth: string) => `250-PROTOCOLINFO 1\r\n250-AUTH ${auth}\r\n250-VERSION Tor="0.4.8.9"\r\n250 OK\r\n`
const ok = "250 OK\r\n"
const added = (id = serviceId, keyLine = `250-PrivateKey=${key}\r\n`) => `250-ServiceID=${id}\r\n${keyLine}${ok}`

/** Tor as it is set up without a password or a cookie. */
const tor: Script = (command) => {
  if (command === "PROTOCOLINFO 1") return info("METHODS=NULL")
  if (command === "AUTHENTICATE") return ok
  if (command.startsWith("GETINFO")) return `250-net/listeners/socks="127.0.0.1:9150"\r\n${ok}`
  if (command.startsWith("ADD_ONION NEW:")) return added()
  if (command.startsWith("ADD_ONION ")) return added(serviceId, "")
  return "510 Unrecognized command\r\n"
}
const torBut =
  (replies: Readonly<Record<string, string | undefined>>): Script =>
  (command) => {
    const start = Object.keys(replies).find((start) => command.startsWith(start))
    return start === undefined ? tor(command) : replies[start]
  }

const begin = Effect.fnUntraced(function* (
  scripts: Script | ReadonlyArray<Script | "refuses">,
  options: Partial<TorControl.Options> = {}
) {
  const commands: Array<string> = []
  const dials: Array<number> = []
  const ports: Array<Connection.Connection> = []
  const connect = Effect.gen(function* () {
    dials.push(
      yield* Effect.map(
        Effect.clockWith((clock) => clock.currentTimeMillis),
        Math.trunc
      )
    )
    const script = typeof scripts === "function" ? scripts : (scripts[dials.length - 1] ?? scripts.at(-1)!)
    if (script === "refuses") {
      const reason = { _tag: "DialFailed", problem: "Refused", host: "127.0.0.1", port: 9051, cause: 0 } as const
      return yield* new Connection.ConnectionError({ reason })
    }
    const [ours, theirs] = yield* Connection.makePair()
    ports.push(theirs)
    let held = ""
    const serve = Effect.forever(
      Effect.map(theirs.pull, (chunks) => {
        held += Buffer.concat(chunks).toString("latin1")
        for (let end = held.indexOf("\r\n"); end >= 0; end = held.indexOf("\r\n")) {
          const command = held.slice(0, end)
          held = held.slice(end + 2)
          commands.push(command)
          const reply = script(command)
          if (reply !== undefined) theirs.write(utf8(reply))
        }
      })
    )
    yield* Effect.forkScoped(Effect.ignore(serve), { startImmediately: true })
    return ours
  })
  const scope = yield* Scope.fork(yield* Effect.scope)
  const control = yield* TorControl.make({ connect, ...options }).pipe(
    Effect.provideService(
      SecureRandom.SecureRandom,
      SecureRandom.make(() => clientNonce.slice())
    ),
    Scope.provide(scope)
  )
  yield* settle
  /** Why the service is down. */
  const reason = Effect.map(control.status, (status) => {
    if (status._tag !== "Down") return assert.fail(`the service is ${status._tag}`)
    return status.error.reason
  })
  return { control, commands, dials, ports, reason, stop: Scope.close(scope, Exit.void) }
})

/** A place for the key, and what was saved there. */
const keyStore = (kept?: string) => {
  const saved: Array<string> = []
  const store: TorControl.KeyStore = {
    load: Effect.succeed(kept === undefined ? Option.none() : Option.some(utf8(kept))),
    save: (bytes) => Effect.sync(() => void saved.push(new TextDecoder().decode(bytes)))
  }
  return { store, saved }
}

describe("TorControl", () => {
  it.effect("makes a service with a new key, asks for defenses, and says where it is", () =>
    Effect.gen(function* () {
      const { saved, store } = keyStore()
      const { commands, control } = yield* begin(tor, { key: store })
      assert.deepStrictEqual(commands, [
        "PROTOCOLINFO 1",
        "AUTHENTICATE",
        "GETINFO net/listeners/socks",
        "ADD_ONION NEW:ED25519-V3 PoWDefensesEnabled=1 Port=8333,127.0.0.1:8334"
      ])
      const status = yield* control.status
      assert.strictEqual(status._tag, "Up")
      if (status._tag !== "Up") return
      assert.strictEqual(Address.format(status.address), `${serviceId}.onion:8333`)
      assert.deepStrictEqual(status.socks, { host: "127.0.0.1", port: 9150 })
      assert.isTrue(status.powDefenses)
      assert.deepStrictEqual(saved, [key])
    })
  )

  it.effect("uses the default port of the network, and the given target", () =>
    Effect.gen(function* () {
      const { commands } = yield* begin(tor, { network: Network.regtest, target: { host: "::1", port: 99 } })
      assert.strictEqual(commands.at(-1), "ADD_ONION NEW:ED25519-V3 PoWDefensesEnabled=1 Port=18444,[::1]:99")
    })
  )

  it.effect("uses the kept key, and saves nothing then", () =>
    Effect.gen(function* () {
      const { saved, store } = keyStore(`${key}\n`)
      const { commands, control } = yield* begin(tor, { key: store })
      assert.strictEqual(commands.at(-1), `ADD_ONION ${key} PoWDefensesEnabled=1 Port=8333,127.0.0.1:8334`)
      assert.strictEqual((yield* control.status)._tag, "Up")
      assert.deepStrictEqual(saved, [])
    })
  )

  it.effect("does not save the kept key again", () =>
    Effect.gen(function* () {
      const { saved, store } = keyStore(key)
      const { control } = yield* begin(torBut({ ADD_ONION: added() }), { key: store })
      assert.strictEqual((yield* control.status)._tag, "Up")
      assert.deepStrictEqual(saved, [])
    })
  )

  it.effect("does not take a reply that came before a command for its answer", () =>
    Effect.gen(function* () {
      const { control } = yield* begin(torBut({ PROTOCOLINFO: `${info("METHODS=NULL")}551 Stray\r\n` }))
      assert.strictEqual((yield* control.status)._tag, "Up")
    })
  )

  it.effect("makes no new key where the kept one is damaged or cannot be read", () =>
    Effect.gen(function* () {
      const damaged = yield* begin(tor, { key: keyStore("ED25519-V3:\r\nQUIT").store })
      assert.deepStrictEqual(yield* damaged.reason, { _tag: "BadKey" })
      const unreadable = yield* begin(tor, { key: { ...keyStore().store, load: Effect.fail("no permission") } })
      assert.deepStrictEqual(yield* unreadable.reason, { _tag: "KeyUnavailable", cause: "no permission" })
      for (const { commands } of [damaged, unreadable]) {
        assert.isFalse(commands.some((command) => command.startsWith("ADD_ONION")))
      }
    })
  )

  it.effect("comes up although the key cannot be saved", () =>
    Effect.gen(function* () {
      const { control } = yield* begin(tor, { key: { ...keyStore().store, save: () => Effect.fail("full") } })
      assert.strictEqual((yield* control.status)._tag, "Up")
    })
  )

  it.effect("asks again without defenses where Tor does not know them", () =>
    Effect.gen(function* () {
      const { commands, control } = yield* begin((command) =>
        command.includes("PoWDefensesEnabled") ? "512 Unrecognized option\r\n" : tor(command)
      )
      assert.deepStrictEqual(commands.slice(3), [
        "ADD_ONION NEW:ED25519-V3 PoWDefensesEnabled=1 Port=8333,127.0.0.1:8334",
        "ADD_ONION NEW:ED25519-V3 Port=8333,127.0.0.1:8334"
      ])
      const status = yield* control.status
      assert.isTrue(status._tag === "Up" && !status.powDefenses)
    })
  )

  it.effect("does not ask again after another failure, or a second 512", () =>
    Effect.gen(function* () {
      const other = yield* begin(torBut({ ADD_ONION: "551 Failed\r\n" }))
      assert.strictEqual(other.commands.length, 4)
      assert.deepStrictEqual(yield* other.reason, { _tag: "Refused", command: "ADD_ONION", code: 551, text: "Failed" })
      const always = yield* begin(torBut({ ADD_ONION: "512 No\r\n" }))
      assert.strictEqual(always.commands.length, 5)
      assert.strictEqual((yield* always.reason)._tag, "Refused")
    })
  )

  it.effect("takes the SOCKS proxy on 127.0.0.1, else the last one, else the usual one", () =>
    Effect.gen(function* () {
      const socksWith = Effect.fnUntraced(function* (reply: string) {
        const { control } = yield* begin(torBut({ GETINFO: reply }))
        const status = yield* control.status
        return status._tag === "Up" ? Connection.formatEndpoint(status.socks) : status._tag
      })
      const listeners = (text: string) => socksWith(`250-net/listeners/socks=${text}\r\n${ok}`)
      assert.strictEqual(yield* listeners('"10.0.0.1:1" "127.0.0.1:2" "127.0.0.1:3"'), "127.0.0.1:2")
      assert.strictEqual(yield* listeners('"10.0.0.1:1" "[::1]:2" "unix:/run/tor"'), "[::1]:2")
      assert.strictEqual(yield* listeners('"unix:/run/tor"'), "127.0.0.1:9050")
      assert.strictEqual(yield* listeners('"what:ever" "localhost:7"'), "127.0.0.1:9050")
      assert.strictEqual(yield* listeners(""), "127.0.0.1:9050")
      assert.strictEqual(yield* socksWith("510 Unrecognized command\r\n"), "127.0.0.1:9050")
    })
  )

  it.effect("fails where ADD_ONION gives no address of version 3", () =>
    Effect.gen(function* () {
      for (const id of ["testserviceid1234567890123456789012345678901234567890123456", "", `${serviceId}x`]) {
        const { reason } = yield* begin(torBut({ ADD_ONION: added(id) }))
        assert.strictEqual((yield* reason)._tag, "BadReply")
      }
      const { reason } = yield* begin(torBut({ ADD_ONION: ok }))
      assert.strictEqual((yield* reason)._tag, "BadReply")
    })
  )
})

describe("The login of TorControl", () => {
  const path = "/run/tör/control.authcookie"
  // Tor escapes bytes outside ASCII.
  const cookieAuth = info(String.raw`METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/run/t\303\266r/control.authcookie"`)
  const proof = cookieProof("server", cookie, clientNonce, serverNonce)
  const challenge = (proof: Uint8Array, nonce = serverNonce) =>
    `250 AUTHCHALLENGE SERVERHASH=${hex(proof).toUpperCase()} SERVERNONCE=${hex(nonce)}\r\n`
  const withCookie = (reply: string) => torBut({ PROTOCOLINFO: cookieAuth, AUTHCHALLENGE: reply, AUTHENTICATE: ok })
  const reads = { readCookie: () => Effect.succeed(cookie) }

  it.effect("proves the cookie once Tor has proved it", () =>
    Effect.gen(function* () {
      const paths: Array<string> = []
      const { commands, control } = yield* begin(withCookie(challenge(proof)), {
        readCookie: (path) => Effect.sync(() => (paths.push(path), cookie))
      })
      assert.deepStrictEqual(paths, [path])
      assert.deepStrictEqual(commands.slice(0, 3), [
        "PROTOCOLINFO 1",
        `AUTHCHALLENGE SAFECOOKIE ${hex(clientNonce)}`,
        `AUTHENTICATE ${hex(cookieProof("controller", cookie, clientNonce, serverNonce))}`
      ])
      assert.strictEqual((yield* control.status)._tag, "Up")
    })
  )

  it.effect("sends no proof to a program that does not know the cookie", () =>
    Effect.gen(function* () {
      const wrong = proof.slice()
      wrong[31]! ^= 1
      for (const bad of [wrong, proof.subarray(1), new Uint8Array(0)]) {
        const { commands, reason } = yield* begin(withCookie(challenge(bad)), reads)
        assert.include(["NotAuthentic", "BadReply"], (yield* reason)._tag)
        assert.strictEqual(commands.length, 2)
      }
    })
  )

  it.effect("fails at a challenge without a nonce of 32 bytes", () =>
    Effect.gen(function* () {
      const replies = [
        challenge(proof, serverNonce.subarray(1)),
        ok,
        "250 AUTHCHALLENGE\r\n",
        "250 AUTHCHALLENGE SERVERHASH=xyz SERVERNONCE=xyz\r\n",
        "250 OTHER SERVERHASH=00 SERVERNONCE=00\r\n"
      ]
      for (const reply of replies) {
        const { commands, reason } = yield* begin(withCookie(reply), reads)
        assert.strictEqual((yield* reason)._tag, "BadReply", reply)
        assert.strictEqual(commands.length, 2)
      }
    })
  )

  it.effect("fails at a cookie that does not have 32 bytes, or cannot be read", () =>
    Effect.gen(function* () {
      const cookies = [
        Effect.succeed(cookie.subarray(1)),
        Effect.succeed(new Uint8Array(33)),
        Effect.fail("no permission")
      ]
      for (const cookie of cookies) {
        const { commands, reason } = yield* begin(withCookie(challenge(proof)), { readCookie: () => cookie })
        const why = yield* reason
        assert.isTrue(why._tag === "BadCookie" && why.path === path)
        assert.deepStrictEqual(commands, ["PROTOCOLINFO 1"])
      }
    })
  )

  it.effect("prefers no secret at all, and a password where there is one", () =>
    Effect.gen(function* () {
      const all = torBut({
        PROTOCOLINFO: info('METHODS=NULL,SAFECOOKIE,HASHEDPASSWORD COOKIEFILE="/a"'),
        AUTHENTICATE: ok
      })
      assert.strictEqual((yield* begin(all, reads)).commands[1], "AUTHENTICATE")
      const { commands } = yield* begin(all, { ...reads, password: 'a "b" \\ c\r\nSIGNAL HALT' })
      assert.strictEqual(commands[1], String.raw`AUTHENTICATE "a \"b\" \\ c\r\nSIGNAL HALT"`)
      assert.isTrue(commands[2]!.startsWith("GETINFO"))
    })
  )

  it.effect("fails where no method can be used", () =>
    Effect.gen(function* () {
      const methods = Effect.fnUntraced(function* (auth: string, options: Partial<TorControl.Options>) {
        const { commands, reason } = yield* begin(torBut({ PROTOCOLINFO: info(auth) }), options)
        assert.deepStrictEqual(commands, ["PROTOCOLINFO 1"])
        return yield* reason
      })
      const noMethod = (...offered: ReadonlyArray<string>) => ({ _tag: "NoMethod", offered }) as const
      assert.deepStrictEqual(yield* methods("METHODS=HASHEDPASSWORD", reads), noMethod("HASHEDPASSWORD"))
      assert.deepStrictEqual(yield* methods("METHODS=NULL", { password: "a" }), noMethod("NULL"))
      assert.deepStrictEqual(yield* methods('METHODS=COOKIE COOKIEFILE="/a"', reads), noMethod("COOKIE"))
      assert.deepStrictEqual(yield* methods('METHODS=SAFECOOKIE COOKIEFILE="/a"', {}), noMethod("SAFECOOKIE"))
      assert.deepStrictEqual(yield* methods("METHODS=SAFECOOKIE", reads), noMethod("SAFECOOKIE"))
      assert.deepStrictEqual(yield* methods("OTHER", reads), noMethod())
    })
  )

  it.effect("fails at a refusal, with the answer of Tor without what a terminal would interpret", () =>
    Effect.gen(function* () {
      const { control, reason } = yield* begin(torBut({ AUTHENTICATE: "515 Bad \x1b[31mpassword\r\n" }))
      assert.deepStrictEqual(yield* reason, {
        _tag: "Refused",
        command: "AUTHENTICATE",
        code: 515,
        text: "Bad ?[31mpassword"
      })
      const status = yield* control.status
      assert.strictEqual(
        status._tag === "Down" && status.error.message,
        "Tor's control port: AUTHENTICATE was refused: 515 Bad ?[31mpassword"
      )
    })
  )
})

describe("A service of TorControl that is lost", () => {
  it.effect("is taken back at once, and made again with the same key after a second", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { commands, control, ports } = yield* begin(tor, {
        onUp: ({ address }) =>
          Effect.acquireRelease(
            Effect.sync(() => void log.push(`+${Address.formatHost(address).slice(0, 8)}`)),
            () => Effect.sync(() => void log.push("-"))
          )
      })
      assert.deepStrictEqual(log, ["+explorer"])
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* control.status)._tag, "Up")
      yield* ports[0]!.close
      yield* settle
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(log, ["+explorer", "-"])
      const status = yield* control.status
      assert.isTrue(status._tag === "Down" && status.error.reason._tag === "Disconnected")
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(log, ["+explorer", "-", "+explorer"])
      assert.strictEqual(commands.at(-1), `ADD_ONION ${key} PoWDefensesEnabled=1 Port=8333,127.0.0.1:8334`)
    })
  )

  it.effect("is tried again after 1 s, 1.5 times as long each time, and every 10 minutes at the end", () =>
    Effect.gen(function* () {
      const { dials } = yield* begin(["refuses"])
      yield* TestClock.adjust("3 hours")
      const waits = dials.slice(1).map((at, index) => at - dials[index]!)
      assert.deepStrictEqual(waits.slice(0, 4), [1_000, 1_500, 2_250, 3_375])
      assert.strictEqual(waits.at(-1), 600_000)
      assert.isTrue(waits.every((wait) => wait <= 600_000))
    })
  )

  it.effect("waits longer each time also where the connection succeeds and the login fails", () =>
    Effect.gen(function* () {
      const refusing = torBut({ AUTHENTICATE: "515 Bad authentication\r\n" })
      const { control, dials } = yield* begin([refusing, refusing, refusing, tor])
      yield* TestClock.adjust(1_000 + 1_500)
      assert.deepStrictEqual(
        dials.map((at) => at - dials[0]!),
        [0, 1_000, 2_500]
      )
      yield* TestClock.adjust(2_250)
      assert.strictEqual((yield* control.status)._tag, "Up")
    })
  )

  it.effect("waits for 1 s again after it was up", () =>
    Effect.gen(function* () {
      const { dials, ports } = yield* begin(["refuses", "refuses", "refuses", tor])
      yield* TestClock.adjust(1_000 + 1_500 + 2_250)
      assert.strictEqual(dials.length, 4)
      yield* ports[0]!.close
      yield* settle
      yield* TestClock.adjust(1_000)
      assert.strictEqual(dials.length, 5)
    })
  )

  it.effect("is given up when a reply does not come within a minute, or is too long", () =>
    Effect.gen(function* () {
      const silent = yield* begin(torBut({ GETINFO: undefined }))
      assert.strictEqual((yield* silent.control.status)._tag, "Starting")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* silent.reason, { _tag: "NoReply", command: "GETINFO" })
      const endless = yield* begin(torBut({ PROTOCOLINFO: "250-Go on\r\n".repeat(1_001) }))
      assert.deepStrictEqual(yield* endless.reason, { _tag: "BadReply", problem: "a reply has more than 1000 lines" })
    })
  )

  it.effect("reads and forgets events while it is up, and ends at too long a line", () =>
    Effect.gen(function* () {
      const { control, ports } = yield* begin(tor)
      ports[0]!.write(utf8("650 CIRC 1\r\n250 OK\r\n".repeat(1_000)))
      yield* settle
      assert.strictEqual((yield* control.status)._tag, "Up")
      ports[0]!.write(utf8("A".repeat(50_001)))
      yield* settle
      ports[0]!.write(utf8("A".repeat(50_001)))
      yield* settle
      const status = yield* control.status
      assert.isTrue(status._tag === "Down" && status.error.reason._tag === "BadReply")
    })
  )

  it.effect("follows a new address, and tells its changes", () =>
    Effect.gen(function* () {
      const next = torBut({ "ADD_ONION ": added(otherId, "") })
      const { control, ports } = yield* begin([tor, next])
      const changes = yield* Effect.forkChild(
        Stream.runCollect(
          Stream.take(
            Stream.map(control.changes, (status) =>
              status._tag === "Up" ? Address.formatHost(status.address).slice(0, 8) : status._tag
            ),
            4
          )
        ),
        { startImmediately: true }
      )
      yield* ports[0]!.close
      yield* settle
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(Array.from(yield* Fiber.join(changes)), ["explorer", "Down", "Starting", "aaaaaaaa"])
    })
  )

  it.effect("ends with its scope, which closes the connection", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { dials, ports, stop } = yield* begin(tor, {
        onUp: () => Effect.addFinalizer(() => Effect.sync(() => void log.push("removed")))
      })
      yield* stop
      assert.deepStrictEqual(log, ["removed"])
      assert.strictEqual((yield* Effect.flip(ports[0]!.pull)).reason._tag, "Closed")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(dials.length, 1)
    })
  )
})
