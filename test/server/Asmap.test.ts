/** Maps of autonomous systems: Bitcoin Core's checks, lookups in its own maps, and maps that are cut or damaged. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import { flawOf, walk } from "../../src/server/internal/asmapWalk.ts"
import * as Asmap from "../../src/server/Asmap.ts"
import { dice } from "../support/dice.ts"
import { readVector, readVectorText } from "../support/vectors.ts"

const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))
const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "hex"))

/** A number in unary classes of these sizes. */
const numberOf = (value: number, minimum: number, sizes: ReadonlyArray<number>): string => {
  let place = value - minimum
  for (const [index, size] of sizes.entries()) {
    const isLast = index === sizes.length - 1
    if (place < 2 ** size) return "1".repeat(index) + (isLast ? "" : "0") + place.toString(2).padStart(size, "0")
    place -= 2 ** size
  }
  return assert.fail(`${value} does not fit`)
}
const sizes = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index)

const ret = (system: number) => "0" + numberOf(system, 1, sizes(15, 24))
const jump = (distance: number) => "10" + numberOf(distance, 17, sizes(5, 30))
const byDefault = (system: number) => "111" + numberOf(system, 1, sizes(15, 24))
/** The bits of the address, such as "0101". */
const match = (bits: string) => "110" + numberOf(parseInt(`1${bits}`, 2), 2, sizes(1, 8))
/** The next bit of the address decides between two parts. */
const branch = (zero: string, one: string) => jump(zero.length) + zero + one

const bytesOf = (...instructions: ReadonlyArray<string>): Uint8Array => {
  const bits = instructions.join("")
  const bytes = new Uint8Array(Math.ceil(bits.length / 8))
  for (const [index, bit] of Array.from(bits).entries()) if (bit === "1") bytes[index >> 3]! |= 1 << (index & 7)
  return bytes
}
const bytesMatched = (count: number) => match("00000000").repeat(count)
const problemOf = (...instructions: ReadonlyArray<string>) => flawOf(bytesOf(...instructions))?.problem

const core = readVector("core/asmap.raw")
const written = JSON.parse(readVectorText("core/asmap.json")) as ReadonlyArray<{
  readonly map: string
  readonly valid: boolean
  readonly lookups: ReadonlyArray<readonly [address: string, system: number]>
}>

