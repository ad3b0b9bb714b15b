/**
 * Replies of Tor's control port (control-spec): lines of three digits, a separator and a text. The separator is `-` but for the last line
 * of a reply, which has a space. Pure: bytes in, replies out.
 */
import { hmac } from "@noble/hashes/hmac.js"
import { sha256 } from "@noble/hashes/sha2.js"

/** The limits of Bitcoin Core. The longest reply that is expected has 5 lines. */
export const maxLineLength = 100_000
export const maxLines = 1_000

/** Replies from this code on are events, which are not asked for. */
const firstEvent = 600

/** A reply to a command, without the codes of its lines. */
export interface Reply {
  /** 250 for success. */
  readonly code: number
  /** At least one line. Each character is one byte. */
  readonly lines: ReadonlyArray<string>
}

const lineFeed = 0x0a
/** Arguments of one call of `String.fromCharCode`. */
const callSize = 8_192

const textOf = (bytes: Uint8Array): string => {
  let text = ""
  for (let from = 0; from < bytes.length; from += callSize) {
    text += String.fromCharCode(...bytes.subarray(from, from + callSize))
  }
  return text
}

/** Reads replies from bytes as they arrive. */
export class ReplyParser {
  /** Why nothing more is read. */
  failure: string | undefined
  #held = ""
  #lines: Array<string> = []

  /** The replies that these bytes complete. */
  push(bytes: Uint8Array): ReadonlyArray<Reply> {
    const replies: Array<Reply> = []
    let from = 0
    while (this.failure === undefined) {
      const end = bytes.indexOf(lineFeed, from)
      const piece = end < 0 ? bytes.subarray(from) : bytes.subarray(from, end)
      if (this.#held.length + piece.length > maxLineLength) {
        this.#fail(`a line has more than ${maxLineLength} bytes`)
        break
      }
      this.#held += textOf(piece)
      if (end < 0) break
      const line = this.#held.endsWith("\r") ? this.#held.slice(0, -1) : this.#held
      this.#held = ""
      from = end + 1
      const reply = this.#take(line)
      if (reply !== undefined) replies.push(reply)
    }
    return replies
  }

  /** Takes a line. A line that is too short for a code is skipped. */
  #take(line: string): Reply | undefined {
    if (this.#lines.length === maxLines) return this.#fail(`a reply has more than ${maxLines} lines`)
    if (line.length < 4) return undefined
    this.#lines.push(line.slice(4))
    if (line[3] !== " ") return undefined
    const lines = this.#lines
    this.#lines = []
    const digits = line.slice(0, 3)
    const code = /^\d{3}$/.test(digits) ? Number(digits) : 0
    return code >= firstEvent ? undefined : { code, lines }
  }

  #fail(problem: string): undefined {
    this.failure = problem
    this.#held = ""
    this.#lines = []
    return undefined
  }
}

/** The type of a line and its arguments: `AUTH METHODS=NULL` is of the type AUTH. */
export const splitLine = (line: string): { readonly type: string; readonly rest: string } => {
  const space = line.indexOf(" ")
  return space < 0 ? { type: line, rest: "" } : { type: line.slice(0, space), rest: line.slice(space + 1) }
}

/** The escapes of C in a quoted value, as control-spec 2.1.1 recommends: at most three octal digits, of which the first is 0 to 3. */
const escapes = /\\([0-3][0-7]{0,2}|[4-7][0-7]?|[^])/g

const unescaped = (text: string): string =>
  text.replace(escapes, (_, escape: string) => {
    if (/^[0-7]/.test(escape)) return String.fromCharCode(Number.parseInt(escape, 8))
    return escape === "n" ? "\n" : escape === "t" ? "\t" : escape === "r" ? "\r" : escape
  })

/** A key and a value, quoted or not, at the place where the last one ended. */
const argument = /([^= ]*)=(?:"([^"\\]*(?:\\[^][^"\\]*)*)"|(?!")([^ ]*)) ?/y

/**
 * The values of arguments such as `METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/a/b"`. Arguments without a value end them. Empty if a quote is
 * not closed, or if the text ends in an argument without a value.
 */
export const parseMapping = (text: string): ReadonlyMap<string, string> => {
  const values = new Map<string, string>()
  let at = 0
  while (at < text.length) {
    argument.lastIndex = at
    const match = argument.exec(text)
    if (match === null) {
      // A word with another one after it is an argument without a value: it and all that follow have no meaning here.
      return /^[^= ]* /.test(text.slice(at)) ? values : new Map()
    }
    values.set(match[1]!, match[2] === undefined ? match[3]! : unescaped(match[2]))
    at = argument.lastIndex
  }
  return values
}

/** A text as a quoted value of a command. A line break in it cannot begin another command. */
export const quoted = (text: string): string =>
  `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\r", "\\r").replaceAll("\n", "\\n")}"`

/** The hosts and ports in the answer to `GETINFO net/listeners/socks`, in their order. Sockets in the file system are left out. */
export const socksListeners = (reply: Reply): ReadonlyArray<string> => {
  const prefix = "net/listeners/socks="
  return reply.lines
    .filter((line) => line.startsWith(prefix))
    .flatMap((line) => line.slice(prefix.length).split(" "))
    .map((listener) => /^(["'])(.*)\1$/.exec(listener)?.[2] ?? listener)
    .filter((listener) => listener !== "" && !listener.startsWith("unix:"))
}

// ---- SAFECOOKIE (control-spec 3.24)

export const cookieSize = 32
export const nonceSize = 32

const keys = {
  server: new TextEncoder().encode("Tor safe cookie authentication server-to-controller hash"),
  controller: new TextEncoder().encode("Tor safe cookie authentication controller-to-server hash")
}

/** The proof of one side that it knows the cookie. */
export const cookieProof = (
  side: "server" | "controller",
  cookie: Uint8Array,
  clientNonce: Uint8Array,
  serverNonce: Uint8Array
): Uint8Array => hmac(sha256, keys[side], Uint8Array.of(...cookie, ...clientNonce, ...serverNonce))

/** Compares in a time that does not depend on the bytes. */
export const equalInConstantTime = (self: Uint8Array, that: Uint8Array): boolean => {
  if (self.length !== that.length) return false
  let difference = 0
  for (let i = 0; i < self.length; i++) difference |= self[i]! ^ that[i]!
  return difference === 0
}
