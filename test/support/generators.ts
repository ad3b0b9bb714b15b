/** Generators of legal messages, and helpers to encode, decode and compare messages. */
import * as Arbitrary from "effect/Arbitrary"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Wire from "../../src/Wire.ts"

export const integer = (minimum: number, maximum: number): Arbitrary.Arbitrary<number> =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

export const u32 = integer(0, 0xffffffff)
export const i32 = integer(-0x80000000, 0x7fffffff)
export const u64: Arbitrary.Arbitrary<bigint> = Arbitrary.map(
  Arbitrary.all([u32, u32]),
  ([high, low]) => (BigInt(high) << 32n) | BigInt(low)
)
const safeInteger = integer(-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
const boolean = Arbitrary.map(integer(0, 1), (bit) => bit === 1)

/** `size` bytes that depend on one number, so that shrinking makes all of them zero at once. */
const fill = (size: number, seed: number): Uint8Array => {
  let state = seed
  return Uint8Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + (seed === 0 ? 0 : 1013904223)) >>> 0
    return state >>> 24
  })
}

export const bytesOf = (size: number): Arbitrary.Arbitrary<Uint8Array> => Arbitrary.map(u32, (seed) => fill(size, seed))
export const bytes = (maximum: number, minimum = 0): Arbitrary.Arbitrary<Uint8Array> =>
  Arbitrary.map(Arbitrary.all([integer(minimum, maximum), u32]), ([size, seed]) => fill(size, seed))
const text = (maximum: number, minimum = 0): Arbitrary.Arbitrary<string> =>
  Arbitrary.map(bytes(maximum, minimum), (codes) => String.fromCharCode(...codes))
const list = <A>(item: Arbitrary.Arbitrary<A>, maxLength = 4): Arbitrary.Arbitrary<Array<A>> =>
  Arbitrary.array(item, { maxLength })
const oneOf = <A>(...of: ReadonlyArray<Arbitrary.Arbitrary<A>>): Arbitrary.Arbitrary<A> =>
  Arbitrary.flatMap(integer(0, of.length - 1), (index) => of[index])

const hash = bytesOf(32)
const networkAddress = Arbitrary.all({ services: u64, address: bytesOf(16), port: integer(0, 65535) })
/** The networks of BIP155 except Tor v2, and the sizes of their addresses. */
const networks = [1, 2, 4, 5, 6]
const sizes = [0, 4, 16, 10, 32, 32, 16]
const addressV2: Arbitrary.Arbitrary<Wire.AddressV2> = Arbitrary.flatMap(integer(0, 4), (index) => {
  const networkId = networks[index]!
  return Arbitrary.map(
    Arbitrary.all({ timestamp: u32, services: u64, address: bytesOf(sizes[networkId]), port: integer(0, 65535) }),
    // A first byte of 0x20 keeps an IPv6 address out of the ranges that embed other networks.
    (entry) => ({ ...entry, networkId, address: Uint8Array.of(0x20, ...entry.address.subarray(1)) })
  )
})
const item = Arbitrary.all({ type: u32, hash })
const header: Arbitrary.Arbitrary<Wire.BlockHeader> = Arbitrary.all({
  version: i32,
  previousBlock: hash,
  merkleRoot: hash,
  timestamp: u32,
  bits: u32,
  nonce: u32
})
const input = Arbitrary.all({
  previousOutput: Arbitrary.all({ txid: hash, index: u32 }),
  script: bytes(300),
  sequence: u32,
  witness: list(bytes(300), 3)
})
const output = Arbitrary.all({ value: safeInteger, script: bytes(300) })
export const transaction: Arbitrary.Arbitrary<Wire.Transaction> = Arbitrary.all({
  version: u32,
  inputs: Arbitrary.array(input, { minLength: 1, maxLength: 4 }),
  outputs: list(output),
  lockTime: u32
})

/** Pairs with ascending numbers, from pairs with distances. */
const rising = <A>(list: ReadonlyArray<readonly [number, A]>): Array<readonly [number, A]> => {
  let next = 0
  return list.map(([distance, value]) => {
    const index = next + distance
    next = index + 1
    return [index, value]
  })
}
const filterRange = Arbitrary.all({ filterType: integer(0, 255), startHeight: u32, stopHash: hash })