describe("Asmap.lookup", () => {
  const map = Result.getOrThrow(Asmap.parse(core))
  const lookup = (text: string) => map.lookup(host(text))

  it("finds the systems of the map of Core's unit tests", () => {
    assert.strictEqual(lookup("250.1.1.1"), 1000)
    assert.strictEqual(lookup("250.255.0.9"), 1000)
    for (let system = 1; system <= 8; system++) assert.strictEqual(lookup(`101.${system}.0.1`), system)
    // Core finds the same: the map reads only as many bits as it needs to tell its systems apart.
    assert.strictEqual(lookup("101.9.0.1"), 8)
    assert.isUndefined(lookup("8.8.8.8"))
  })

  it("finds an IPv4 address where it is tunnelled through IPv6", () => {
    assert.strictEqual(lookup("::ffff:101.3.0.1"), 3)
    assert.strictEqual(lookup("2002:6503:1::1"), 3) // 6to4
    assert.strictEqual(lookup("64:ff9b::6503:1"), 3) // NAT64
    assert.strictEqual(lookup("::ffff:0:6503:1"), 3) // SIIT
    assert.strictEqual(lookup("2001:0:1:2:3:4:9afc:fffe"), 3) // Teredo: inverted
    assert.strictEqual(map.lookup({ networkId: 2, address: Address.toBytes(host("101.3.0.1"))! }), 3)
  })

  it("has no system for hosts of other networks, and for those that are not routable", () => {
    const everything = Result.getOrThrow(Asmap.parse(bytesOf(ret(9))))
    assert.strictEqual(everything.lookup(host("8.8.8.8")), 9)
    assert.strictEqual(everything.lookup(host("2a01::1")), 9)
    for (const text of ["10.0.0.1", "127.0.0.1", "::1", "fe80::1", "fc00::1", "0.0.0.0"]) {
      assert.isUndefined(everything.lookup(host(text)), text)
    }
    assert.isUndefined(everything.lookup({ networkId: Address.NetworkId.torV3, address: new Uint8Array(32) }))
    assert.isUndefined(everything.lookup({ networkId: Address.NetworkId.i2p, address: new Uint8Array(32) }))
    const internal = { networkId: 2, address: hex("fd6b88c087240000000000000000cafe") }
    assert.isUndefined(everything.lookup(internal))
  })

  it("reads numbers of every class, and patterns from the highest bit of an address on", () => {
    const edges = [1, 2 ** 15, 2 ** 15 + 1, 98_304, 98_305, 4_200_000, 2 ** 24 + 1_000]
    for (const system of edges) assert.strictEqual(walk(bytesOf(ret(system)), new Uint8Array(16)), system)
    const map = bytesOf(byDefault(5), match("0010"), match("10100000"), branch(ret(6), ret(7)))
    assert.isUndefined(flawOf(map))
    const system = (address: string) => walk(map, hex(address.padEnd(32, "0")))
    assert.strictEqual(system("2a00"), 6)
    assert.strictEqual(system("2a08"), 7)
    assert.strictEqual(system("2a10"), 5)
    assert.strictEqual(system("3a00"), 5)
  })

  it("gives what Core's interpreter gives", () => {
    let lookups = 0
    for (const { lookups: found, map } of written) {
      for (const [address, system] of found) {
        assert.strictEqual(walk(hex(map), hex(address)), system, `${map} ${address}`)
        lookups++
      }
    }
    assert.strictEqual(lookups, 384)
  })

  it("has the version that Core writes into its peers.dat, the double SHA-256 of the file", () => {
    // By Core's feature_asmap.py, in the order of bytes in which Core prints hashes.
    const printed = Buffer.from(map.version.toReversed()).toString("hex")
    assert.strictEqual(printed, "bafc9da308f45179443bd1d22325400ac9104f741522d003e3fac86700f68895")
  })
})

