/**
 * The files of a server: the address book, the bans, and the anchors. A file that cannot be read is set aside and never keeps the server
 * from starting.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import type { Network } from "../../Network.ts"
import type { AddressV2 } from "../../Wire.ts"
import * as AddressBook from "../AddressBook.ts"
import type { BanList } from "../BanList.ts"
import type { ServerEvent } from "../ServerEvent.ts"
import { type Store, StoreError } from "../Store.ts"

const peersFile = "peers.dat"
const bansFile = "banlist.json"
const anchorsFile = "anchors.dat"

/** A loss of power costs the book at most this. */
const saveInterval = Duration.minutes(15)
/** The end of a server does not wait longer for its files. */
const longestStop = Duration.seconds(5)

/** A save that has begun is finished, within the time that the end of a server has. */
const finished = (save: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.forkDetach(Effect.interruptible(save)), (fiber) =>
      Effect.onInterrupt(restore(Fiber.join(fiber)), () =>
        Effect.andThen(
          Effect.ignore(Effect.timeout(Effect.interruptible(Fiber.await(fiber)), longestStop)),
          Effect.sync(() => fiber.interruptUnsafe())
        )
      )
    )
  )

export interface PersistenceOptions {
  readonly store: Store
  readonly network: Network
  readonly bans: BanList
  readonly emit: (event: ServerEvent) => void
  readonly now: () => number
}

export class Persistence {
  readonly #options: PersistenceOptions
  readonly #bansChanged = Latch.makeUnsafe()
  /** From the look at the list until it is written: an older list never replaces a newer one. */
  readonly #bansTurn = Semaphore.makeUnsafe(1)

  constructor(options: PersistenceOptions) {
    this.#options = options
  }

  #warn(message: string): Effect.Effect<void> {
    return Effect.sync(() => this.#options.emit({ _tag: "Warning", message }))
  }

  #load(name: string): Effect.Effect<Uint8Array | undefined> {
    const loaded = Effect.map(
      Effect.suspend(() => this.#options.store.load(name)),
      Option.getOrUndefined
    )
    return Effect.catchCause(loaded, (cause) => this.#failed(`${name} cannot be loaded`, cause, undefined))
  }

  /** Tells a failure of the store, or a defect of it. An interruption stays one. */
  #failed<A>(what: string, cause: Cause.Cause<StoreError>, instead: A): Effect.Effect<A> {
    if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
    const error = Cause.squash(cause)
    const message = error instanceof StoreError ? error.message : `${what}: ${String(error)}`
    return Effect.as(this.#warn(message), instead)
  }

  /** Keeps a damaged file for the operator, under another name. */
  #setAside(name: string, problem: string): Effect.Effect<void> {
    return Effect.matchCauseEffect(
      Effect.suspend(() => this.#options.store.quarantine(name)),
      {
        onSuccess: (newName) => this.#warn(`${name} ${problem}; it is kept as ${newName}`),
        onFailure: (cause) =>
          Effect.andThen(
            this.#warn(`${name} ${problem}`),
            this.#failed(`${name} cannot be set aside`, cause, undefined)
          )
      }
    )
  }

  /** The book of the last run, or a new one. */
  loadBook(options: AddressBook.Options): Effect.Effect<AddressBook.Book> {
    return Effect.gen({ self: this }, function* () {
      const bytes = yield* this.#load(peersFile)
      if (bytes === undefined) return AddressBook.make(options)
      const parsed = AddressBook.parse(bytes, this.#options.now(), options)
      if (Result.isFailure(parsed)) {
        yield* this.#setAside(peersFile, parsed.failure.message)
        return AddressBook.make(options)
      }
      const { book, damage, lost } = parsed.success
      if (damage !== undefined) {
        yield* this.#setAside(peersFile, `is damaged: it ${damage}; ${book.size} addresses were read and ${lost} lost`)
      }
      return book
    })
  }

  get loadBans(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const bytes = yield* this.#load(bansFile)
      if (bytes === undefined) return
      const { damage, skipped } = this.#options.bans.load(bytes, this.#options.now())
      if (damage !== undefined) yield* this.#setAside(bansFile, `is damaged: ${damage}`)
      else if (skipped.length > 0) {
        yield* this.#setAside(bansFile, `has ${skipped.length} entries that are no bans`)
      }
    })
  }

  /**
   * The block-relay peers of the last run. The file is emptied at once: if one of them brings this process down, it is not dialled at the
   * next start.
   */
  get takeAnchors(): Effect.Effect<ReadonlyArray<AddressV2>> {
    return Effect.gen({ self: this }, function* () {
      const bytes = yield* this.#load(anchorsFile)
      if (bytes === undefined) return []
      const anchors = AddressBook.decodeAnchors(bytes, this.#options.network)
      if (Result.isFailure(anchors)) {
        yield* this.#setAside(anchorsFile, anchors.failure.message)
        return []
      }
      yield* this.#save(anchorsFile, AddressBook.encodeAnchors([], this.#options.network))
      return anchors.success
    })
  }

  #save(name: string, bytes: Uint8Array): Effect.Effect<boolean> {
    const saved = Effect.as(
      Effect.suspend(() => this.#options.store.save(name, bytes)),
      true
    )
    return Effect.catchCause(saved, (cause) => this.#failed(`${name} cannot be saved`, cause, false))
  }

  /** Writes the bans. False, with a warning, if that failed. */
  get saveBans(): Effect.Effect<boolean> {
    const { bans, now } = this.#options
    return this.#bansTurn.withPermit(Effect.suspend(() => this.#save(bansFile, bans.encode(now()))))
  }

  /** Writes all files; not the anchors if they are undefined. */
  saveAll(book: AddressBook.Book, anchors: ReadonlyArray<AddressV2> | undefined): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { emit, network } = this.#options
      return Effect.flatMap(
        Effect.all([
          this.#save(peersFile, book.serialize()),
          this.saveBans,
          anchors === undefined
            ? Effect.succeed(true)
            : this.#save(anchorsFile, AddressBook.encodeAnchors(anchors, network))
        ]),
        (saved) => Effect.sync(() => (saved.every(Boolean) ? emit({ _tag: "Persisted" }) : undefined))
      )
    })
  }

  /** Saves the bans at each change, and all files every 15 minutes, for ever; all files once more at the end of the scope. */
  run(book: AddressBook.Book, anchors: () => ReadonlyArray<AddressV2> | undefined) {
    return Effect.gen({ self: this }, function* () {
      const stop = this.#options.bans.onChange((change) => {
        if (change._tag !== "Expired") this.#bansChanged.openUnsafe()
      })
      const all = Effect.suspend(() => this.saveAll(book, anchors()))
      const bansSaved = Effect.gen({ self: this }, function* () {
        yield* this.#bansChanged.await
        this.#bansChanged.closeUnsafe()
        yield* this.saveBans
      })
      yield* Effect.addFinalizer(() =>
        Effect.andThen(Effect.sync(stop), Effect.ignore(Effect.timeout(Effect.interruptible(all), longestStop)))
      )
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(this.#bansChanged.await, finished(bansSaved))))
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(saveInterval), finished(all))))
    })
  }
}
