/** Functions shared by the benchmarks of payloads. */
import assert from "node:assert/strict"
import * as Result from "effect/Result"
import { Wire } from "../src/index.ts"
import type { Library } from "./competitors.ts"

export const us = "effect-bitcoin-peer"

export const decodeAs = <Tag extends Wire.Message["_tag"]>(
  tag: Tag,
  payload: Uint8Array
): Extract<Wire.Message, { readonly _tag: Tag }> =>
  Result.getOrThrow(Wire.decode(tag, payload)) as Extract<Wire.Message, { readonly _tag: Tag }>

/** The same bytes as a Buffer, for the other libraries. */
export const buffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)

/** Asserts that a library encodes the decoded payload to the same bytes. */
export const compare = (payload: Uint8Array, encoded: Uint8Array, name = us): void =>
  assert.ok(buffer(payload).equals(encoded), `${name} does not encode to the decoded bytes`)

/** The target for each library: we are ahead of it. */
export const targetsOf = (libraries: ReadonlyArray<Library>): Record<string, number> =>
  Object.fromEntries(libraries.map(({ name }) => [name, 1]))
