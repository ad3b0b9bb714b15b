/** Plays a script over a connection: parses, calls the script, and performs its actions in order. It has no fiber of its own. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Connection } from "../../Connection.ts"
import { startTimer } from "../../primitives/timer.ts"
import { WaitList } from "../../primitives/waitList.ts"
import * as Wire from "../../Wire.ts"
import { type Action, isMessage, type Remote, type Script, type Turn } from "./script.ts"

/** The number of messages that wait for the script before the connection is no longer read. */
const maximumInputs = 1_000
/** The number of written bytes that wait in the connection before the script pauses. */
const maximumUnsent = 1 << 20

type Input<S> = (state: S) => Turn<S>

/** How a script's connection ends. */
type Ending = Effect.Effect<void>

export class Actor<S> {
  readonly #connection: Connection
  readonly #script: Script<S>
  readonly #magic: Uint8Array
  readonly #context: Context.Context<never>
  readonly #parser: Wire.Parser
  readonly #end: (ending: Ending) => void
  readonly #remote: Remote
  readonly #inputs: Array<Input<S>> = []
  readonly #actions: Array<Action> = []
  readonly #room = new WaitList(() => (this.#inputs.length < maximumInputs ? Effect.void : undefined))
  readonly #cancels = new Set<() => void>()
  #state: S
  #isPlaying = false
  #isPaused = false
  #isOver = false
  #isReading = false
  #ticks = 0

  constructor(
    connection: Connection,
    script: Script<S>,
    options: { readonly magic: Uint8Array; readonly direction: Remote["direction"] },
    context: Context.Context<never>,
    end: (ending: Ending) => void
  ) {
    this.#connection = connection
    this.#script = script
    this.#magic = options.magic
    this.#context = context
    this.#parser = Wire.makeParser({ magic: options.magic })
    this.#end = end
    this.#state = script.state
    const clock = Context.get(context, Clock.Clock)
    this.#remote = {
      direction: options.direction,
      address: connection.remoteAddress,
      get now() {
        return clock.currentTimeMillisUnsafe()
      }
    }
  }

  start(): void {
    const { onConnect, tick } = this.#script
    if (onConnect !== undefined) this.tell(onConnect)
    if (tick !== undefined) this.#tickLater(Math.max(1, Duration.toMillis(tick.every)))
    this.#read()
  }

  /** Stops without an end of the connection. */
  stop(): void {
    this.#isOver = true
    for (const cancel of this.#cancels) cancel()
    this.#cancels.clear()
  }

  /** Adds a turn of the script. */
  tell(turn: (state: S, remote: Remote) => Turn<S>): void {
    this.#inputs.push((state) => turn(state, this.#remote))
    this.#play()
  }

  // ---- input

  #read(): void {
    if (this.#isReading || this.#isOver) return
    this.#isReading = true
    if (this.#connection.receive === undefined) {
      this.#fork(this.#pulling)
      return
    }
    const stop = this.#connection.receive({
      onBytes: (batch) => {
        this.#take(batch)
        this.#isReading = !this.#isOver && this.#inputs.length < maximumInputs
        return this.#isReading
      },
      onEnd: () => this.#finish(Effect.void)
    })
    this.#cancels.add(stop)
  }

  /** For connections without `receive`. */
  readonly #pulling: Effect.Effect<void> = Effect.suspend(() =>
    this.#connection.pull.pipe(
      Effect.tap((batch) => Effect.sync(() => this.#take(batch))),
      Effect.andThen(this.#room.wait),
      Effect.forever,
      Effect.catch(() => Effect.sync(() => this.#finish(Effect.void)))
    )
  )

  #take(batch: ReadonlyArray<Uint8Array>): void {
    for (const bytes of batch) {
      for (const event of this.#parser.push(bytes)) {
        if (event._tag === "Received")
          this.#inputs.push((state) => this.#script.onMessage(event.message, state, this.#remote))
      }
    }
    this.#play()
    // These are no frames of version 1, so the connection ends, as that of a node without version 2.
    if (this.#parser.failure !== undefined) this.#finish(this.#connection.destroy)
  }

  #tickLater(every: number): void {
    this.#later(every, () => {
      this.#tickLater(every)
      // A script that is slower than its ticks misses some.
      if (this.#ticks > 0) return
      this.#ticks++
      this.tell((state, remote) => {
        this.#ticks--
        return this.#script.tick!.onTick(state, remote)
      })
    })
  }

  // ---- output

  #play(): void {
    if (this.#isPlaying) return
    this.#isPlaying = true
    try {
      while (!this.#isPaused && !this.#isOver) {
        if (this.#actions.length > 0) this.#act()
        else {
          const input = this.#inputs.shift()
          if (input === undefined) break
          const [state, ...actions] = input(this.#state)
          this.#state = state
          this.#actions.push(...actions)
        }
      }
    } catch (cause) {
      this.#finish(Effect.die(cause))
    } finally {
      this.#isPlaying = false
    }
    if (this.#inputs.length < maximumInputs) {
      this.#room.wake()
      if (!this.#isReading && !this.#isOver && this.#connection.receive !== undefined) this.#read()
    }
  }

  /** Performs the first action, and with a message all messages that follow it. */
  #act(): void {
    const action = this.#actions.shift()!
    if (action instanceof Uint8Array) this.#write(action)
    else if (action._tag === "Wait") {
      const millis = Duration.toMillis(action.duration)
      if (millis > 0) this.#pause((resume) => this.#later(millis, resume))
    } else if (action._tag === "Close") this.#finish(this.#connection.close)
    else if (action._tag === "Destroy") this.#finish(this.#connection.destroy)
    else {
      const messages: Array<Wire.Message> = [action]
      for (let next = this.#actions[0]; next !== undefined && isMessage(next); next = this.#actions[0]) {
        messages.push(next)
        this.#actions.shift()
      }
      this.#write(Result.getOrThrow(Wire.encodeFrames(this.#magic, messages)))
    }
  }

  #write(bytes: Uint8Array): void {
    if (this.#connection.write(bytes) < maximumUnsent) return
    this.#pause((resume) => this.#fork(Effect.ignore(Effect.andThen(this.#connection.drained, Effect.sync(resume)))))
  }

  #pause(until: (resume: () => void) => void): void {
    this.#isPaused = true
    until(() => {
      this.#isPaused = false
      this.#play()
    })
  }

  #later(millis: number, run: () => void): void {
    const cancel = startTimer(this.#context, millis, () => {
      this.#cancels.delete(cancel)
      run()
    })
    this.#cancels.add(cancel)
  }

  #fork(effect: Effect.Effect<void>): void {
    const fiber = Effect.runForkWith(this.#context)(effect)
    const cancel = (): void => fiber.interruptUnsafe()
    this.#cancels.add(cancel)
    fiber.addObserver(() => this.#cancels.delete(cancel))
  }

  #finish(ending: Ending): void {
    if (this.#isOver) return
    this.stop()
    this.#end(ending)
  }
}
