/** Reads the input of `btcpeer decode` in pieces, so that a file of any size fits in memory. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as path from "node:path"
import type { Readable } from "node:stream"

/** The bytes of an input, one piece after the other. */
export interface Input {
  /** The next piece; `undefined` at the end. */
  readonly pull: Effect.Effect<Uint8Array | undefined, Error>
}

/** Larger pieces make no difference in time. */
const pieceSize = 1 << 20

/** A file, or what `stdin` gives for `-`. */
export const openInput = (file: string, stdin: () => Readable): Effect.Effect<Input, never, Scope.Scope> =>
  Effect.gen(function* () {
    const source = yield* Effect.acquireRelease(
      Effect.sync(() => (file === "-" ? stdin() : fs.createReadStream(file, { highWaterMark: pieceSize }))),
      (source) => Effect.sync(() => void source.destroy())
    )
    const iterator: AsyncIterator<Uint8Array, undefined> = source[Symbol.asyncIterator]()
    const pull = Effect.tryPromise({
      try: () => iterator.next().then(({ value }) => value),
      catch: (error) => (error instanceof Error ? error : new Error(String(error)))
    })
    return { pull }
  })

/** Pulls until there are `size` bytes, or the input ends. */
export const pullUntil = Effect.fnUntraced(function* (
  { pull }: Input,
  size: number
): Effect.fn.Return<{ readonly bytes: Uint8Array; readonly ended: boolean }, Error> {
  const pieces: Array<Uint8Array> = []
  let length = 0
  let ended = false
  while (length < size) {
    const piece = yield* pull
    if (piece === undefined) {
      ended = true
      break
    }
    pieces.push(piece)
    length += piece.length
  }
  return { bytes: pieces.length === 1 ? pieces[0]! : new Uint8Array(Buffer.concat(pieces)), ended }
})

const keySize = 8

/** The key with which Bitcoin Core (28 and later) obfuscates the block files of a directory; `undefined` if there is none. */
export const keyBeside = (file: string): Uint8Array | undefined => {
  try {
    const key = new Uint8Array(fs.readFileSync(path.join(path.dirname(file), "xor.dat")))
    return key.length === keySize ? key : undefined
  } catch {
    return undefined
  }
}

const problems: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EISDIR: "is a directory",
  ENOTDIR: "no such file",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENAMETOOLONG: "no such file"
}

/** Why an input cannot be read, in words. */
export const problemOf = (cause: Error, file: string): string => {
  const problem =
    ("code" in cause && typeof cause.code === "string" ? problems[cause.code] : undefined) ?? cause.message
  const isHex = problem === "no such file" && /^(?:0x)?(?:[0-9a-f]{2}){4,}$/i.test(file)
  return isHex ? `${problem}; to decode hexadecimal digits: echo HEX | btcpeer decode` : problem
}
