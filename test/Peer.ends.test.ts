/** How a peer ends. In each case all fibers end, the connection is closed, and every waiting caller gets an answer. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Metric, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Handshake, Nonce, Peer, Policy, Wire } from "effect-bitcoin-peer"
import {
  countedNonces,
  fork,
  network,
  scripted,
  tracked,
  twoPeers,
  verack,
  version,
  withRemote
} from "./support/peers.ts"
import { assertOver, block, type Session, waiters } from "./support/ends.ts"

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = <H extends Peer.Handlers<unknown> = Peer.Handlers>(options: Peer.Options<H> = {}) =>
    withRemote({ direction, ...options })

  it.effect("ends with RemoteClosed when the remote closes", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      yield* session.remote.connection.close
      assert.deepStrictEqual(yield* assertOver(session, waiting), { _tag: "RemoteClosed" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("handles every message that the remote sent before it closed", () =>
    Effect.gen(function* () {
      const seen: Array<bigint | undefined> = []
      const session = yield* start({ handlers: { ping: (ping) => void seen.push(ping.nonce) } })
      yield* session.remote.send({ _tag: "ping", nonce: 1n }, { _tag: "ping", nonce: 2n })
      yield* session.remote.connection.close
      assert.deepStrictEqual(yield* session.peer.awaitShutdown, { _tag: "RemoteClosed" })
      assert.deepStrictEqual(seen, [1n, 2n])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with ConnectionLost when the remote resets the connection", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      yield* session.pair.reset("unplugged")
      const reason = yield* assertOver(session, waiting)
      assert(reason._tag === "ConnectionLost")
      assert.deepStrictEqual(reason.error.reason, { _tag: "Reset", cause: "unplugged" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with ScopeClosed when its scope is closed", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      yield* session.close
      assert.deepStrictEqual(yield* assertOver(session, waiting), { _tag: "ScopeClosed" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with ScopeClosed when the fiber that owns it is interrupted", () =>
    Effect.gen(function* () {
      const ready = yield* Deferred.make<Session>()
      const owner = yield* fork(
        Effect.scoped(
          Effect.gen(function* () {
            yield* Deferred.succeed(ready, yield* start())
            return yield* Effect.never
          })
        )
      )
      const session = yield* Deferred.await(ready)
      const waiting = yield* waiters(session.peer)
      yield* Fiber.interrupt(owner)
      assert.deepStrictEqual(yield* assertOver(session, waiting), { _tag: "ScopeClosed" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with Requested and the text of the first disconnect call", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      yield* session.peer.disconnect("had enough")
      yield* session.peer.disconnect("too late: the first reason counts")
      assert.deepStrictEqual(yield* assertOver(session, waiting), { _tag: "Requested", why: "had enough" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("lets a handler call disconnect and await the shutdown", () =>
    Effect.gen(function* () {
      const session = yield* start({
        handlers: { ping: (_, peer) => Effect.andThen(peer.disconnect("seen a ping"), peer.awaitShutdown) }
      })
      const waiting = yield* waiters(session.peer)
      yield* session.remote.send({ _tag: "ping", nonce: 1n })
      assert.deepStrictEqual(yield* assertOver(session, waiting), { _tag: "Requested", why: "seen a ping" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("lets a finalizer of peer.scope await the shutdown", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const seen = yield* Deferred.make<Peer.EndReason>()
      yield* Scope.addFinalizer(
        session.peer.scope,
        Effect.flatMap(session.peer.awaitShutdown, (reason) => Deferred.succeed(seen, reason))
      )
      const waiting = yield* waiters(session.peer)
      yield* session.peer.disconnect("over")
      yield* assertOver(session, waiting)
      assert.deepStrictEqual(yield* Deferred.await(seen), { _tag: "Requested", why: "over" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("lets a finalizer added after the peer await the shutdown, in the peer's scope or in an outer one", () =>
    Effect.gen(function* () {
      for (const nested of [false, true]) {
        const outer = yield* Scope.make()
        const inner = nested ? yield* Scope.fork(outer) : outer
        const pair = yield* Connection.makePair()
        const remote = scripted(pair[1])
        const making = yield* fork(Scope.provide(Peer.make(pair[0], { network, direction }), inner))
        yield* remote.send(version(), verack)
        const peer = yield* Fiber.join(making)
        const seen = yield* Deferred.make<Peer.EndReason>()
        yield* Scope.addFinalizer(
          outer,
          Effect.flatMap(peer.awaitShutdown, (reason) => Deferred.succeed(seen, reason))
        )
        yield* Scope.close(outer, Exit.void)
        assert.deepStrictEqual(yield* Deferred.await(seen), { _tag: "ScopeClosed" })
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("handles messages sent before the remote closed, even by handlers that sleep and send answers", () =>
    Effect.gen(function* () {
      let handled = 0
      const session = yield* start({
        handlers: {
          inv: (_, peer) =>
            Effect.andThen(
              Effect.sleep(100),
              Effect.andThen(
                Effect.ignore(peer.send(verack)),
                Effect.sync(() => handled++)
              )
            )
        }
      })
      yield* session.remote.send(
        { _tag: "ping", nonce: 1n },
        ...Array.from({ length: 20 }, (): Wire.Message => ({ _tag: "inv", items: [] }))
      )
      yield* session.remote.connection.close
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* session.peer.awaitShutdown, { _tag: "RemoteClosed" })
      assert.strictEqual(handled, 20)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with WriteTimeout after 20 minutes without reads of the remote, while a handler or pongs wait", () =>
    Effect.gen(function* () {
      const serving = yield* start({ handlers: { getaddr: (_, peer) => peer.sendAndWait(block(500_000)) } })
      yield* serving.remote.send({ _tag: "getaddr" })
      const flooded = yield* start()
      for (let index = 0; index < 60; index++) {
        yield* flooded.remote.send(...Array.from({ length: 100 }, (): Wire.Message => ({ _tag: "ping", nonce: 1n })))
      }
      yield* TestClock.adjust("20 minutes")
      for (const { peer } of [serving, flooded]) {
        assert.strictEqual((yield* peer.awaitShutdown)._tag, "WriteTimeout")
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails the sendAndWait of an uninterruptible handler or finalizer, so that its end does not hang", () =>
    Effect.gen(function* () {
      const uninterruptible = yield* start({
        handlers: { getaddr: (_, peer) => Effect.uninterruptible(peer.sendAndWait(block(500_000))) }
      })
      yield* uninterruptible.remote.send({ _tag: "getaddr" })
      yield* uninterruptible.peer.disconnect("enough")
      assert.deepStrictEqual(yield* uninterruptible.peer.awaitShutdown, { _tag: "Requested", why: "enough" })
      const cleaning = yield* start({
        handlers: {
          getaddr: (_, peer) => Effect.ensuring(Effect.never, Effect.ignore(peer.sendAndWait(block(500_000))))
        }
      })
      yield* cleaning.remote.send({ _tag: "getaddr" })
      yield* cleaning.peer.disconnect("enough")
      assert.deepStrictEqual(yield* cleaning.peer.awaitShutdown, { _tag: "Requested", why: "enough" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with ScopeClosed when a handler closes the scope of the peer", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const pair = yield* Connection.makePair()
      const remote = scripted(pair[1])
      const making = yield* fork(
        Scope.provide(
          Peer.make(pair[0], { network, direction, handlers: { getaddr: () => Scope.close(scope, Exit.void) } }),
          scope
        )
      )
      yield* remote.send(version(), verack, { _tag: "getaddr" })
      const peer = yield* Fiber.join(making)
      assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "ScopeClosed" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with ScopeClosed when a fiber forked by a handler closes the scope of the peer", () =>
    Effect.gen(function* () {
      const ways = [
        (close: Effect.Effect<void>) => Effect.timeout(close, "1 second"),
        (close: Effect.Effect<void>) => Effect.forkScoped(Effect.delay(close, "1 second"))
      ]
      for (const way of ways) {
        const scope = yield* Scope.make()
        const pair = yield* Connection.makePair()
        const remote = scripted(pair[1])
        const handlers = { getaddr: () => way(Scope.close(scope, Exit.void)) }
        const making = yield* fork(Scope.provide(Peer.make(pair[0], { network, direction, handlers }), scope))
        yield* remote.send(version(), verack)
        const peer = yield* Fiber.join(making)
        yield* remote.send({ _tag: "getaddr" })
        const over = yield* fork(peer.awaitShutdown)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(over.pollUnsafe(), Exit.succeed({ _tag: "ScopeClosed" }))
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("has ended with ScopeClosed from the start when its scope was closed during the handshake", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const pair = yield* Connection.makePair()
      const remote = scripted(pair[1])
      const onVersion = () => Scope.close(scope, Exit.void)
      const making = yield* fork(Scope.provide(Peer.make(pair[0], { network, direction, onVersion }), scope))
      yield* remote.send(version(), verack)
      const peer = yield* Fiber.join(making)
      yield* peer.disconnect("too late")
      assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "ScopeClosed" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("leaves no fiber when a caller disconnects on an answer in the middle of a batch", () => {
    let running = 0
    const counting = Effect.provideService(Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => void running++,
      recordFiberEnd: () => void running--
    })
    return Effect.gen(function* () {
      const before = running
      const { peer, remote } = yield* start()
      const asking = yield* fork(Effect.andThen(peer.getHeaders([new Uint8Array(32)]), peer.disconnect("enough")))
      yield* remote.receiveUntil("getheaders")
      yield* remote.send({ _tag: "headers", headers: [] }, { _tag: "ping", nonce: 1n })
      yield* Fiber.join(asking)
      assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "Requested", why: "enough" })
      // The fiber that completes awaitShutdown ends one turn later.
      yield* Effect.yieldNow
      assert.strictEqual(running, before)
    }).pipe(counting, Effect.provide(Nonce.layer))
  })

  it.effect("lets fibers of peer.scope, and finalizers that fork fibers, await the shutdown", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const seen: Array<string> = []
      const note = Effect.map(session.peer.awaitShutdown, ({ _tag }) => void seen.push(_tag))
      yield* Effect.forkIn(Effect.ensuring(Effect.never, note), session.peer.scope, { startImmediately: true })
      yield* Scope.addFinalizer(session.peer.scope, Effect.raceFirst(note, Effect.never))
      yield* session.peer.disconnect()
      yield* session.peer.awaitShutdown
      assert.deepStrictEqual(seen, ["Requested", "Requested"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with HandlerFailed when a handler fails", () =>
    Effect.gen(function* () {
      const session = yield* start({ handlers: { inv: () => Effect.fail("no") } })
      const waiting = yield* waiters(session.peer)
      yield* session.remote.send({ _tag: "inv", items: [] })
      const reason = yield* assertOver(session, waiting)
      assert(reason._tag === "HandlerFailed")
      assert.strictEqual(reason.command, "inv")
      assert.deepStrictEqual(Cause.findErrorOption(reason.cause), Option.some("no"))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with HandlerFailed and the defect when a handler dies or throws", () =>
    Effect.gen(function* () {
      const defect = new Error("bug")
      const dying: ReadonlyArray<() => Effect.Effect<never> | void> = [
        () => Effect.die(defect),
        () => {
          throw defect
        }
      ]
      for (const handler of dying) {
        const session = yield* start({ handlers: { Unknown: handler } })
        const waiting = yield* waiters(session.peer)
        yield* session.remote.send({ _tag: "Unknown", command: "surprise", payload: new Uint8Array(0) })
        const reason = yield* assertOver(session, waiting)
        assert(reason._tag === "HandlerFailed")
        assert.strictEqual(reason.command, "surprise")
        assert.strictEqual(Cause.squash(reason.cause), defect)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with HandlerFailed when a handler interrupts itself", () =>
    Effect.gen(function* () {
      const session = yield* start({ handlers: { inv: () => Effect.interrupt } })
      const waiting = yield* waiters(session.peer)
      yield* session.remote.send({ _tag: "inv", items: [] })
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "HandlerFailed")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with Defect when onRead throws", () =>
    Effect.gen(function* () {
      const session = yield* start({
        onRead: (event) => {
          if (event._tag === "Received" && event.message._tag === "inv") throw new Error("bug")
        }
      })
      const waiting = yield* waiters(session.peer)
      yield* session.remote.send({ _tag: "inv", items: [] })
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "Defect")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("keeps its reason when onWrite throws on the final reject", () =>
    Effect.gen(function* () {
      const session = yield* start({
        policy: Policy.btcd,
        onWrite: (message) => {
          if (message._tag === "reject") throw new Error("bug")
        }
      })
      const waiting = yield* waiters(session.peer)
      yield* session.remote.send(verack)
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "ProtocolViolation")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with the writer's error when only writing fails, and fails the waiting sends", () =>
    Effect.gen(function* () {
      const failing = yield* Deferred.make<never, Connection.ConnectionError>()
      const pair = yield* Connection.makePair()
      const remote = scripted(pair[1])
      let broken = false
      // Reading goes on as before: only the writer notices the failure.
      const tracker = tracked({
        localAddress: pair[0].localAddress,
        remoteAddress: pair[0].remoteAddress,
        pull: pair[0].pull,
        write: (bytes) => (broken ? bytes.length : pair[0].write(bytes)),
        drained: Effect.suspend(() => (broken ? Deferred.await(failing) : pair[0].drained)),
        close: pair[0].close,
        destroy: pair[0].destroy
      })
      const making = yield* fork(tracker.clock(Peer.make(tracker.connection, { network, direction })))
      yield* remote.send(version(), verack)
      const peer = yield* Fiber.join(making)
      broken = true
      const waiting = yield* waiters(peer)
      const error = new Connection.ConnectionError({ reason: { _tag: "Reset", cause: "EPIPE" } })
      yield* Deferred.fail(failing, error)
      // The peer gives the reader one second to report the end, because reads usually fail as well.
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* assertOver({ peer, tracker }, waiting), { _tag: "ConnectionLost", error })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("suspends sends while the remote reads nothing, and ends with WriteTimeout after 20 minutes", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      const flood = yield* fork(Effect.forEach(Array.from({ length: 100 }), () => session.peer.send(block(100_000))))
      yield* TestClock.adjust("19 minutes")
      assert.isUndefined(flood.pollUnsafe())
      const { queuedBytes } = yield* session.peer.stats
      assert.isAtMost(queuedBytes, Peer.defaultMaximumQueuedBytes + 200_100)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "WriteTimeout")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(flood)))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with PingTimeout when a ping stays unanswered for 20 minutes, even if other messages arrive", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer, [])
      // The first ping is sent after two minutes.
      for (let minute = 0; minute < 21; minute++) {
        yield* TestClock.adjust("1 minute")
        yield* session.remote.send({ _tag: "sendheaders" })
      }
      assert.isUndefined(waiting.shutdowns[0]!.pollUnsafe())
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "PingTimeout")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with IdleTimeout when nothing is received for 20 minutes", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer, [])
      yield* TestClock.adjust("19 minutes")
      assert.isUndefined(waiting.shutdowns[0]!.pollUnsafe())
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "IdleTimeout")
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("two connected peers", () => {
  it.effect("both end when both disconnect at once", () =>
    Effect.gen(function* () {
      const [first, second] = yield* twoPeers()
      yield* Effect.all([first.disconnect("first"), second.disconnect("second")], { concurrency: 2 })
      const reasons = [yield* first.awaitShutdown, yield* second.awaitShutdown]
      // A peer that notices the other's close before its own disconnect reports RemoteClosed.
      for (const reason of reasons) assert.include(["Requested", "RemoteClosed"], reason._tag)
      assert.include(
        reasons.map(({ _tag }) => _tag),
        "Requested"
      )
    })
  )

  it.effect("end with Requested and RemoteClosed when one of them disconnects", () =>
    Effect.gen(function* () {
      const [first, second] = yield* twoPeers()
      yield* first.disconnect("enough")
      assert.deepStrictEqual(yield* first.awaitShutdown, { _tag: "Requested", why: "enough" })
      assert.deepStrictEqual(yield* second.awaitShutdown, { _tag: "RemoteClosed" })
    })
  )
})

describe("an end during the handshake", () => {
  const begin = Effect.fnUntraced(function* (options: Peer.Options = {}) {
    const pair = yield* Connection.makePair()
    const remote = scripted(pair[1])
    const tracker = tracked(pair[0])
    const making = yield* fork(Effect.scoped(tracker.clock(Peer.make(tracker.connection, { network, ...options }))))
    return { pair, remote, tracker, making }
  })
  const assertGone = Effect.fnUntraced(function* ({ remote, tracker }: Effect.Success<ReturnType<typeof begin>>) {
    assert.strictEqual(tracker.waiting(), 0, "a fiber of the peer is still waiting")
    assert.strictEqual((yield* Effect.flip(tracker.connection.pull))._tag, "ConnectionError")
    const error = yield* Effect.flip(remote.receiveUntil("Unknown"))
    assert.strictEqual(error._tag, "ConnectionError", "the remote does not see the end")
  })
  const reasonOf = (making: Fiber.Fiber<unknown, Handshake.HandshakeError>) =>
    Effect.map(Effect.flip(Fiber.join(making)), ({ reason }) => reason)

  it.effect.each(["outbound", "inbound"] as const)(
    "leaves nothing when the fiber that makes an %s peer is interrupted",
    (direction) =>
      Effect.gen(function* () {
        for (const messages of [[], [version()]]) {
          const session = yield* begin({ direction })
          yield* session.remote.send(...messages)
          yield* Fiber.interrupt(session.making)
          yield* assertGone(session)
        }
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each(["outbound", "inbound"] as const)(
    "is TimedOut after 60 seconds for an %s peer, and names the missing message",
    (direction) =>
      Effect.gen(function* () {
        for (const [messages, waitingFor] of [
          [[], "version"],
          [[version()], "verack"]
        ] as const) {
          const session = yield* begin({ direction })
          if (messages.length > 0) yield* session.remote.send(...messages)
          yield* TestClock.adjust("59999 millis")
          assert.isUndefined(session.making.pollUnsafe())
          yield* TestClock.adjust("1 millis")
          const reason = yield* reasonOf(session.making)
          assert(reason._tag === "TimedOut")
          assert.strictEqual(reason.waitingFor, waitingFor)
          yield* assertGone(session)
        }
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("is Disconnected when the remote closes or resets after any message", () =>
    Effect.gen(function* () {
      for (const messages of [[], [version()], [version(), { _tag: "wtxidrelay" } as const]]) {
        const closed = yield* begin()
        if (messages.length > 0) yield* closed.remote.send(...messages)
        yield* closed.remote.connection.close
        const reason = yield* reasonOf(closed.making)
        assert(reason._tag === "Disconnected")
        assert.strictEqual(reason.error.reason._tag, "Closed")
        assert.strictEqual(closed.tracker.waiting(), 0)

        const reset = yield* begin()
        if (messages.length > 0) yield* reset.remote.send(...messages)
        yield* reset.pair.reset()
        const broken = yield* reasonOf(reset.making)
        assert(broken._tag === "Disconnected")
        assert.strictEqual(broken.error.reason._tag, "Reset")
        yield* assertGone(reset)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("is Disconnected when the connection is cut after any byte of the remote", () =>
    Effect.gen(function* () {
      const size = scripted((yield* Connection.makePair())[0]).frames([version(), verack]).length
      for (let bytes = 0; bytes < size; bytes++) {
        const pair = yield* Connection.makePair({ cutAfter: [undefined, bytes] })
        const remote = scripted(pair[1])
        const making = yield* fork(Effect.scoped(Peer.make(pair[0], { network })))
        yield* remote.send(version(), verack)
        assert.strictEqual((yield* reasonOf(making))._tag, "Disconnected", `cut after ${bytes}`)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("makes a peer that has ended with ScopeClosed when another fiber closes the scope", () =>
    Effect.gen(function* () {
      const pair = yield* Connection.makePair()
      const remote = scripted(pair[1])
      const tracker = tracked(pair[0])
      const scope = yield* Scope.make()
      const making = yield* fork(tracker.clock(Scope.provide(Peer.make(tracker.connection, { network }), scope)))
      yield* remote.send(version())
      yield* Scope.close(scope, Exit.void)
      yield* remote.send(verack)
      const peer = yield* Fiber.join(making)
      assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "ScopeClosed" })
      assert.strictEqual((yield* Effect.flip(peer.send(verack))).reason._tag, "Ended")
      yield* peer.disconnect("too late")
      assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "ScopeClosed" })
      yield* assertGone({ pair, remote, tracker, making })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("passes a defect of onVersion to the caller and closes the connection", () =>
    Effect.gen(function* () {
      const session = yield* begin({ onVersion: () => Effect.die("bug") })
      yield* session.remote.send(version())
      assert.isTrue(Exit.hasDies(yield* Fiber.await(session.making)))
      yield* assertGone(session)
    }).pipe(Effect.provide(countedNonces))
  )
})

describe("a peer that can no longer write", () => {
  it.effect("reads and handles messages for as long as the remote sends them", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(theirs)
      const cause = new Error("broken pipe")
      const error = new Connection.ConnectionError({ reason: { _tag: "Reset", cause } })
      let isBroken = false
      const connection: Connection.Connection = {
        localAddress: ours.localAddress,
        remoteAddress: ours.remoteAddress,
        pull: ours.pull,
        write: (bytes) => (isBroken ? -1 : ours.write(bytes)),
        drained: Effect.suspend(() => (isBroken ? Effect.fail(error) : ours.drained)),
        close: ours.close,
        destroy: ours.destroy
      }
      let handled = 0
      const making = yield* fork(Peer.make(connection, { network, handlers: { Unknown: () => void handled++ } }))
      yield* remote.send(version(), verack)
      const peer = yield* Fiber.join(making)
      const ending = yield* fork(peer.awaitShutdown)
      isBroken = true
      yield* Effect.exit(peer.sendAndWait(block(1)))
      for (let count = 1; count <= 10; count++) {
        yield* remote.send(block(1))
        yield* TestClock.adjust("600 millis")
        assert.strictEqual(handled, count)
        assert.isUndefined(ending.pollUnsafe(), `ended after ${count}`)
      }
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(ending))._tag, "ConnectionLost")
    }).pipe(Effect.provide(Nonce.layer))
  )
})
