/**
 * The life of a connected peer, and its scope: the scope forks the reader, the writer, the pinger and the trickler, and
 * disconnecting is the close of that scope. The first loop to end ends the peer; so do `disconnect` and the close of the
 * scope that the peer was made in (the owner).
 *
 * The end goes in this order:
 *
 * 1. The reason is fixed.
 * 2. Every caller that waits for the peer fails with the reason.
 * 3. The loops are interrupted.
 * 4. A `reject` is sent, where the policy has rejects.
 * 5. The connection is closed, or destroyed where the remote takes nothing.
 * 6. The recording ends.
 * 7. The scope closes that callers fork into (`Peer.scope`).
 * 8. `awaitShutdown` returns the reason.
 *
 * 1 and 2 happen inside the call that ends the peer, so that a handler that cannot be interrupted still gets its answers.
 * 3 to 6 are the finalizer of the peer's scope.
 *
 * The peer's scope is no child of the owner: closing a child twice returns at once, and the owner would not wait for a peer
 * that is ending already. A finalizer of the owner ends the peer and waits for it.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { EndReason } from "../PeerError.ts"
import { reasonOf } from "./misbehavior.ts"

type Phase =
  | { readonly _tag: "Open" }
  /** Nothing more is read or nothing more is written. The messages that arrived before are still handled. */
  | { readonly _tag: "Draining"; readonly reason: EndReason }
  /** The reason is fixed, and the scope of the peer closes. */
  | { readonly _tag: "Ending"; readonly reason: EndReason }

const open: Phase = { _tag: "Open" }

/** The scope of the peer whose handler a fiber runs, or was forked by. */
export const CurrentHandler = Context.Reference<Scope.Scope | undefined>("effect-bitcoin-peer/peer/CurrentHandler", {
  defaultValue: () => undefined
})

/** Whether a scope, or one that it is part of, closes or is closed. */
const isClosing = (scope: Scope.Scope | undefined): boolean =>
  scope !== undefined && (scope.state._tag === "Closed" || isClosing(scope.parent))

/** The steps of the end that the parts of the peer take. */
export interface Ending {
  /** Step 2. */
  readonly failWaiting: (reason: EndReason) => void
  /** Steps 4 and 5. */
  readonly disconnect: (reason: EndReason) => Effect.Effect<void>
  /** Step 6. */
  readonly endRecording: Effect.Effect<void>
  /** Before step 8. */
  readonly observe: (reason: EndReason) => Effect.Effect<void>
}

export class Lifecycle {
  #phase: Phase = open
  readonly #peer = Scope.makeUnsafe()
  readonly #owner: Scope.Scope
  /** A child of the owner, so that the end of the peer removes its finalizer there. */
  readonly #guard: Scope.Closeable
  readonly #fibers: Array<Fiber.Fiber<never, EndReason>> = []
  readonly #shutdown = Deferred.makeUnsafe<EndReason>()
  #scope: Scope.Closeable | undefined
  #ending: Ending | undefined
  /** Of the fibers of the peer. */
  #context: Context.Context<never> = Context.empty()
  /** Whether step 7 has begun. */
  #isOver = false

  /** The peer ends with its owner. */
  constructor(owner: Scope.Scope) {
    this.#owner = owner
    this.#guard = Scope.forkUnsafe(owner)
  }

