/** Random networks with cuts, losses, kills and interruptions: what holds in all of them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import type { Connection } from "effect-bitcoin-peer"
import { Simulation } from "effect-bitcoin-peer/testing"
import { dice } from "../support/dice.ts"
import { fork } from "../support/peers.ts"

interface Stream {
  readonly written: Array<number>
  readonly read: Array<number>
}

/** One end of a connection, what it writes and what it has read. */
interface End {
  readonly connection: Connection.Connection
  readonly out: Stream
  readonly in: Stream
}

/** Reads until the end of the connection. */
const reading = ({ connection, in: { read } }: End): Effect.Effect<void> =>
  connection.pull.pipe(
    Effect.tap((batch) => Effect.sync(() => batch.forEach((bytes) => read.push(...bytes)))),
    Effect.forever,
    Effect.catch(() => Effect.void)
  )

/** Does random things for half an hour. Returns the problems that it found. */
const play = (seed: number) => {
  const random = dice(seed)
  return Simulation.run(
    seed,
    (simulation) =>
      Effect.gen(function* () {
        const problems: Array<string> = []
        const hosts: Array<Simulation.Host> = []
        const ends: Array<End> = []
        const scopes: Array<Scope.Closeable> = []
        const heals: Array<Effect.Effect<void>> = []
        let dials = 0
        /** Both streams of a connection, by the port of the side that dialled. */
        const streams = new Map<string, readonly [Stream, Stream]>()
        const streamsOf = (port: string) => {
          const known = streams.get(port) ?? [
            { written: [], read: [] },
            { written: [], read: [] }
          ]
          streams.set(port, known)
          return known
        }
        const enter = (connection: Connection.Connection, isDialler: boolean) =>
          Effect.gen(function* () {
            const { host, port } = isDialler ? connection.localAddress : connection.remoteAddress
            const [forth, back] = streamsOf(`${host} ${port}`)
            const end = { connection, out: isDialler ? forth : back, in: isDialler ? back : forth }
            ends.push(end)
            yield* Effect.forkScoped(reading(end))
          })
        const listening = (host: Simulation.Host) =>
          Effect.gen(function* () {
            const listener = yield* host.listen({ backlog: 4 })
            yield* Effect.forever(Effect.flatMap(listener.accept, (connection) => enter(connection, false)))
          }).pipe(Effect.ignore, Effect.forkScoped)
        for (let i = 0; i < 6; i++) {
          const host = yield* simulation.host({ name: `host ${i}` })
          hosts.push(host)
          yield* listening(host)
        }
        const [pick, below] = [random.pick, random.below]
        for (let step = 0; step < 120; step++) {
          const kind = below(100)
          if (kind < 30) {
            const scope = yield* Scope.make()
            scopes.push(scope)
            dials++
            const dialling = yield* pick(hosts)
              .dial(pick(hosts).addresses[0])
              .pipe(
                Effect.flatMap((connection) => enter(connection, true)),
                Scope.provide(scope),
                Effect.ignore,
                Effect.forkScoped
              )
            if (random.chance(0.2)) {
              yield* Effect.sleep(below(200))
              yield* Fiber.interrupt(dialling)
            }
          } else if (kind < 60 && ends.length > 0) {
            const { connection, out } = pick(ends)
            const bytes = random.bytes(below(3_000))
            if (connection.write(bytes) >= 0) out.written.push(...bytes)
          } else if (kind < 68)
            heals.push(yield* simulation.cut(pick(hosts), random.chance(0.5) ? undefined : pick(hosts)))
          else if (kind < 76 && heals.length > 0) yield* heals.splice(below(heals.length), 1)[0]!
          else if (kind < 80 && scopes.length > 0) {
            yield* fork(Scope.close(scopes.splice(below(scopes.length), 1)[0]!, Exit.void))
          } else if (kind < 82) {
            const host = pick(hosts)
            yield* simulation.kill(host)
            yield* listening(host)
          } else if (kind < 85 && ends.length > 0)
            yield* random.chance(0.5) ? pick(ends).connection.close : pick(ends).connection.destroy
          else yield* Effect.sleep(below(30_000))
        }
        yield* simulation.heal
        yield* Effect.sleep("20 minutes")

        for (const [port, both] of streams) {
          for (const { read, written } of both) {
            if (read.length > written.length) problems.push(`${port}: more arrived than was written`)
            const wrong = read.findIndex((byte, index) => byte !== written[index])
            if (wrong >= 0) problems.push(`${port}: byte ${wrong} of ${read.length} is wrong`)
          }
        }
        // What both ends still hold has lost nothing.
        const open = yield* simulation.connections
        const alive = ends.filter(({ connection }) => connection.write(new Uint8Array(0)) === 0)
        if (alive.length !== 2 * open.length)
          problems.push(`${alive.length} ends of ${open.length} connections are open`)
        for (const {
          in: { read, written }
        } of alive) {
          if (read.length !== written.length) problems.push(`${read.length} of ${written.length} bytes have arrived`)
        }
        for (const scope of scopes) yield* Scope.close(scope, Exit.void)
        yield* simulation.kill(hosts)
        yield* Effect.sleep("1 second")
        const left = (yield* simulation.connections).length
        if (left > 0) problems.push(`${left} connections are left`)
        return { problems, dials, made: streams.size, digest: yield* simulation.digest }
      }),
    {
      limit: "10 hours",
      window: random.pick([500, 65_536]),
      link: {
        latency: { minimum: random.pick([0, 1]), maximum: random.pick([1, 300]) },
        bandwidth: random.chance(0.5) ? undefined : 2_000,
        lifetime: random.chance(0.3) ? "5 minutes" : undefined
      }
    }
  )
}

describe("random networks", () => {
  it.live("keep the bytes in order, lose none on open connections, and leave nothing, for seeds 0 to 100", () =>
    Effect.gen(function* () {
      let made = 0
      for (let seed = 0; seed < 100; seed++) {
        const report = yield* play(seed)
        made += report.made
        assert.deepStrictEqual(report.problems, [], `seed ${seed}`)
      }
      assert.isAbove(made, 1_000)
    })
  )

  it.live("are the same for the same seed", () =>
    Effect.gen(function* () {
      for (let seed = 0; seed < 10; seed++) {
        assert.strictEqual((yield* play(seed)).digest, (yield* play(seed)).digest, `seed ${seed}`)
      }
    })
  )
})
