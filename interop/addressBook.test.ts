/** The address book and Bitcoin Core: each reads the `peers.dat` of the other, and has every address at the same place. */
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { Address, Network, type Wire } from "../src/index.ts"
import * as AddressBook from "../src/server/AddressBook.ts"
import { dice } from "../test/support/dice.ts"
import { randomOf } from "../test/support/books.ts"
import * as Bitcoind from "./bitcoind.ts"
import { temporaryDirectory } from "./daemon.ts"

const options = { network: Network.regtest, random: randomOf(1) }
const services = 1_033n

/** Addresses of all networks. Those of CJDNS are known to Core only with an option. */
const addresses = (seed: number, count: number): ReadonlyArray<Address.Address> => {
  const random = dice(seed)
  return Array.from({ length: count }, (_, i): Address.Address => {
    const port = 8_333 + (i % 3)
    switch (i % 10) {
      case 0:
        return { networkId: Address.NetworkId.torV3, address: random.bytes(32), port }
      case 1:
        return { networkId: Address.NetworkId.i2p, address: random.bytes(32), port: 0 }
      case 2:
        return { networkId: Address.NetworkId.cjdns, address: random.bytes(16).with(0, 0xfc), port }
      case 3:
      case 4:
        return { networkId: Address.NetworkId.ipv6, address: random.bytes(16).with(0, 0x2a), port }
      default:
        return { networkId: Address.NetworkId.ipv4, address: random.bytes(4).with(0, 20 + random.below(70)), port }
    }
  })
}

const told = (address: Address.Address, now: number): Wire.AddressV2 => ({
  ...address,
  services,
  timestamp: Math.floor(now / 1_000) - 3_600
})

const cjdns = ["-cjdnsreachable"]

describe.skipIf(Bitcoind.program === undefined)("Bitcoin Core and AddressBook", () => {
  it.live("Core starts from our peers.dat, and has every address where we have it", () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryDirectory("address-book")
      const random = dice(5)
      const now = Date.now()
      const book = AddressBook.make({ ...options, key: random.bytes(32) })
      const all = addresses(1, 3_000)
      for (const [i, address] of all.entries()) {
        const source = random.pick(all)
        book.add([told(address, now)], source, now)
        // The same address from other sources: more places.
        for (let j = 0; j < i % 4; j++) {
          book.add(
            [{ ...told(address, now), timestamp: Math.floor(now / 1_000) - 3_500 + 10 * j }],
            random.pick(all),
            now
          )
        }
        if (i % 3 === 0) book.good(address, now)
      }
      assert.isUndefined(book.check())
      yield* Effect.promise(async () => {
        await mkdir(join(prefix, "regtest"))
        await writeFile(join(prefix, "regtest", "peers.dat"), book.serialize())
      })

      const node = yield* Bitcoind.start({ prefix, args: [...cjdns, "-checkaddrman=1"] })
      assert.deepStrictEqual(yield* node.rpc("getrawaddrman"), book.entries() as unknown)
      assert.deepStrictEqual(yield* node.rpc("getaddrmaninfo"), book.stats() as unknown)
      const known = (yield* node.rpc("getnodeaddresses", 0)) as ReadonlyArray<{ readonly address: string }>
      const ours = book.getAddresses(now)
      assert.deepStrictEqual(
        known.map(({ address }) => address).toSorted(),
        ours.map((address) => Address.formatHost(address)).toSorted()
      )
      // As json they are the same objects.
      const [first] = known
      const exported = JSON.parse(new TextDecoder().decode(book.exportAs("json"))) as ReadonlyArray<typeof first>
      assert.deepInclude(exported, first)
      yield* node.stop
      // Core writes the entries in an order of its own.
      const written = new Uint8Array(yield* Effect.promise(() => readFile(join(prefix, "regtest", "peers.dat"))))
      const again = Result.getOrThrow(AddressBook.parse(written, now, options))
      assert.deepStrictEqual([again.damage, again.lost], [undefined, 0])
      assert.deepStrictEqual(again.book.entries(), book.entries())
      assert.strictEqual(written.length, book.serialize().length)
    })
  )

  it.live("our book has every address where Core has it, and gives its file back byte for byte", () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryDirectory("address-book")
      const node = yield* Bitcoind.start({ prefix, args: cjdns })
      for (const [i, address] of addresses(2, 400).entries()) {
        yield* node.rpc("addpeeraddress", Address.formatHost(address), address.port, i % 2 === 0)
      }
      const raw = yield* node.rpc("getrawaddrman")
      yield* node.stop
      const bytes = new Uint8Array(yield* Effect.promise(() => readFile(join(prefix, "regtest", "peers.dat"))))
      const { book, damage, lost } = Result.getOrThrow(AddressBook.parse(bytes, Date.now(), options))
      assert.deepStrictEqual([damage, lost], [undefined, 0])
      assert.isAbove(book.stats().cjdns.total, 20)
      assert.deepStrictEqual(book.entries() as unknown, raw)
      assert.deepStrictEqual(book.serialize(), bytes)
      assert.isUndefined(book.check())
    })
  )

  it.live("agree, with the same key, on where addresses go that both are told", () =>
    Effect.gen(function* () {
      const prefix = yield* temporaryDirectory("address-book")
      const now = Date.now()
      const ours = AddressBook.make({ ...options, key: dice(7).bytes(32) })
      yield* Effect.promise(async () => {
        await mkdir(join(prefix, "regtest"))
        await writeFile(join(prefix, "regtest", "peers.dat"), ours.serialize())
      })
      const node = yield* Bitcoind.start({ prefix, args: cjdns })
      // addpeeraddress tells of an address by itself, and fails where its place is taken.
      for (const [i, address] of addresses(3, 600).entries()) {
        const isTried = i % 2 === 0
        const { success } = (yield* node.rpc("addpeeraddress", Address.formatHost(address), address.port, isTried)) as {
          readonly success: boolean
        }
        const added = ours.add([told(address, now)], address, now) > 0
        assert.strictEqual(added && (!isTried || ours.good(address, now)), success, Address.format(address))
      }
      const raw = (yield* node.rpc("getrawaddrman")) as AddressBook.RawEntries
      const placed = ({ new: ofNew, tried }: AddressBook.RawEntries): ReadonlyArray<string> =>
        [
          ...Object.entries(ofNew).map(([place, entry]) => `new ${place} ${entry.address} ${entry.port}`),
          ...Object.entries(tried).map(([place, entry]) => `tried ${place} ${entry.address} ${entry.port}`)
        ].toSorted()
      assert.deepStrictEqual(placed(ours.entries()), placed(raw))
    })
  )
})