  /** Closed at the end of the peer; callers fork into it. Made when it is asked for. */
  get scope(): Scope.Scope {
    if (this.#scope === undefined) {
      this.#scope = Scope.makeUnsafe()
      if (this.#isOver) Scope.closeUnsafe(this.#scope, Exit.void)
    }
    return this.#scope
  }

  /** Why the peer ends, or will end when the messages that arrived are handled; undefined while it is open. */
  get reason(): EndReason | undefined {
    return this.#phase._tag === "Open" ? undefined : this.#phase.reason
  }

  /** Whether the reason is fixed and every caller was answered. */
  get isEnding(): boolean {
    return this.#phase._tag === "Ending"
  }

  /**
   * Calls `forkLoops`, which forks the first loops into the peer's scope. The scope closes when the first loop ends. `context` is
   * the one of all fibers of the peer.
   */
  start(forkLoops: () => void, ending: Ending, context: Context.Context<never>): Effect.Effect<void> {
    this.#ending = ending
    this.#context = context
    const disconnect = (): Effect.Effect<void> =>
      Fiber.interruptAll(this.#fibers).pipe(
        Effect.andThen(ending.disconnect(this.reason!)),
        Effect.ensuring(ending.endRecording)
      )
    const begin = Effect.suspend(() => {
      // No loop runs then, and no handler.
      if (isClosing(this.#owner)) this.end({ _tag: "ScopeClosed" })
      forkLoops()
      return Scope.addFinalizerExit(this.#guard, () => this.#endWithOwner)
    })
    return Effect.andThen(Scope.addFinalizerExit(this.#peer, disconnect), begin)
  }

  get #endWithOwner(): Effect.Effect<unknown> {
    return Effect.withFiber((fiber) => {
      this.end({ _tag: "ScopeClosed" })
      // A handler that closes the owner is itself waited for, and so may be the fibers that it has forked.
      return this.isHandler(fiber) ? Effect.void : Deferred.await(this.#shutdown)
    })
  }

  /** Whether a fiber runs a handler of this peer, or was forked by one. */
  isHandler({ context }: Fiber.Fiber<unknown, unknown>): boolean {
    const handler = Context.get(context, CurrentHandler)
    return handler !== undefined && handler === this.#scope
  }

  /** Forks one more loop. */
  fork(loop: Effect.Effect<never, EndReason>): void {
    // A callback may end the peer while a batch is processed; nothing would interrupt a loop that starts after that.
    if (this.#phase._tag === "Ending") return
    Effect.runForkWith(this.#context)(
      // The peer knows the fiber before its first step, which may be to end the peer.
      Effect.withFiber((fiber) => {
        this.#fibers.push(fiber as Fiber.Fiber<never, EndReason>)
        return loop
      })
    ).addObserver(this.#loopEnded)
  }

  readonly #loopEnded = (exit: Exit.Exit<never, EndReason>): void => {
    this.end(reasonOf(exit))
  }

  /**
   * Nothing more is read, or nothing more is written; callers may have been failed with the reason, so it stays. Returns the
   * reason that holds.
   */
  drain(reason: EndReason): EndReason {
    if (this.#phase._tag === "Open") this.#phase = { _tag: "Draining", reason }
    return this.reason!
  }

  /** Ends the peer for this reason, unless it has one already. */
  end(reason: EndReason): void {
    if (this.#phase._tag === "Ending") return
    this.#phase = { _tag: "Ending", reason: this.reason ?? reason }
    this.#ending?.failWaiting(this.#phase.reason)
    // Detached: it closes the scope that the loops are part of, and one of them may have called.
    Effect.runForkWith(this.#context)(this.#close)
  }

  get #close(): Effect.Effect<void> {
    const closeScope = Effect.suspend(() => {
      this.#isOver = true
      return (this.#scope && Scope.closeUnsafe(this.#scope, Exit.void)) ?? Effect.void
    })
    return Effect.exit(Scope.close(this.#peer, Exit.void)).pipe(
      Effect.andThen(Effect.exit(closeScope)),
      Effect.andThen(Effect.suspend(() => this.#ending!.observe(this.reason!))),
      Effect.ensuring(
        Effect.suspend(() => {
          Deferred.doneUnsafe(this.#shutdown, Effect.succeed(this.reason!))
          return Scope.close(this.#guard, Exit.void)
        })
      )
    )
  }

  readonly awaitShutdown: Effect.Effect<EndReason> = Effect.suspend(() => {
    // A caller that asks while `scope` closes is part of what closes: it must not wait for itself.
    if (this.#isOver) return Effect.succeed(this.reason!)
    // A finalizer that was added after the peer runs before the peer's own, and would wait for ever.
    if (isClosing(this.#owner)) this.end({ _tag: "ScopeClosed" })
    return Deferred.await(this.#shutdown)
  })
}
