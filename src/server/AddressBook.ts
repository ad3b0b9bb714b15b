/**
 * The address book of a node: it stores the addresses of other nodes with the results of dialling them, chooses the next one to dial, and
 * answers `getaddr`. It is Bitcoin Core's address manager (addrman): the same new and tried tables, the same buckets and positions for the
 * same key, and the same file `peers.dat`.
 *
 * `make` makes a plain object (`Book`), whose methods are synchronous and take the time as a parameter. The service `AddressBook` wraps it
 * for programs and reads the Clock.
 *
 * @example
 * ```ts
 * import { Effect, Option, Result } from "effect"
 * import { Address, Network } from "effect-bitcoin-peer"
 * import * as AddressBook from "effect-bitcoin-peer/server/AddressBook"
 *
 * const program = Effect.gen(function*() {
 *   const book = yield* AddressBook.AddressBook
 *   yield* book.importFrom(new TextEncoder().encode("8.8.8.8:8333\n9.9.9.9"), "lines")
 *   const source = Result.getOrThrow(Address.parseHost("7.7.7.7"))
 *   const told = { ...Result.getOrThrow(Address.parse("1.2.3.4:8333")), services: 9n, timestamp: 1_700_000_000 }
 *   yield* book.add([told], source)
 *   const next = Option.getOrThrow(yield* book.select())
 *   console.log(Address.format(next.address)) // one of the three
 * }).pipe(Effect.provide(AddressBook.layerMemory({ network: Network.mainnet })))
 *
 * Effect.runSync(program)
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Address from "../Address.ts"
import type { Network } from "../Network.ts"
import type { AddressV2 } from "../Wire.ts"
import * as AnchorsDat from "./internal/book/anchorsDat.ts"
import {
  type AddressBookError,
  type Book,
  type Format,
  type GetOptions,
  type Imported,
  type List,
  type Options,
  type Parsed,
  type RawEntries,
  type Requester,
  type Selected,
  type SelectOptions,
  type Stats
} from "./internal/book/models.ts"
import * as PeersDat from "./internal/book/peersDat.ts"
import { encodeList as encode, fail, readList, unreadable } from "./internal/book/lists.ts"
import { fromTables } from "./internal/book/plain.ts"
import { Tables } from "./internal/book/tables.ts"
import { bytesOf, makeRandom } from "./internal/random.ts"

export {
  AddressBookError,
  type AddressBookReason,
  type Book,
  type Count,
  type Entry,
  type Format,
  type GetOptions,
  type Imported,
  type List,
  type ListedAddress,
  type Options,
  type Parsed,
  type RawEntries,
  type RawEntry,
  type Requester,
  type Selected,
  type SelectOptions,
  type Stats
} from "./internal/book/models.ts"

export type { Random } from "./internal/random.ts"

const keySize = 32

/**
 * Makes an empty book.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Book =>
  fromTables(new Tables({ ...options, key: options.key ?? bytesOf(options.random, keySize) }), options)

/**
 * Reads a book from `peers.dat`. The key is in the file, so each address keeps its bucket and position. From a damaged file all readable
 * addresses are taken: see `Parsed`. Fails if none can be read, or if the file is of another network or version. `now` is in milliseconds
 * since 1970.
 *
 * @example
 * ```ts
 * import { Network } from "effect-bitcoin-peer"
 * import * as AddressBook from "effect-bitcoin-peer/server/AddressBook"
 *
 * const random = { next: Math.random, below: (bound: number) => Math.floor(Math.random() * bound) } // in a program: from SecureRandom
 * const options = { network: Network.mainnet, random }
 * const parsed = AddressBook.parse(AddressBook.make(options).serialize(), Date.now(), options)
 * console.log(parsed) // { _tag: "Success", success: { book, lost: 0, damage: undefined } }
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const parse = (
  bytes: Uint8Array,
  now: number,
  options: Omit<Options, "key">
): Result.Result<Parsed, AddressBookError> => {
  const restored = PeersDat.restore(bytes, options.network.magic, { ...options, now })
  if ("_tag" in restored) return Result.fail(unreadable(restored))
  const { damage, lost, tables } = restored
  return Result.succeed({ book: fromTables(tables, options), lost, damage })
}

/**
 * The file `anchors.dat` of Bitcoin Core: the block-relay peers of the last run, to which the next one connects first.
 *
 * @category encoding
 * @since 0.1.0
 */
export const encodeAnchors = (anchors: ReadonlyArray<AddressV2>, network: Network): Uint8Array =>
  AnchorsDat.write(anchors, network.magic)