const tagged = <const Tag extends Wire.KnownMessage["_tag"], A>(
  _tag: Tag,
  fields: Arbitrary.Arbitrary<A>
): Arbitrary.Arbitrary<{ readonly _tag: Tag } & A> => Arbitrary.map(fields, (value) => ({ _tag, ...value }))
const nothing = Arbitrary.Constant({})

/** A generator for each message type that can be encoded. */
export const messages: {
  readonly [Tag in Exclude<Wire.Message["_tag"], "alert">]: Arbitrary.Arbitrary<
    Extract<Wire.Message, { readonly _tag: Tag }>
  >
} = {
  version: tagged(
    "version",
    Arbitrary.all({
      protocolVersion: i32,
      services: u64,
      timestamp: integer(0, Number.MAX_SAFE_INTEGER),
      receiver: networkAddress,
      sender: networkAddress,
      nonce: u64,
      userAgent: text(256),
      startHeight: i32,
      relay: boolean
    })
  ),
  verack: tagged("verack", nothing),
  wtxidrelay: tagged("wtxidrelay", nothing),
  sendaddrv2: tagged("sendaddrv2", nothing),
  sendheaders: tagged("sendheaders", nothing),
  sendcmpct: tagged("sendcmpct", Arbitrary.all({ announce: boolean, version: u64 })),
  feature: tagged("feature", Arbitrary.all({ id: text(80, 4), data: bytes(512) })),
  ping: tagged(
    "ping",
    Arbitrary.map(oneOf<bigint | undefined>(u64, Arbitrary.Constant(undefined)), (nonce) => ({ nonce }))
  ),
  pong: tagged("pong", Arbitrary.all({ nonce: u64 })),
  getaddr: tagged("getaddr", nothing),
  addr: tagged(
    "addr",
    Arbitrary.all({
      addresses: list(
        Arbitrary.all({ timestamp: u32, services: u64, address: bytesOf(16), port: integer(0, 65535) }),
        20
      )
    })
  ),
  addrv2: tagged("addrv2", Arbitrary.all({ addresses: list(addressV2, 20) })),
  inv: tagged("inv", Arbitrary.all({ items: list(item, 20) })),
  getdata: tagged("getdata", Arbitrary.all({ items: list(item, 20) })),
  notfound: tagged("notfound", Arbitrary.all({ items: list(item, 20) })),
  getheaders: tagged("getheaders", Arbitrary.all({ protocolVersion: i32, locator: list(hash, 20), stopHash: hash })),
  headers: tagged("headers", Arbitrary.all({ headers: list(header, 10) })),
  getblocks: tagged("getblocks", Arbitrary.all({ protocolVersion: i32, locator: list(hash, 20), stopHash: hash })),
  mempool: tagged("mempool", nothing),
  feefilter: tagged("feefilter", Arbitrary.all({ feeRate: safeInteger })),
  tx: tagged("tx", Arbitrary.all({ transaction })),
  block: tagged(
    "block",
    Arbitrary.map(Arbitrary.all({ header, transactions: list(transaction) }), (block) => ({ block }))
  ),
  filterload: tagged(
    "filterload",
    Arbitrary.all({ filter: bytes(300), hashFunctions: integer(0, 50), tweak: u32, flags: integer(0, 255) })
  ),
  filteradd: tagged("filteradd", Arbitrary.all({ data: bytes(520) })),
  filterclear: tagged("filterclear", nothing),
  merkleblock: tagged(
    "merkleblock",
    Arbitrary.all({ header, transactionCount: u32, hashes: list(hash, 10), flags: bytes(20) })
  ),
  cmpctblock: tagged(
    "cmpctblock",
    Arbitrary.map(
      Arbitrary.all({
        header,
        nonce: u64,
        shortIds: list(integer(0, 2 ** 48 - 1), 20),
        prefilled: list(Arbitrary.all([integer(0, 16_000), transaction]))
      }),
      ({ prefilled, ...rest }) => ({
        ...rest,
        prefilled: rising(prefilled).map(([index, transaction]) => ({ index, transaction }))
      })
    )
  ),
  getblocktxn: tagged(
    "getblocktxn",
    Arbitrary.map(
      Arbitrary.all([hash, list(Arbitrary.all([integer(0, 3_000), Arbitrary.Constant(0)]), 20)]),
      ([blockHash, distances]) => ({ blockHash, indexes: rising(distances).map(([index]) => index) })
    )
  ),
  blocktxn: tagged("blocktxn", Arbitrary.all({ blockHash: hash, transactions: list(transaction) })),
  reject: tagged(
    "reject",
    oneOf<Omit<Wire.Reject, "_tag">>(
      Arbitrary.map(
        Arbitrary.all([integer(0, 255), text(111), oneOf<Uint8Array | undefined>(hash, Arbitrary.Constant(undefined))]),
        ([code, reason, hash]) => ({ rejected: "tx", code, reason, hash })
      ),
      Arbitrary.map(Arbitrary.all([text(12), integer(0, 255), text(111)]), ([rejected, code, reason]) => ({
        rejected,
        code,
        reason,
        hash: undefined
      }))
    )
  ),
  getcfilters: tagged("getcfilters", filterRange),
  cfilter: tagged("cfilter", Arbitrary.all({ filterType: integer(0, 255), blockHash: hash, filter: bytes(300) })),
  getcfheaders: tagged("getcfheaders", filterRange),
  cfheaders: tagged(
    "cfheaders",
    Arbitrary.all({
      filterType: integer(0, 255),
      stopHash: hash,
      previousFilterHeader: hash,
      filterHashes: list(hash, 20)
    })
  ),
  getcfcheckpt: tagged("getcfcheckpt", Arbitrary.all({ filterType: integer(0, 255), stopHash: hash })),
  cfcheckpt: tagged(
    "cfcheckpt",
    Arbitrary.all({ filterType: integer(0, 255), stopHash: hash, filterHeaders: list(hash, 20) })
  ),
  sendtxrcncl: tagged("sendtxrcncl", Arbitrary.all({ version: u32, salt: u64 })),
  sendpackages: tagged("sendpackages", Arbitrary.all({ versions: u64 })),
  ancpkginfo: tagged("ancpkginfo", Arbitrary.all({ wtxids: list(hash, 20) })),
  getpkgtxns: tagged("getpkgtxns", Arbitrary.all({ wtxids: list(hash, 20) })),
  pkgtxns: tagged("pkgtxns", Arbitrary.all({ transactions: list(transaction) })),
  Unknown: Arbitrary.map(Arbitrary.all([integer(0, 3), bytes(300)]), ([name, payload]) => ({
    _tag: "Unknown",
    command: ["greeting", "x", "constructor", "a b~!"][name],
    payload
  }))
}

