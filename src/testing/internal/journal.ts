/** The events of a simulated network, as text for people and as a number for comparisons. */
import { i32At } from "../../primitives/bytes.ts"
import { murmur3 } from "../../primitives/murmur3.ts"

/**
 * Something that happened in a simulated network.
 *
 * @category models
 * @since 0.1.0
 */
export interface Event {
  /** In milliseconds of the Clock. */
  readonly at: number
  /** The name of the host that acted. */
  readonly from: string
  /** The name or the address of the other host; empty if there is none. */
  readonly to: string
  /** What happened, such as `dials` or `sends ping (32 bytes, 5d41402a)`. */
  readonly what: string
}

/** The length of a frame's header (version 1). */
const headerLength = 24

const isNameByte = (byte: number): boolean => byte >= 0x30 && byte <= 0x7a

const readCommand = (bytes: Uint8Array, offset: number): string | undefined => {
  let command = ""
  for (let i = 0; i < 12; i++) {
    const byte = bytes[offset + i]!
    if (byte === 0) return command === "" ? undefined : command
    if (!isNameByte(byte)) return undefined
    command += String.fromCharCode(byte)
  }
  return command
}

interface Known {
  readonly second: number
  readonly third: number
  readonly command: string
}

/** The commands that were read already, by their 12 bytes as three numbers: a text takes longer to make than to find. */
const knownCommands = new Map<number, Array<Known>>()
/** Above this they are not remembered: a test may send random commands. */
const maximumKnown = 200

/** The command in a frame's header, or `undefined` if the bytes are no header. */
const commandAt = (bytes: Uint8Array, offset: number): string | undefined => {
  const [first, second, third] = [i32At(bytes, offset + 4), i32At(bytes, offset + 8), i32At(bytes, offset + 12)]
  const known = knownCommands.get(first)
  const found = known?.find((other) => other.second === second && other.third === third)
  if (found !== undefined) return found.command
  const command = readCommand(bytes, offset + 4)
  if (command === undefined || knownCommands.size >= maximumKnown) return command
  if (known === undefined) knownCommands.set(first, [{ second, third, command }])
  else if (known.length < maximumKnown) known.push({ second, third, command })
  return command
}

/** The commands of whole frames of version 1; empty for all other bytes. */
const commandsIn = (bytes: Uint8Array): string => {
  const commands: Array<string> = []
  for (let offset = 0; offset < bytes.length;) {
    if (offset + headerLength > bytes.length) return ""
    const command = commandAt(bytes, offset)
    if (command === undefined) return ""
    commands.push(command)
    const length = i32At(bytes, offset + 16)
    offset += headerLength + length
    if (length < 0 || offset > bytes.length) return ""
  }
  return commands.length > 4
    ? `${commands.slice(0, 4).join(", ")} and ${commands.length - 4} more`
    : commands.join(", ")
}

/**
 * The text of an event of bytes. Of others than frames of version 1 it has the length alone: the keys of version 2 come from the platform,
 * not from the seed.
 */
export const describeBytes = (bytes: Uint8Array): string => {
  const commands = commandsIn(bytes)
  if (commands === "") return `sends ${bytes.length} bytes`
  return `sends ${commands} (${bytes.length} bytes, ${murmur3(0, bytes).toString(16).padStart(8, "0")})`
}

/**
 * An event as one line, with the time in seconds.
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatEvent = ({ at, from, to, what }: Event): string =>
  `${(at / 1_000).toFixed(3).padStart(12)} s  ${from}${to === "" ? "" : ` → ${to}`}  ${what}`

/** Keeps the last events, and a number over all of them. */
export class Journal {
  readonly #maximum: number
  #events: Array<Event> = []
  #digest = 0x811c9dc5
  /** The number of all events. */
  count = 0

  constructor(maximum: number) {
    this.#maximum = maximum
  }

  add(event: Event): void {
    this.count++
    const line = `${event.at}|${event.from}|${event.to}|${event.what}`
    // FNV-1a, over the units of the text.
    let digest = this.#digest
    for (let i = 0; i < line.length; i++) digest = Math.imul(digest ^ line.charCodeAt(i), 0x01000193)
    this.#digest = digest
    this.#events.push(event)
    if (this.#events.length >= 2 * this.#maximum) this.#events = this.#last()
  }

  get events(): ReadonlyArray<Event> {
    return this.#events.length > this.#maximum ? this.#last() : [...this.#events]
  }

  /** Equal for equal events, in their order. */
  get digest(): string {
    return (this.#digest >>> 0).toString(16).padStart(8, "0")
  }

  #last(): Array<Event> {
    return this.#maximum === 0 ? [] : this.#events.slice(-this.#maximum)
  }
}