/**
 * The addresses of an `anchors.dat`, without those of unknown networks. Fails for a damaged file, as in Core, and returns no part of it:
 * an anchor must be a peer of the last run.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeAnchors = (
  bytes: Uint8Array,
  network: Network
): Result.Result<ReadonlyArray<AddressV2>, AddressBookError> => {
  const anchors = AnchorsDat.read(bytes, network.magic)
  return typeof anchors === "string"
    ? Result.fail(fail("anchors.dat", { _tag: "Unreadable", problem: anchors }))
    : Result.succeed(anchors)
}

/**
 * The addresses in a file of any format, in the order of the file. To add them to a book, use `Book.importFrom`. Entries without a time
 * count as seen five days before `now`, which is in milliseconds since 1970.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeList = (
  bytes: Uint8Array,
  format: Format,
  options: { readonly network: Network; readonly now: number }
): Result.Result<List, AddressBookError> => readList(bytes, format, options.network, options.now)

/**
 * A list of addresses as text: `json` as `getnodeaddresses` of Bitcoin Core prints it, or one address per line.
 *
 * @category encoding
 * @since 0.1.0
 */
export const encodeList = (addresses: ReadonlyArray<AddressV2>, format: "json" | "lines"): Uint8Array =>
  encode(addresses, format)

// ---- the service

/**
 * The address book as a service. Each method is the one of `Book` with the same name, at the time of the Clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface AddressBook {
  /** The plain object, for code that must not wait. */
  readonly book: Book
  readonly add: (addresses: Iterable<AddressV2>, source: Address.Host, penalty?: number) => Effect.Effect<number>
  readonly attempt: (address: Address.Address, countFailure: boolean) => Effect.Effect<void>
  readonly good: (address: Address.Address) => Effect.Effect<boolean>
  readonly connected: (address: Address.Address) => Effect.Effect<void>
  readonly setServices: (address: Address.Address, services: bigint) => Effect.Effect<void>
  readonly select: (options?: SelectOptions) => Effect.Effect<Option.Option<Selected>>
  readonly collision: Effect.Effect<Option.Option<Selected>>
  readonly resolveCollisions: Effect.Effect<void>
  readonly getAddresses: (options?: GetOptions) => Effect.Effect<ReadonlyArray<AddressV2>>
  readonly answer: (
    requester: Requester,
    isExcluded?: (address: Address.Address) => boolean
  ) => Effect.Effect<ReadonlyArray<AddressV2>>
  readonly stats: Effect.Effect<Stats>
  readonly entries: Effect.Effect<RawEntries>
  readonly exportAs: (format: Format) => Effect.Effect<Uint8Array>
  readonly importFrom: (bytes: Uint8Array, format: Format) => Effect.Effect<Imported, AddressBookError>
}

/**
 * The key of the service `AddressBook` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const AddressBook: Context.Service<AddressBook, AddressBook> = Context.Service<AddressBook>(
  "effect-bitcoin-peer/server/AddressBook"
)

const at = <A>(act: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, act)

/**
 * The service around a book.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromBook = (book: Book): AddressBook => {
  return {
    book,
    add: (addresses, source, penalty) => at((now) => book.add(addresses, source, now, penalty)),
    attempt: (address, countFailure) => at((now) => book.attempt(address, countFailure, now)),
    good: (address) => at((now) => book.good(address, now)),
    connected: (address) => at((now) => book.connected(address, now)),
    setServices: (address, services) => Effect.sync(() => book.setServices(address, services)),
    select: (options) => at((now) => Option.fromUndefinedOr(book.select(now, options))),
    collision: Effect.sync(() => Option.fromUndefinedOr(book.collision())),
    resolveCollisions: at((now) => book.resolveCollisions(now)),
    getAddresses: (options) => at((now) => book.getAddresses(now, options)),
    answer: (requester, isExcluded) => at((now) => book.answer(requester, now, isExcluded)),
    stats: Effect.sync(() => book.stats()),
    entries: Effect.sync(() => book.entries()),
    exportAs: (format) => Effect.sync(() => book.exportAs(format)),
    importFrom: (bytes, format) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fromResult(book.importFrom(bytes, format, now)))
  }
}

/**
 * An empty book in memory, with a `SecureRandom` that the caller provides.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryNoDeps = (
  options: Omit<Options, "random">
): Layer.Layer<AddressBook, never, SecureRandom.SecureRandom> =>
  Layer.effect(
    AddressBook,
    Effect.gen(function* () {
      const { randomBytes } = yield* SecureRandom.SecureRandom
      const key = options.key ?? (yield* randomBytes(keySize))
      return fromBook(make({ ...options, key, random: makeRandom(yield* randomBytes(16)) }))
    })
  )

/**
 * An empty book in memory, with random numbers from the platform's `crypto.getRandomValues`. A server with this service uses it in place
 * of the `peers.dat` of its store, and saves it there.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options: Omit<Options, "random">): Layer.Layer<AddressBook> =>
  Layer.provide(layerMemoryNoDeps(options), SecureRandom.layerWebCrypto)
