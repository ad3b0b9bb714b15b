/** Text for people and terminals. */

/**
 * Characters that are commands for a terminal or that hide text: C0 and C1 controls, among them the escape that begins every terminal
 * sequence, line separators, and marks that change the direction of writing.
 */
// oxlint-disable-next-line no-control-regex
const acting = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g

const escaped = (character: string): string => {
  const code = character.charCodeAt(0)
  return code > 0xff ? `\\u${code.toString(16).padStart(4, "0")}` : `\\x${code.toString(16).padStart(2, "0")}`
}

/** Escapes all characters that are commands for a terminal. Our own error messages can quote text of a peer. */
export const clean = (text: string): string => text.replace(acting, escaped)

/** Escapes text from the wire, which has one character a byte: all but printable ASCII, because its encoding is unknown. */
export const cleanBytes = (text: string): string => text.replace(/[^\x20-\x7e]/g, escaped)

/** Escapes such characters in JSON, which stays the same JSON. */
export const cleanJson = (json: string): string =>
  json.replace(acting, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)

const plural: Readonly<Record<string, string>> = { hash: "hashes", address: "addresses", entry: "entries" }

/** `1 block`, `2 blocks`. */
export const counted = (count: number, what: string): string =>
  `${grouped(count)} ${count === 1 ? what : (plural[what] ?? `${what}s`)}`

/** Digits in groups of three, in every locale. */
export const grouped = (count: number): string => String(count).replace(/\B(?=(\d{3})+(?!\d))/g, ",")

/** An amount of satoshi as bitcoin, exactly. */
export const bitcoin = (satoshi: number): string => {
  if (!Number.isSafeInteger(satoshi)) return `${satoshi} sat`
  const digits = String(Math.abs(satoshi)).padStart(9, "0")
  return `${satoshi < 0 ? "-" : ""}${grouped(Number(digits.slice(0, -8)))}.${digits.slice(-8)} BTC`
}

/** Milliseconds, for people. */
export const milliseconds = (value: number): string =>
  value < 10 ? `${value.toFixed(2)} ms` : value < 1000 ? `${value.toFixed(1)} ms` : `${(value / 1000).toFixed(2)} s`

// oxlint-disable-next-line no-control-regex
const colours = /\u001b\[[0-9;]*m/g

/** How many columns of a terminal a text takes. */
const widthOf = (text: string): number => text.replace(colours, "").length

/** A word that is too long for a line, without its middle. */
const shortened = (word: string, columns: number): string => {
  const plain = word.replace(colours, "")
  if (plain.length <= columns) return word
  const kept = Math.max(0, columns - 1)
  return `${plain.slice(0, Math.ceil(kept / 2))}…${plain.slice(plain.length - Math.floor(kept / 2))}`
}

/** The least indentation of a line that continues another. */
const leastIndent = 2

/**
 * A text as lines of at most `columns` columns, broken between words. Lines after the first are indented by `indent` columns, or by less
 * where a word only fits then. A word that is longer than a line, such as a hash, loses its middle.
 */
export const wrapped = (text: string, columns: number, indent: number): ReadonlyArray<string> => {
  if (text.length <= columns || widthOf(text) <= columns) return [text]
  const lines: Array<string> = []
  let line = ""
  let width = 0
  let hasWord = false
  for (const [, spaces = "", word = ""] of text.matchAll(/( *)([^ ]+)/g)) {
    const size = widthOf(word)
    if (width + spaces.length + size <= columns) {
      line += spaces + word
      width += spaces.length + size
    } else {
      if (hasWord) lines.push(line)
      const margin = hasWord ? Math.min(indent, Math.max(leastIndent, columns - size)) : spaces.length
      const fitting = shortened(word, columns - margin)
      line = " ".repeat(margin) + fitting
      width = margin + widthOf(fitting)
    }
    hasWord = true
  }
  return [...lines, line]
}

/** The column in which the descriptions of help begin at the latest, on a terminal of `columns` columns. */
const descriptionColumn = (columns: number): number => Math.min(30, Math.floor(columns * 0.4))

/**
 * Help as lines of at most `columns` columns. Rows of two columns, such as those of flags, keep their columns: a first column that is
 * too wide gets a line of its own.
 */
export const wrappedHelp = (help: string, columns: number): string =>
  help
    .split("\n")
    .flatMap((line) => {
      if (widthOf(line) <= columns) return [line]
      const [, name, gap = "", description = ""] = /^( {2}\S+(?: \S+)*?)( {2,})(\S.*)$/.exec(line) ?? []
      if (name === undefined) return wrapped(line, columns, /^ */.exec(line)![0].length)
      const width = widthOf(name)
      const column = Math.min(width + gap.length, descriptionColumn(columns))
      const isApart = width + 2 > column
      const start = isApart ? " ".repeat(column) : name + " ".repeat(column - width)
      const described = wrapped(start + description, columns, column)
      return isApart ? wrapped(name, columns, 4).concat(described) : described
    })
    .join("\n")

/** The rows of `Peer.Stats` that are not one command, in words. */
const togetherNames: Readonly<Record<string, string>> = { "*other*": "unknown", "*no message*": "no message" }

/** A command of `Peer.Stats`, for people. */
export const commandName = (command: string): string => togetherNames[command] ?? command

/** Rows that are not one command come after all commands. */
const order = (command: string): string => (command in togetherNames ? `~${command}` : command)

/** The commands of one or more `Peer.Stats`, each once, in alphabetical order. */
export const sortedCommands = (...counts: ReadonlyArray<Readonly<Record<string, unknown>>>): ReadonlyArray<string> => {
  return [...new Set(counts.flatMap((count) => Object.keys(count)))].toSorted((one, other) =>
    order(one) < order(other) ? -1 : 1
  )
}

/** The rows of a table that is too wide: each as a text that names the columns of its cells. */
export const rowTexts = (
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): ReadonlyArray<string> =>
  rows.map(([first = "", ...cells]) => {
    const named = cells.map((cell, index) =>
      cell === "" || cell === "-" ? "" : `${head[index + 1]} ${cell.replace(/ {2,}/, ", ")}`
    )
    return `${first}: ${named.filter((text) => text !== "").join(", ")}`
  })

/** The width of the widest line. */
export const widest = (lines: ReadonlyArray<string>): number => Math.max(0, ...lines.map(widthOf))

/** Bytes as hexadecimal, in their order. */
export const hex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex")
