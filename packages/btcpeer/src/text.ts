/** Text that a person or a terminal gets to see. */

/**
 * Characters that a terminal may act upon or that hide what is written: C0 and C1 controls, among them the escape that
 * begins every terminal sequence, line separators, and marks that turn the direction of writing.
 */
// oxlint-disable-next-line no-control-regex
const acting = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g

const escaped = (character: string): string => {
  const code = character.charCodeAt(0)
  return code > 0xff ? `\\u${code.toString(16).padStart(4, "0")}` : `\\x${code.toString(16).padStart(2, "0")}`
}

/** Text in which nothing is left that a terminal could act upon. Our own messages can quote what a remote said. */
export const clean = (text: string): string => text.replace(acting, escaped)

/** The same for text from the wire, one character a byte: what is not printable ASCII could be of any encoding. */
export const cleanBytes = (text: string): string => text.replace(/[^\x20-\x7e]/g, escaped)

/** JSON in which no character is left that a terminal could act upon: it stays the same JSON. */
export const cleanJson = (json: string): string =>
  json.replace(acting, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)

const plural: Readonly<Record<string, string>> = { hash: "hashes", address: "addresses" }

/** `1 block`, `2 blocks`. */
export const counted = (count: number, what: string): string =>
  `${grouped(count)} ${count === 1 ? what : (plural[what] ?? `${what}s`)}`

/** Digits in groups of three, whatever the locale is. */
export const grouped = (count: number): string => String(count).replace(/\B(?=(\d{3})+(?!\d))/g, ",")

/** An amount of satoshi as bitcoin, exactly. */
export const bitcoin = (satoshi: number): string => {
  if (!Number.isSafeInteger(satoshi)) return `${satoshi} sat`
  const digits = String(Math.abs(satoshi)).padStart(9, "0")
  return `${satoshi < 0 ? "-" : ""}${grouped(Number(digits.slice(0, -8)))}.${digits.slice(-8)} BTC`
}

/** Milliseconds as people read them. */
export const milliseconds = (value: number): string =>
  value < 10 ? `${value.toFixed(2)} ms` : value < 1000 ? `${value.toFixed(1)} ms` : `${(value / 1000).toFixed(2)} s`

/** Bytes as hexadecimal in the order they are in. */
export const hex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex")
