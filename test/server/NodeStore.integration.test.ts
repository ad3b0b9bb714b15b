/** A store in a directory: faults and a kill at every step of a save, and the lock between real processes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Option, Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as promises from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import * as NodeStore from "../../src/server/NodeStore.ts"
import { makeDirectoryStore } from "../../src/server/internal/directoryStore.ts"
import type { Files } from "../../src/server/internal/files.ts"
import { storeCompliance } from "../support/storeCompliance.ts"

const root = path.resolve(import.meta.dirname, "../..")

const temporary = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "store-"))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true }))
)

storeCompliance(
  "a store in a directory",
  Layer.unwrap(Effect.map(temporary, (folder) => NodeStore.layerDirectory(path.join(folder, "a/b"))))
)

const killed = new Error("killed")

/**
 * Operations of files that stop with the operation of the given number, as a process that is killed in the middle of it: half of the
 * bytes are written, and nothing is done afterwards.
 */
const killedAt = (last: number): { readonly files: Files; readonly steps: Array<string> } => {
  const steps: Array<string> = []
  const step = async <A>(name: string, run: () => Promise<A>): Promise<A> => {
    if (steps.length >= last) throw killed
    steps.push(name)
    return run()
  }
  const open = async (file: string, flags?: string, mode?: number) => {
    const handle = await step(`open ${path.basename(file)}`, () => promises.open(file, flags, mode))
    return {
      writeFile: async (bytes: Uint8Array) => {
        await step("write half", () => handle.write(bytes, 0, bytes.length >> 1))
        await step("write the rest", () => handle.write(bytes, bytes.length >> 1))
      },
      sync: () => step("sync", () => handle.sync()),
      // The system closes the files of a process that ends.
      close: () => handle.close()
    }
  }
  const files = {
    open,
    readFile: promises.readFile,
    rename: (from: string, to: string) => step("rename", () => promises.rename(from, to)),
    rm: (file: string, options: fs.RmOptions) => step("rm", () => promises.rm(file, options))
  } as unknown as Files
  return { files, steps }
}

describe("a save", () => {
  it.live("writes, syncs, renames and syncs the directory, in this order", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const { files, steps } = killedAt(Infinity)
      const store = yield* makeDirectoryStore(folder, files)
      yield* store.save("peers.dat", new Uint8Array(10))
      assert.deepStrictEqual(steps, [
        "rm",
        "open peers.dat.tmp",
        "write half",
        "write the rest",
        "sync",
        "rename",
        `open ${path.basename(folder)}`,
        "sync"
      ])
      assert.strictEqual(fs.statSync(path.join(folder, "peers.dat")).mode & 0o777, 0o600)
    })
  )

  const old = new Uint8Array(1_000).fill(1)
  const next = new Uint8Array(2_000).fill(2)

  for (let last = 0; last <= 8; last++) {
    it.live(`leaves the old or the new bytes if it is killed after step ${last}, and the next one succeeds`, () =>
      Effect.gen(function* () {
        const folder = yield* temporary
        const load = Effect.flatMap(NodeStore.makeDirectory(folder), (store) => store.load("peers.dat"))
        yield* Effect.scoped(Effect.flatMap(NodeStore.makeDirectory(folder), (store) => store.save("peers.dat", old)))
        const exit = yield* makeDirectoryStore(folder, killedAt(last).files).pipe(
          Effect.flatMap((store) => store.save("peers.dat", next)),
          Effect.scoped,
          Effect.exit
        )
        assert.strictEqual(Exit.isSuccess(exit), last === 8)
        const found = Option.getOrThrow(yield* Effect.scoped(load))
        assert.deepStrictEqual(found, last <= 5 ? old : next)
        const store = yield* NodeStore.makeDirectory(folder)
        yield* store.save("peers.dat", next)
        assert.deepStrictEqual(yield* store.load("peers.dat"), Option.some(next))
        assert.deepStrictEqual(fs.readdirSync(folder).toSorted(), [".lock", "peers.dat"])
      })
    )
  }

  it.live("says that the disk is full, and leaves no half file", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const full = Object.assign(new Error("no space left on device"), { code: "ENOSPC" })
      const files = {
        ...promises,
        open: async (file: string, flags?: string, mode?: number) => {
          const handle = await promises.open(file, flags, mode)
          return { writeFile: () => Promise.reject(full), sync: () => handle.sync(), close: () => handle.close() }
        }
      } as unknown as Files
      const store = yield* makeDirectoryStore(folder, files)
      const error = yield* Effect.flip(store.save("peers.dat", next))
      assert.strictEqual(error.problem, "Full")
      assert.deepStrictEqual(fs.readdirSync(folder), [".lock"])
    })
  )

  it.live("is not left in the middle by an interruption", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const store = yield* NodeStore.makeDirectory(folder)
      const fiber = yield* Effect.forkChild(store.save("peers.dat", next), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(fs.readdirSync(folder).toSorted(), [".lock", "peers.dat"])
    })
  )
})

