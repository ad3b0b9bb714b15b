/** Callers without type checking: a message with a field of a wrong type gives a `WireError`, never a `TypeError`. */
import { assert, describe, it } from "@effect/vitest"
import { inspect } from "node:util"
import * as Result from "effect/Result"
import * as Wire from "../src/Wire.ts"
import { examples, reasonOf } from "./support/generators.ts"

type Path = ReadonlyArray<string | number>

/** The paths of all values in a message except its tag. */
const pathsOf = (value: unknown, path: Path = []): ReadonlyArray<Path> => {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return [path]
  const inside = Object.entries(value).flatMap(([key, field]) =>
    path.length === 0 && key === "_tag" ? [] : pathsOf(field, [...path, Array.isArray(value) ? Number(key) : key])
  )
  return path.length === 0 ? inside : [path, ...inside]
}

const at = (value: unknown, path: Path): unknown =>
  path.reduce((inner, key) => (inner as Record<string | number, unknown>)[key], value)

/** A copy with another value at a path. */
const withValue = (value: unknown, [key, ...rest]: Path, other: unknown): unknown => {
  if (key === undefined) return other
  const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<string | number, unknown>
  copy[key] = withValue(copy[key], rest, other)
  return copy
}

const withoutField = (value: unknown, path: Path): unknown => {
  const parent = { ...(at(value, path.slice(0, -1)) as Record<string | number, unknown>) }
  delete parent[path.at(-1)!]
  return withValue(value, path.slice(0, -1), parent)
}

class Custom {
  readonly custom = true
}

/** Wrong values, each with the kind of field that would accept it. */
const wrongValues: ReadonlyArray<readonly [value: unknown, fits: string]> = [
  [null, ""],
  [undefined, ""],
  [5, "number"],
  [5n, "bigint"],
  [true, "boolean"],
  ["abcd", "string"],
  // Strings of 32 characters and of 32 bytes in hex, as long as a hash.
  ["a".repeat(32), "string"],
  ["ab".repeat(32), "string"],
  [Symbol("symbol"), ""],
  [() => 5, ""],
  [new Custom(), ""],
  [Object.create(null), ""],
  [Array.from({ length: 32 }, () => 7), "list"],
  [new ArrayBuffer(32), ""],
  [new DataView(new ArrayBuffer(32)), ""],
  [new Uint16Array(32), "list"],
  [new Set([1]), ""]
]

const kindOf = (value: unknown): string =>
  value instanceof Uint8Array ? "bytes" : Array.isArray(value) ? "list" : typeof value

const isOptional = ({ _tag }: Wire.Message, path: Path): boolean =>
  (_tag === "ping" && path[0] === "nonce") || (_tag === "reject" && path[0] === "hash")

/** The keys on the path to a value and inside it. An error about an element of `headers` names the field `header`. */
const namesOf = (example: unknown, path: Path): ReadonlyArray<string> => [
  ...path.map(String),
  ...pathsOf({ value: at(example, path) })
    .flat()
    .map(String)
]

/** Asserts that encoding fails and names the field, a field around it, or one that the wrong value lacks. */
const namesField = (message: unknown, names: ReadonlyArray<string>, what: string): void => {
  const result = Wire.encode(message as Wire.Message)
  assert.isTrue(Result.isFailure(result), `${what} is encoded`)
  const reason = reasonOf(result)
  assert.include(["BadValue", "TooMany"], reason._tag, what)
  const segments = "field" in reason ? reason.field.split(".") : []
  assert.isTrue(
    names.some((name) => segments.some((segment) => name === segment || name === `${segment}s`)),
    `${what}: ${JSON.stringify(reason)}`
  )
}

