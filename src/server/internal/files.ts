/** Files that are replaced as a whole: after a crash at any moment the old file or the new one is there. */
import type * as fs from "node:fs/promises"
import * as path from "node:path"

/** The operations of `node:fs/promises` that are used. */
export type Files = Pick<typeof fs, "open" | "readFile" | "rename" | "rm">

/** The new name of a file is on the disk only after this. Windows cannot open a directory, and writes names at once. */
const syncDirectory = async (files: Files, directory: string): Promise<void> => {
  if (process.platform === "win32") return
  const handle = await files.open(directory, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** The bytes of a file, or undefined if there is no file. */
export const loadFile = async (files: Files, file: string): Promise<Uint8Array | undefined> => {
  try {
    return new Uint8Array(await files.readFile(file))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw error
  }
}

/** Writes a new file beside the old one and gives it the name of the old one. */
export const saveFile = async (files: Files, file: string, bytes: Uint8Array): Promise<void> => {
  const next = `${file}.tmp`
  // Left by a process that was killed. A new file has the mode that it is made with.
  await files.rm(next, { force: true })
  try {
    const handle = await files.open(next, "wx", 0o600)
    try {
      await handle.writeFile(bytes)
      // Without this, the new name can be on the disk before the bytes.
      await handle.sync()
    } finally {
      await handle.close()
    }
    await files.rename(next, file)
  } catch (error) {
    await files.rm(next, { force: true }).catch(() => {})
    throw error
  }
  await syncDirectory(files, path.dirname(file))
}

/** Gives a file another name. */
export const renameFile = async (files: Files, from: string, to: string): Promise<void> => {
  await files.rename(from, to)
  await syncDirectory(files, path.dirname(to))
}
