/** Address books for tests, with the keys and times of Bitcoin Core's tests. */
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import * as Network from "../../src/Network.ts"
import type { AddressV2 } from "../../src/Wire.ts"
import * as AddressBook from "../../src/server/AddressBook.ts"
import { makeRandom, type Random } from "../../src/server/internal/random.ts"

/** The key of Core's deterministic address managers: the number 1. */
export const coreKey = Uint8Array.of(1, ...new Uint8Array(31))

/** Milliseconds. */
export const start = 1_700_000_000_000
export const minute = 60_000
export const hour = 60 * minute
export const day = 24 * hour

/** The time of an address in Core if nobody sets it, in seconds: older than any that is worth a place. */
export const unset = 100_000_000

export const randomOf = (seed: number): Random =>
  makeRandom(Uint8Array.from({ length: 16 }, (_, i) => seed >>> (i % 4)))

export const makeBook = (options: Partial<AddressBook.Options> = {}): AddressBook.Book =>
  AddressBook.make({ network: Network.regtest, key: coreKey, random: randomOf(1), ...options })

export const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))

/** An address as a peer tells it; `time` is in milliseconds. */
export const told = (text: string, time = unset * 1_000, services = 0n): AddressV2 => ({
  ...Result.getOrThrow(Address.parse(text)),
  timestamp: Math.floor(time / 1_000),
  services
})

export const textOf = (selected: { readonly address: Address.Address } | undefined): string | undefined =>
  selected && Address.format(selected.address)

/** The places of an address in a table. */
export const placesOf = (
  book: AddressBook.Book,
  table: "new" | "tried",
  { address: of, port }: { readonly address: string; readonly port: number }
): ReadonlyArray<string> =>
  Object.entries(book.entries()[table]).flatMap(([place, entry]) =>
    entry.address === of && entry.port === port ? [place] : []
  )
