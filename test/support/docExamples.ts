/** The ```ts blocks of the documentation. */
import * as fs from "node:fs"
import * as path from "node:path"

export const root = path.resolve(import.meta.dirname, "../..")

export interface Example {
  /** The path of its file, relative to the root of the repository. */
  readonly source: string
  /** The number of its first line of code. */
  readonly line: number
  readonly code: string
}

/** The blocks of a Markdown file, or of the doc comments of a source, without their stars. */
export const examplesOf = (source: string): ReadonlyArray<Example> => {
  const found: Array<Example> = []
  const isComment = source.endsWith(".ts")
  let begun: { readonly line: number; readonly code: Array<string> } | undefined
  for (const [index, text] of fs.readFileSync(path.join(root, source), "utf8").split("\n").entries()) {
    const line = isComment ? /^\s*\* ?(.*)$/.exec(text)?.[1] : text
    if (line === undefined) begun = undefined
    else if (begun === undefined && /^\s*```ts\b/.test(line)) begun = { line: index + 2, code: [] }
    else if (begun !== undefined && /^\s*```\s*$/.test(line)) {
      found.push({ source, line: begun.line, code: begun.code.join("\n") })
      begun = undefined
    } else begun?.code.push(line)
  }
  return found
}