describe("a message of a JavaScript caller", () => {
  for (const example of examples) {
    it(`${example._tag}: with a value of a wrong type in any field fails with an error that names the field`, () => {
      for (const path of pathsOf(example)) {
        for (const [value, fits] of wrongValues) {
          if (fits === kindOf(at(example, path)) || (value === undefined && isOptional(example, path))) continue
          const what = `${path.join(".")} = ${inspect(value)}`
          namesField(withValue(example, path, value), namesOf(example, path), what)
        }
      }
    })

    it(`${example._tag}: without any one field fails with an error that names the field`, () => {
      for (const path of pathsOf(example)) {
        if (isOptional(example, path) || typeof path.at(-1) === "number") continue
        namesField(withoutField(example, path), namesOf(example, path), `no ${path.join(".")}`)
      }
    })
  }

  const hash = new Uint8Array(32)
  const header = { version: 1, previousBlock: hash, merkleRoot: hash, timestamp: 0, bits: 0, nonce: 0 }

  it.each([
    [{ _tag: "ping", nonce: 5 }, 'ping: "nonce" is of type number instead of bigint'],
    [{ _tag: "pong" }, 'pong: "nonce" is missing'],
    [{ _tag: "pong", nonce: null }, 'pong: "nonce" is of type null instead of bigint'],
    [{ _tag: "inv", items: null }, 'inv: "items" is of type null instead of Array'],
    [{ _tag: "inv", items: new Set() }, 'inv: "items" is of type Set instead of Array'],
    [{ _tag: "inv", items: [null] }, 'inv: "items" is of type null instead of object'],
    [
      { _tag: "inv", items: [{ type: 1, hash: "00".repeat(32) }] },
      'inv: "items.hash" is of type string instead of Uint8Array'
    ],
    [{ _tag: "inv", items: [{ type: 1, hash: new Uint8Array(31) }] }, 'inv: "items.hash" has 31 bytes instead of 32'],
    [{ _tag: "inv", items: [{ type: "1", hash }] }, 'inv: "items.type" is of type string instead of number'],
    [{ _tag: "inv", items: [{ hash }] }, 'inv: "items.type" is missing'],
    [
      { _tag: "getheaders", protocolVersion: 1, locator: hash, stopHash: hash },
      'getheaders: "locator" is of type number instead of Uint8Array'
    ],
    [
      { _tag: "headers", headers: [{ ...header, nonce: 5n }] },
      'headers: "header.nonce" is of type bigint instead of number'
    ],
    [
      { _tag: "headers", headers: [{ ...header, nonce: -1 }] },
      'headers: "header.nonce" is not an unsigned 32-bit integer'
    ],
    [{ _tag: "filteradd", data: "00ff" }, 'filteradd: "data" is of type string instead of Uint8Array'],
    [{ _tag: "filteradd", data: [1, 2] }, 'filteradd: "data" is of type Array instead of Uint8Array'],
    [{ _tag: "sendcmpct", announce: 1, version: 2n }, 'sendcmpct: "announce" is of type number instead of boolean'],
    [{ _tag: "feature", id: Buffer.from("test"), data: hash }, 'feature: "id" is of type Buffer instead of string'],
    [{ _tag: "tx" }, 'tx: "transaction" is missing'],
    [{ _tag: "block", block: { header } }, 'block: "transactions" is missing'],
    [{ _tag: "Unknown", payload: hash }, '"command" is not 1 to 12 printable ASCII characters'],
    [{ _tag: "Unknown", command: "x" }, 'x: "payload" is missing'],
    [{ _tag: 5n }, '"_tag" is 5, which is no message of this package']
  ])("%o: %s", (message, problem) => {
    const result = Wire.encode(message as unknown as Wire.Message)
    assert.strictEqual(Result.isFailure(result) && result.failure.message, problem)
  })

  it("may have Buffers for bytes and its own kind of list", () => {
    const list: Wire.List<Uint8Array> = { length: 1, at: () => Buffer.alloc(32, 7), *[Symbol.iterator]() {} }
    const made = Wire.encode({ _tag: "getpkgtxns", wtxids: list })
    assert.deepStrictEqual(made, Wire.encode({ _tag: "getpkgtxns", wtxids: [new Uint8Array(32).fill(7)] }))
    assert.isTrue(Result.isSuccess(made))
  })
})
