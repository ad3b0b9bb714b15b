/**
 * A program that runs until its scope closes: its output as lines, its end as an Effect. Also free ports and temporary
 * directories.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { Deferred, Effect, type Scope } from "effect"
import { InteropError } from "./InteropNode.ts"

export interface Daemon {
  readonly log: () => ReadonlyArray<string>
  readonly awaitLog: (pattern: RegExp) => Effect.Effect<string, InteropError>
  /** An error with the last lines of the log. */
  readonly fail: (operation: string, problem: string) => Effect.Effect<never, InteropError>
  /** Waits until the process has ended and its output was read; returns how it ended. */
  readonly exited: Effect.Effect<string>
}

// Kills all nodes when the test runner exits without closing its scopes.
const running = new Set<ChildProcess>()
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL")
})

/** Starts `command`; kills it, and waits for its end, when the scope closes. */
export const start = Effect.fnUntraced(function* (options: {
  readonly name: string
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
}): Effect.fn.Return<Daemon, InteropError, Scope.Scope> {
  const lines: Array<string> = []
  const watchers = new Set<(line: string) => void>()
  const exited = yield* Deferred.make<string>()
  const fail = (operation: string, problem: string) =>
    Effect.suspend(() => {
      const tail = lines.slice(-40).map((line) => `\n  | ${line}`)
      return Effect.fail(new InteropError({ node: options.name, operation, problem: problem + tail.join("") }))
    })

  const spawned = Effect.callback<ChildProcess, InteropError>((resume) => {
    const child = spawn(options.command, options.args, {
      cwd: options.cwd,
      env: { ...options.env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on("line", (line) => {
        lines.push(line)
        for (const watcher of watchers) watcher(line)
      })
    }
    child.on("spawn", () => {
      running.add(child)
      resume(Effect.succeed(child))
    })
    child.on("error", (cause) => resume(fail("start", `${options.command}: ${cause.message}`)))
    // "close" comes after "exit", when all output was read.
    child.on("close", (code, signal) => {
      running.delete(child)
      Deferred.doneUnsafe(exited, Effect.succeed(signal ?? `exit code ${code}`))
    })
  })

  yield* Effect.acquireRelease(spawned, (child) =>
    Effect.andThen(
      // The data directory is not needed any more, so a clean shutdown is not necessary.
      Effect.sync(() => child.kill("SIGKILL")),
      Deferred.await(exited)
    )
  )

  const awaitLog = (pattern: RegExp) =>
    Effect.callback<string>((resume) => {
      const found = lines.find((line) => pattern.test(line))
      if (found !== undefined) return resume(Effect.succeed(found))
      const watcher = (line: string) => {
        if (!pattern.test(line)) return
        watchers.delete(watcher)
        resume(Effect.succeed(line))
      }
      watchers.add(watcher)
      return Effect.sync(() => watchers.delete(watcher))
    }).pipe(
      Effect.raceFirst(
        Effect.flatMap(Deferred.await(exited), (how) => fail("awaitLog", `ended (${how}) without ${pattern}`))
      ),
      Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => fail("awaitLog", `no ${pattern} in 30 s`) })
    )

  return { log: () => lines, awaitLog, fail, exited: Deferred.await(exited) }
})

/** Ports of 127.0.0.1 that were free a moment ago, all different. */
export const freePorts = (count: number): Effect.Effect<ReadonlyArray<number>, InteropError> =>
  Effect.callback<ReadonlyArray<number>, InteropError>((resume) => {
    const fail = (cause: Error) =>
      resume(Effect.fail(new InteropError({ node: "harness", operation: "freePorts", problem: cause.message, cause })))
    const servers: Array<Server> = []
    const open = (): void => {
      if (servers.length === count) {
        const ports = servers.map((server) => {
          const address = server.address()
          return typeof address === "object" && address !== null ? address.port : 0
        })
        let left = count
        for (const server of servers) server.close(() => --left === 0 && resume(Effect.succeed(ports)))
        return
      }
      const server = createServer()
      servers.push(server)
      server.on("error", fail)
      server.listen(0, "127.0.0.1", open)
    }
    open()
  })

/** A new directory, removed when the scope closes. */
export const temporaryDirectory = (name: string): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), `interop-${name}-`))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
  )
