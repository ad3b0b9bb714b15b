/**
 * The files of a server: the address book, the bans, and the anchors. A file that cannot be read is set aside and never keeps the server
 * from starting.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import type { Network } from "../../Network.ts"
import type { AddressV2 } from "../../Wire.ts"
import * as AddressBook from "../AddressBook.ts"
import type { BanList } from "../BanList.ts"
import type { ServerEvent } from "../ServerEvent.ts"
import type { Store } from "../Store.ts"

const peersFile = "peers.dat"
const bansFile = "banlist.json"
const anchorsFile = "anchors.dat"

/** A loss of power costs the book at most this. */
const saveInterval = Duration.minutes(15)
/** The end of a server does not wait longer for its files. */
const longestStop = Duration.seconds(5)

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
    return Effect.catch(Effect.map(this.#options.store.load(name), Option.getOrUndefined), (error) =>
      Effect.as(this.#warn(error.message), undefined)
    )
  }

  /** Keeps a damaged file for the operator, under another name. */
  #setAside(name: string, problem: string): Effect.Effect<void> {
    return Effect.matchEffect(this.#options.store.quarantine(name), {
      onSuccess: (newName) => this.#warn(`${name} ${problem}; it is kept as ${newName}`),
      onFailure: (error) => this.#warn(`${name} ${problem}; ${error.message}`)
    })
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
    return Effect.catch(Effect.as(this.#options.store.save(name, bytes), true), (error) =>
      Effect.as(this.#warn(error.message), false)
    )
  }

  get #saveBans(): Effect.Effect<boolean> {
    const { bans, now } = this.#options
    return this.#bansTurn.withPermit(Effect.suspend(() => this.#save(bansFile, bans.encode(now()))))
  }

  /** Writes all files. */
  saveAll(book: AddressBook.Book, anchors: ReadonlyArray<AddressV2>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { emit, network } = this.#options
      return Effect.flatMap(
        Effect.all([
          this.#save(peersFile, book.serialize()),
          this.#saveBans,
          this.#save(anchorsFile, AddressBook.encodeAnchors(anchors, network))
        ]),
        (saved) => Effect.sync(() => (saved.every(Boolean) ? emit({ _tag: "Persisted" }) : undefined))
      )
    })
  }

  /** Saves the bans at each change, and all files every 15 minutes, for ever; all files once more at the end of the scope. */
  run(book: AddressBook.Book, anchors: () => ReadonlyArray<AddressV2>) {
    return Effect.gen({ self: this }, function* () {
      const stop = this.#options.bans.onChange((change) => {
        if (change._tag !== "Expired") this.#bansChanged.openUnsafe()
      })
      const all = Effect.suspend(() => this.saveAll(book, anchors()))
      const bansSaved = Effect.gen({ self: this }, function* () {
        yield* this.#bansChanged.await
        this.#bansChanged.closeUnsafe()
        yield* this.#saveBans
      })
      yield* Effect.addFinalizer(() =>
        Effect.andThen(Effect.sync(stop), Effect.ignore(Effect.timeout(Effect.interruptible(all), longestStop)))
      )
      // A save that has begun is finished.
      yield* Effect.forkScoped(
        Effect.forever(Effect.andThen(this.#bansChanged.await, Effect.uninterruptible(bansSaved)))
      )
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(saveInterval), Effect.uninterruptible(all))))
    })
  }
}
