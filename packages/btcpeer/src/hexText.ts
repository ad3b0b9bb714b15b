/** Text with hexadecimal digits: which bytes they say, in any encoding that a shell writes. */
import { detect, find } from "./scan.ts"

const isPrintable = (byte: number): boolean => (byte >= 0x20 && byte < 0x7f) || (byte >= 0x09 && byte <= 0x0d)

type Encoding = "utf-8" | "utf-16le" | "utf-16be"

/**
 * The encoding of bytes that are text, `undefined` for all other bytes. Text is printable ASCII, also with a byte order mark and in
 * UTF-16, which PowerShell writes.
 */
export const encodingOf = (bytes: Uint8Array): Encoding | undefined => {
  const [first, second, third] = bytes
  const marked =
    first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : undefined
  const wide = marked ?? (second === 0 ? "utf-16le" : first === 0 ? "utf-16be" : undefined)
  if (wide !== undefined) {
    // A last byte without its other half is an error that is reported later, unless that is all there is.
    const low = wide === "utf-16le" ? 0 : 1
    for (let i = marked === undefined ? 0 : 2; i + 1 < bytes.length; i += 2) {
      if (bytes[i + 1 - low] !== 0 || !isPrintable(bytes[i + low]!)) return undefined
    }
    return marked !== undefined || bytes.length > 1 ? wide : undefined
  }
  const start = first === 0xef && second === 0xbb && third === 0xbf ? 3 : 0
  for (let i = start; i < bytes.length; i++) if (!isPrintable(bytes[i]!)) return undefined
  return "utf-8"
}

const fromHex = (digits: string, where: string): Uint8Array => {
  const wrong = /[^0-9a-fA-F]/.exec(digits)
  if (wrong !== null) throw new Error(`text, but not hexadecimal: "${wrong[0]}"${where}`)
  if (digits.length % 2 === 1) throw new Error(`an odd number of hexadecimal digits${where}`)
  return Uint8Array.from(Buffer.from(digits, "hex"))
}

/** One thing to decode, and its line in the text if there are several. */
export interface Input {
  readonly bytes: Uint8Array
  readonly line?: number | undefined
}

const isFileForm = (as: string): boolean => as === "capture" || as === "stream" || as === "blockfile"

const isWhole = (as: string, bytes: Uint8Array): boolean => {
  for (const found of find({ _tag: "Payload", command: as }, bytes)) if (found._tag === "Damaged") return false
  return true
}

/**
 * The things to decode in an input: the bytes as they are, or those that its hexadecimal digits say. Several lines are one thing if
 * they can be read so (`xxd -p` writes such lines), and else one each. Throws an `Error` that describes the problem.
 */
export const inputs = (given: Uint8Array, as: string | undefined): ReadonlyArray<Input> => {
  if (given.length === 0) throw new Error("there is nothing in it")
  const encoding = encodingOf(given)
  if (encoding === undefined) return [{ bytes: given }]
  const text = new TextDecoder(encoding).decode(given)
  const lines = text.split("\n").map((line) => line.replace(/\s/g, "").replace(/^0x/i, ""))
  const filled = lines.flatMap((digits, index) => (digits === "" ? [] : [{ digits, index }]))
  if (filled.length === 0) throw new Error("there is nothing in it")
  const isApart = filled.length > 1
  const joined = lines.join("")
  if (!/[^0-9a-fA-F]/.test(joined) && joined.length % 2 === 0) {
    const whole = fromHex(joined, "")
    const fits = as === undefined ? detect(whole) !== undefined : isFileForm(as) || isWhole(as, whole)
    if (fits || !isApart) return [{ bytes: whole }]
  }
  return filled.map(({ digits, index }) =>
    isApart ? { bytes: fromHex(digits, ` in line ${index + 1}`), line: index + 1 } : { bytes: fromHex(digits, "") }
  )
}