describe("The check of a map", () => {
  it("decides as Core's SanityCheckAsmap", () => {
    assert.isUndefined(flawOf(core))
    for (const { map, valid } of written) assert.strictEqual(flawOf(hex(map)) === undefined, valid, map)
    assert.strictEqual(written.filter(({ valid }) => valid).length, 96)
  })

  it("wants every path to end in a RETURN", () => {
    assert.strictEqual(problemOf(), "Incomplete")
    assert.strictEqual(problemOf(byDefault(1)), "Incomplete")
    assert.strictEqual(problemOf(match("1")), "Incomplete")
    assert.strictEqual(problemOf(jump(17), ret(1), byDefault(1)), "Incomplete")
  })

  it("wants jumps to nest, to stay inside, and to lead to an instruction", () => {
    assert.isUndefined(problemOf(branch(branch(ret(1), ret(2)), ret(3))))
    assert.strictEqual(problemOf(jump(200), ret(1), ret(2)), "JumpTooFar")
    // The inner jump leads to where the outer one leads, and beyond it.
    assert.strictEqual(problemOf(jump(42), jump(34), ret(1), ret(2), ret(3)), "JumpsCross")
    assert.strictEqual(problemOf(jump(25), jump(34), ret(1), ret(2), ret(3)), "JumpsCross")
    assert.strictEqual(problemOf(jump(18), byDefault(1), ret(1), ret(1)), "JumpInside")
    assert.strictEqual(problemOf(jump(18), match("11"), ret(2), ret(3)), "JumpInside")
  })

  it("wants no instruction that nothing leads to", () => {
    assert.strictEqual(problemOf(jump(34), ret(1), ret(2), ret(3)), "Unreachable")
    assert.strictEqual(problemOf(ret(1), ret(2)), "BadPadding")
  })

  it("wants no path that reads more than 128 bits of an address", () => {
    assert.isUndefined(problemOf(bytesMatched(16), ret(1)))
    assert.isUndefined(problemOf(bytesMatched(15), match("0000000"), branch(ret(1), ret(2))))
    assert.strictEqual(problemOf(bytesMatched(16), match("0"), ret(1)), "TooManyBits")
    assert.strictEqual(problemOf(bytesMatched(16), branch(ret(1), ret(2))), "TooManyBits")
    // A branch takes its bit on both sides.
    const deep = `${bytesMatched(15)}${match("0000000")}`
    assert.strictEqual(problemOf(deep, branch(ret(1), match("0") + ret(2))), "TooManyBits")
    assert.strictEqual(problemOf(deep, branch(match("0") + ret(2), ret(1))), "TooManyBits")
  })

  it("wants no DEFAULT right before a RETURN or another DEFAULT", () => {
    assert.isUndefined(problemOf(byDefault(1), match("1"), ret(2)))
    assert.strictEqual(problemOf(byDefault(1), ret(2)), "UselessDefault")
    assert.strictEqual(problemOf(byDefault(1), byDefault(2), match("1"), ret(2)), "UselessDefault")
    // The first instruction of the other side of a branch comes after the jump.
    assert.isUndefined(problemOf(branch(ret(1), byDefault(1) + match("1") + ret(2))))
  })

  it("wants no two short patterns one after the other, as Core, which accepts a long one between them", () => {
    assert.isUndefined(problemOf(match("11111111"), match("1"), ret(1)))
    assert.isUndefined(problemOf(match("1"), match("11111111"), match("1"), ret(1)))
    assert.isUndefined(problemOf(match("1"), byDefault(2), match("1"), ret(1)))
    assert.strictEqual(problemOf(match("1"), match("1"), ret(1)), "SplitMatch")
    assert.strictEqual(problemOf(match("1111111"), match("1111111"), ret(1)), "SplitMatch")
  })

  it("wants at most 7 bits after the last RETURN, all of them 0", () => {
    assert.isUndefined(flawOf(bytesOf(ret(1))))
    assert.isUndefined(flawOf(bytesOf(ret(1), "0000000")))
    assert.strictEqual(problemOf(ret(1), "00000000"), "BadPadding")
    assert.strictEqual(problemOf(ret(1), "1"), "BadPadding")
    assert.strictEqual(problemOf(ret(1), "0000001"), "BadPadding")
  })

  it("says what is wrong, and at which bit", () => {
    const error = Result.getOrThrow(Result.flip(Asmap.parse(core.subarray(0, 20))))
    assert.deepStrictEqual([error._tag, error.problem, error.bit], ["AsmapError", "Incomplete", 144])
    assert.strictEqual(
      error.message,
      "the map of autonomous systems is unusable: the file ends before the map does (bit 144)"
    )
  })
})