describe("the lock of a directory", () => {
  it.live("is held until the end of the scope", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const scope = yield* Scope.make()
      yield* Scope.provide(NodeStore.makeDirectory(folder), scope)
      const error = yield* Effect.flip(NodeStore.makeDirectory(folder))
      assert.strictEqual(error._tag, "Locked")
      assert.include(error.message, `${folder} is in use by process ${process.pid}`)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(fs.readdirSync(folder), [])
      yield* NodeStore.makeDirectory(folder)
    })
  )

  const lockText = (folder: string) => fs.readFileSync(path.join(folder, ".lock"), "utf8")

  it.live("is taken over from a process that no longer runs, or did not write it to its end", () =>
    Effect.gen(function* () {
      const child = spawn(process.execPath, ["--version"], { stdio: "ignore" })
      yield* Effect.promise(() => new Promise((resolve) => child.on("exit", resolve)))
      for (const text of [`{"pid":${child.pid}}`, "", `{"pid":12`, "[]", `{"pid":-1}`, `{"pid":"1"}`]) {
        const folder = yield* temporary
        fs.writeFileSync(path.join(folder, ".lock"), text)
        yield* NodeStore.makeDirectory(folder)
        assert.include(lockText(folder), `"pid":${process.pid}`, text)
        assert.deepStrictEqual(fs.readdirSync(folder), [".lock"])
      }
    })
  )

  it.live.skipIf(process.platform !== "linux")("is taken over from an earlier process with the same number", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* NodeStore.makeDirectory(folder)
          const { pid, start } = JSON.parse(lockText(folder))
          fs.writeFileSync(path.join(folder, ".lock"), JSON.stringify({ pid, start: `${start}0` }))
        })
      )
      assert.deepStrictEqual(fs.readdirSync(folder), [".lock"], "a lock of another process is not released")
      yield* NodeStore.makeDirectory(folder)
    })
  )

  it.live("fails with a typed error where no directory can be", () =>
    Effect.gen(function* () {
      const file = path.join(yield* temporary, "file")
      fs.writeFileSync(file, "")
      const error = yield* Effect.flip(NodeStore.makeDirectory(file))
      assert.match(error.message, /^cannot open .*file: .*; nothing can be kept there$/)
    })
  )

  it.live.skipIf(process.getuid?.() === 0)("fails with NoPermission where nothing can be written", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      fs.chmodSync(folder, 0o500)
      const error = yield* Effect.flip(NodeStore.makeDirectory(folder))
      assert(error._tag === "StoreError")
      assert.strictEqual(error.problem, "NoPermission")
    })
  )
})

/** A process that opens the directory, prints a line, and saves `a…a` and `b…b` in turn until it is killed. */
const saver = (folder: string) => {
  const code = `
    import { Effect } from "effect"
    import * as NodeStore from "./src/server/NodeStore.ts"
    const texts = ["a", "b"].map((letter) => Buffer.alloc(400_000, letter))
    await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
      const store = yield* NodeStore.makeDirectory(${JSON.stringify(folder)})
      for (let i = 0; ; i++) {
        yield* store.save("peers.dat", texts[i % 2])
        if (i === 2) console.log("saving")
      }
    })))`
  return Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--input-type=module", "--eval", code], {
        cwd: root,
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    (child) => Effect.promise(() => killAndWait(child))
  )
}
const killAndWait = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.on("exit", () => resolve())
    child.kill("SIGKILL")
  })

describe("a process that saves", () => {
  it.live(
    "keeps others out, leaves whole bytes when it is killed, and its lock is taken over",
    () =>
      Effect.gen(function* () {
        const folder = yield* temporary
        for (let round = 0; round < 5; round++) {
          const child = yield* saver(folder)
          yield* Effect.promise(() => new Promise((resolve) => child.stdout!.once("data", resolve)))
          const error = yield* Effect.flip(NodeStore.makeDirectory(folder))
          assert(error._tag === "Locked")
          assert.strictEqual(error.pid, child.pid)
          yield* Effect.sleep(round * 3.7)
          yield* Effect.promise(() => killAndWait(child))
          const bytes = yield* NodeStore.makeDirectory(folder).pipe(
            Effect.flatMap((store) => store.load("peers.dat")),
            Effect.scoped
          )
          const text = Buffer.from(Option.getOrThrow(bytes)).toString()
          assert.isTrue(text === "a".repeat(400_000) || text === "b".repeat(400_000), `${text.length} bytes`)
        }
      }),
    60_000
  )

  it.live(
    "is the only one of five that start at once on an old lock",
    () =>
      Effect.gen(function* () {
        const folder = yield* temporary
        fs.writeFileSync(path.join(folder, ".lock"), "{}")
        const code = `
        import { Effect } from "effect"
        import * as NodeStore from "./src/server/NodeStore.ts"
        process.stdin.once("data", () => {
          Effect.runPromise(Effect.scoped(NodeStore.makeDirectory(${JSON.stringify(folder)}).pipe(
            Effect.match({ onFailure: (error) => error._tag, onSuccess: () => "open" }),
            Effect.tap((said) => Effect.sync(() => console.log(said))),
            Effect.andThen(Effect.never)
          )))
        })
        console.log("ready")`
        const children = yield* Effect.forEach(Array.from({ length: 5 }), () =>
          Effect.acquireRelease(
            Effect.sync(() =>
              spawn(process.execPath, ["--input-type=module", "--eval", code], {
                cwd: root,
                stdio: ["pipe", "pipe", "inherit"]
              })
            ),
            (child) => Effect.promise(() => killAndWait(child))
          )
        )
        const said = (child: (typeof children)[number]) =>
          Effect.promise(
            () => new Promise<string>((resolve) => child.stdout.once("data", (line) => resolve(String(line).trim())))
          )
        const readies = yield* Effect.forEach(children, said, { concurrency: "unbounded" })
        assert.deepStrictEqual(readies, Array(5).fill("ready"))
        const answers = yield* Effect.forEach(
          children,
          (child) => {
            const answer = said(child)
            return Effect.andThen(
              Effect.sync(() => child.stdin.write("go\n")),
              answer
            )
          },
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(answers.toSorted(), ["Locked", "Locked", "Locked", "Locked", "open"])
        assert.deepStrictEqual(
          fs.readdirSync(folder).filter((name) => name !== ".lock"),
          []
        )
      }),
    60_000
  )
})
