/**
 * A lock file: it names the process that uses a directory. The system does not delete it when a process is killed, so the lock of a
 * process that no longer runs is taken over. Processes find each other by their numbers: those of two containers, or of two machines
 * that share a disk, do not.
 */
import * as fs from "node:fs"

/** The process that holds a lock. */
export interface Holder {
  readonly pid: number
  /** When the process started, where the system tells it: numbers of processes are used again, always so for 1 of a container. */
  readonly start: string | undefined
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code

/** The text of a file, or undefined if there is no file. */
const readText = (path: string): string | undefined => {
  try {
    return fs.readFileSync(path, "utf8")
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined
    throw error
  }
}

/** The start of a process on Linux: the identifier of the boot, and the ticks since then. "ended" for a process that only waits for its parent. */
const startOf = (pid: number): string | undefined => {
  try {
    // The name of the program comes before the last parenthesis; the state and, 19 fields later, the start come after it.
    const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? []
    if (fields[0] === "Z" || fields[0] === "X") return "ended"
    return `${fs.readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()} ${fields[19]}`
  } catch {
    return undefined
  }
}

const isRunning = ({ pid, start }: Holder): boolean => {
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: it runs as another user.
    if (codeOf(error) === "ESRCH") return false
  }
  const now = startOf(pid)
  return now !== "ended" && (start === undefined || now === undefined || start === now)
}

/** The process that a lock file names. Undefined for a file that was not written to its end. */
const holderIn = (text: string): Holder | undefined => {
  try {
    const { pid, start } = JSON.parse(text) as { readonly pid?: unknown; readonly start?: unknown }
    return Number.isInteger(pid) && (pid as number) > 0
      ? { pid: pid as number, start: typeof start === "string" ? start : undefined }
      : undefined
  } catch {
    return undefined
  }
}

/** Makes a file with its text in one step, unless there is one: no other process finds it empty. */
const create = (path: string, text: string): boolean => {
  const whole = `${path}.${process.pid}`
  try {
    fs.writeFileSync(whole, text, { mode: 0o600 })
    fs.linkSync(whole, path)
    return true
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false
    throw error
  } finally {
    fs.rmSync(whole, { force: true })
  }
}

/**
 * Takes the lock, and returns the function that releases it, or the process that has it. Throws the error of the file system if the
 * file cannot be made or read.
 */
export const takeLock = (path: string): (() => void) | Holder => {
  const text = `${JSON.stringify({ pid: process.pid, start: startOf(process.pid) } satisfies Holder)}\n`
  const release = (): void => {
    try {
      if (readText(path) === text) fs.rmSync(path, { force: true })
    } catch {
      // The next process finds the lock of one that no longer runs.
    }
  }
  const guard = `${path}.takeover`
  // Each turn follows a step of another process: it released the lock, or took it over.
  while (!create(path, text)) {
    const found = readText(path)
    if (found === undefined) continue
    const holder = holderIn(found)
    if (holder !== undefined && isRunning(holder)) return holder
    // Several processes may find the same old lock. The guard lets one of them replace it.
    if (create(guard, text)) {
      if (readText(path) === found) {
        fs.renameSync(guard, path)
        return release
      }
      fs.rmSync(guard, { force: true })
    } else {
      const taken = readText(guard)
      if (taken === undefined) continue
      const taker = holderIn(taken)
      if (taker !== undefined && isRunning(taker)) return taker
      fs.rmSync(guard, { force: true })
    }
  }
  return release
}
