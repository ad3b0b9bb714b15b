/** A FileSystem in memory for the tests of Capture. */
import { Effect, FileSystem, PlatformError } from "effect"

export const systemError = (_tag: "NotFound" | "PermissionDenied" | "Unknown", path: string, cause?: Error) =>
  PlatformError.systemError({ _tag, module: "FileSystem", method: "test", pathOrDescriptor: path, cause })

/** Files in memory, for appending only. `before` runs before each write, and may fail or wait. */
export const memoryFiles = (
  before: (path: string, size: number) => Effect.Effect<void, PlatformError.PlatformError> = () => Effect.void
) => {
  const files = new Map<string, Uint8Array>()
  const directories = new Set<string>()
  const open = new Set<string>()
  const unused = Effect.die(new Error("not implemented for tests"))
  const fileSystem = FileSystem.makeNoop({
    makeDirectory: (path) => Effect.sync(() => void directories.add(path)),
    open: (path, options) => {
      const directory = path.slice(0, path.lastIndexOf("/"))
      if (options?.flag !== "a") return Effect.die(new Error("files can only be appended to"))
      if (!directories.has(directory)) return Effect.fail(systemError("NotFound", path))
      const writeAll = (bytes: Uint8Array) =>
        Effect.andThen(
          before(path, bytes.length),
          Effect.sync(
            () => void files.set(path, new Uint8Array(Buffer.concat([files.get(path) ?? new Uint8Array(0), bytes])))
          )
        )
      return Effect.acquireRelease(
        Effect.sync(() => {
          open.add(path)
          files.set(path, files.get(path) ?? new Uint8Array(0))
          return {
            "~effect/FileSystem/File": "~effect/FileSystem/File",
            stat: unused,
            sync: unused,
            seek: () => unused,
            read: () => unused,
            readAlloc: () => unused,
            truncate: () => unused,
            write: () => unused,
            writeAll
          } as const satisfies FileSystem.File
        }),
        () => Effect.sync(() => void open.delete(path))
      )
    }
  })
  return { files, directories, open, fileSystem }
}