describe("A damaged map", () => {
  /** The first bits of a map; the other bits of the last byte are 0. */
  const cut = (bytes: Uint8Array, bits: number): Uint8Array => {
    const part = bytes.slice(0, Math.ceil(bits / 8))
    if (bits % 8 !== 0) part[part.length - 1]! &= (1 << (bits % 8)) - 1
    return part
  }

  it("is refused wherever it is cut, and a walk through it ends", () => {
    const maps = [core, ...written.filter(({ valid }) => valid).map(({ map }) => hex(map))]
    const random = dice(1)
    for (const map of maps) {
      for (let bits = map.length * 8 - 1; bits >= 0; bits--) {
        const part = cut(map, bits)
        if (!(walk(part, random.bytes(16)) >= 0)) assert.fail(`ran off when cut at ${bits}`)
        // What is left of the last byte is padding, or can be.
        if (part.length < map.length && flawOf(part) === undefined) assert.fail(`accepted when cut at ${bits}`)
      }
    }
  })

  it("that reads more than 128 bits of an address gives no system", () => {
    const zeros = new Uint8Array(16)
    assert.strictEqual(walk(bytesOf(bytesMatched(16), ret(9)), zeros), 9)
    assert.strictEqual(walk(bytesOf(bytesMatched(16), branch(ret(1), ret(2))), zeros), 0)
    assert.strictEqual(walk(bytesOf(byDefault(3), bytesMatched(16), match("0"), ret(1)), zeros), 0)
    assert.strictEqual(walk(bytesOf(bytesMatched(15), match("0000000"), match("00"), ret(1)), zeros), 0)
  })

  it("of random bytes neither throws nor runs off", () => {
    const random = dice(2)
    for (let round = 0; round < 2_000; round++) {
      const bytes = random.bytes(random.below(60))
      const system = walk(bytes, random.bytes(16))
      if (flawOf(bytes) === undefined) assert.isAbove(system + 1, 0)
      assert.isBelow(system, 2 ** 26)
    }
  })

  it("leads every address to a result once it passed the check", () => {
    const random = dice(3)
    let accepted = 0
    for (let round = 0; round < 20_000; round++) {
      const bytes = hex(random.pick(written).map)
      const bit = random.below(bytes.length * 8)
      bytes[bit >> 3]! ^= 1 << (bit & 7)
      if (flawOf(bytes) !== undefined) continue
      accepted++
      // A walk that runs off returns 0 as well, so the map is extended by a RETURN of 77 that a good map never reaches.
      const longer = Uint8Array.of(...bytes, ...bytesOf(ret(77)), 0, 0, 0, 0)
      for (let n = 0; n < 3; n++) {
        const address = random.bytes(16)
        assert.strictEqual(walk(longer, address), walk(bytes, address))
      }
    }
    assert.isAbove(accepted, 1_000)
  })
})

describe("Asmap.groups", () => {
  const groupOf = Asmap.groups(Result.getOrThrow(Asmap.parse(core)))

  it("has one group for each system, with the class of IPv6 and the number in little-endian order", () => {
    assert.deepStrictEqual(groupOf(host("250.1.1.1")), Uint8Array.of(2, 0xe8, 3, 0, 0))
    assert.deepStrictEqual(groupOf(host("250.9.1.1")), Uint8Array.of(2, 0xe8, 3, 0, 0))
    const large = Asmap.groups(Result.getOrThrow(Asmap.parse(bytesOf(ret(0x0102_0304)))))
    assert.deepStrictEqual(large(host("1.2.3.4")), Uint8Array.of(2, 4, 3, 2, 1))
    assert.deepStrictEqual(large(host("2a01::1")), Uint8Array.of(2, 4, 3, 2, 1))
  })

  it("has none for a host that the map does not have", () => {
    assert.isUndefined(groupOf(host("8.8.8.8")))
    assert.isUndefined(groupOf(host("10.0.0.1")))
    assert.isUndefined(groupOf({ networkId: Address.NetworkId.torV3, address: new Uint8Array(32) }))
  })
})

describe("Asmap.health", () => {
  it("counts mapped and unmapped addresses and the systems, of IPv4 and IPv6 alone", () => {
    const map = Result.getOrThrow(Asmap.parse(core))
    const hosts = ["250.1.1.1", "250.2.2.2", "101.1.0.1", "8.8.8.8", "2a01::1", "192.168.0.1", "fc00::1"].map(host)
    assert.deepStrictEqual(Asmap.health(map, hosts), { mapped: 3, unmapped: 2, systems: 2 })
    assert.deepStrictEqual(Asmap.health(map, []), { mapped: 0, unmapped: 0, systems: 0 })
  })
})