/** Any message. */
export const message: Arbitrary.Arbitrary<Wire.Message> = oneOf<Wire.Message>(...Object.values(messages))

/** One fixed message of each type, without empty lists. */
export const examples: ReadonlyArray<Wire.Message> = (() => {
  const hash = fill(32, 7)
  const address = { services: 1033n, address: fill(16, 8), port: 8333 }
  const header = { version: 0x20000000, previousBlock: hash, merkleRoot: fill(32, 9), timestamp: 5, bits: 6, nonce: 7 }
  const transaction: Wire.Transaction = {
    version: 2,
    inputs: [
      {
        previousOutput: { txid: hash, index: 1 },
        script: fill(300, 1),
        sequence: 0xfffffffd,
        witness: [fill(71, 2), fill(33, 3)]
      },
      { previousOutput: { txid: hash, index: 2 }, script: fill(0, 1), sequence: 0, witness: [] }
    ],
    outputs: [
      { value: 21e14, script: fill(22, 4) },
      { value: 0, script: fill(0, 4) }
    ],
    lockTime: 500_000
  }
  const plain = { ...transaction, inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: [] })) }
  const items = [
    { type: 1, hash },
    { type: 0x40000002, hash }
  ]
  return [
    {
      _tag: "version",
      protocolVersion: 70017,
      services: 9n,
      timestamp: 1_700_000_000,
      receiver: address,
      sender: address,
      nonce: 0xfedcba9876543210n,
      userAgent: "/test:0.1/",
      startHeight: 800_000,
      relay: true
    },
    { _tag: "verack" },
    { _tag: "wtxidrelay" },
    { _tag: "sendaddrv2" },
    { _tag: "sendheaders" },
    { _tag: "sendcmpct", announce: true, version: 2n },
    { _tag: "feature", id: "test", data: fill(5, 5) },
    { _tag: "ping", nonce: 1n },
    { _tag: "pong", nonce: 2n },
    { _tag: "getaddr" },
    {
      _tag: "addr",
      addresses: [
        { timestamp: 1, ...address },
        { timestamp: 2, ...address }
      ]
    },
    {
      _tag: "addrv2",
      addresses: networks.map((networkId) => ({
        timestamp: networkId,
        services: 1n << BigInt(networkId * 10),
        networkId,
        address: fill(sizes[networkId], networkId),
        port: networkId
      }))
    },
    { _tag: "inv", items },
    { _tag: "getdata", items },
    { _tag: "notfound", items },
    { _tag: "getheaders", protocolVersion: 70016, locator: [hash, hash], stopHash: hash },
    { _tag: "headers", headers: [header, header] },
    { _tag: "getblocks", protocolVersion: 70016, locator: [hash, hash], stopHash: hash },
    { _tag: "mempool" },
    { _tag: "feefilter", feeRate: 1000 },
    { _tag: "tx", transaction },
    { _tag: "block", block: { header, transactions: [plain, transaction] } },
    { _tag: "filterload", filter: fill(9, 1), hashFunctions: 11, tweak: 5, flags: 1 },
    { _tag: "filteradd", data: fill(33, 2) },
    { _tag: "filterclear" },
    { _tag: "merkleblock", header, transactionCount: 7, hashes: [hash, fill(32, 3)], flags: fill(2, 4) },
    {
      _tag: "cmpctblock",
      header,
      nonce: 0xfedcba9876543210n,
      shortIds: [0, 1, 2 ** 48 - 1],
      prefilled: [
        { index: 0, transaction },
        { index: 300, transaction: plain }
      ]
    },
    { _tag: "getblocktxn", blockHash: hash, indexes: [0, 1, 300, 65_535] },
    { _tag: "blocktxn", blockHash: hash, transactions: [plain, transaction] },
    { _tag: "reject", rejected: "tx", code: 16, reason: "no", hash },
    { _tag: "getcfilters", filterType: 0, startHeight: 1, stopHash: hash },
    { _tag: "cfilter", filterType: 0, blockHash: hash, filter: fill(20, 8) },
    { _tag: "getcfheaders", filterType: 0, startHeight: 1, stopHash: hash },
    { _tag: "cfheaders", filterType: 0, stopHash: hash, previousFilterHeader: hash, filterHashes: [hash, hash] },
    { _tag: "getcfcheckpt", filterType: 0, stopHash: hash },
    { _tag: "cfcheckpt", filterType: 0, stopHash: hash, filterHeaders: [hash, hash] },
    { _tag: "sendtxrcncl", version: 1, salt: 0xfedcba9876543210n },
    { _tag: "sendpackages", versions: 3n },
    { _tag: "ancpkginfo", wtxids: [hash, hash] },
    { _tag: "getpkgtxns", wtxids: [hash, hash] },
    { _tag: "pkgtxns", transactions: [plain, transaction] },
    { _tag: "Unknown", command: "greeting", payload: fill(9, 9) }
  ]
})()

/** The same value with every list at any depth as a plain array. */
export const plain = <A>(value: A): A => {
  if (typeof value !== "object" || value === null) return value
  if (value instanceof Uint8Array) return value.slice() as A
  if (Symbol.iterator in value) return Array.from(value as Iterable<unknown>, plain) as A
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, plain(field)])) as A
}

export const encoded = (message: Wire.Message): Uint8Array => Result.getOrThrow(Wire.encode(message))
export const decoded = (command: string, payload: Uint8Array): Wire.Message =>
  Result.getOrThrow(Wire.decode(command, payload))

/** The reason of a failure. Throws for a success. */
export const reasonOf = (result: Result.Result<unknown, Wire.WireError>): Wire.WireReason => {
  if (Result.isSuccess(result)) throw new Error("expected a WireError")
  return result.failure.reason
}

export const concat = (...parts: ReadonlyArray<ArrayLike<number>>): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => Array.from(part)))
