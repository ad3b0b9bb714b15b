/** The plan of the house: rooms on floors, and who may import whom. A type counts as an import. */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"

const root = path.resolve(import.meta.dirname, "..")
const src = path.join(root, "src")

/** From the ground up. A room is its closed folder, if it has one, and the public modules that stand on it. */
const rooms: ReadonlyArray<{ readonly name: string; readonly modules: ReadonlyArray<string> }> = [
  { name: "primitives", modules: [] },
  { name: "address", modules: ["Address"] },
  { name: "wire", modules: ["WireError", "Wire"] },
  {
    name: "data",
    modules: ["Network", "Policy", "Inventory", "Block", "BloomFilter", "MerkleBlock", "CompactBlock", "CompactFilter"]
  },
  { name: "connection", modules: ["ConnectionError", "Connection", "NodeConnection"] },
  { name: "transport", modules: ["Transport"] },
  { name: "handshake", modules: ["HandshakeError", "Nonce", "Handshake"] },
  { name: "peer", modules: ["PeerError", "Peer"] },
  { name: "capture", modules: ["Capture"] }
]
/** Built on the public modules alone, as a program of a user's is. */
const outer = new Set(["node", "light", "testing", "dashboard", "cli"])

const files = fs
  .readdirSync(src, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => name.replaceAll(path.sep, "/"))

const roomOf = (file: string): number => {
  const [folder = "", rest] = file.split("/", 2)
  return rooms.findIndex(({ modules, name }) =>
    rest === undefined ? modules.includes(file.replace(/\.ts$/, "")) : folder === name
  )
}
const isOuter = (file: string): boolean => file === "index.ts" || outer.has(file.split("/")[0]!)

const importsOf = (file: string): ReadonlyArray<string> =>
  Array.from(
    fs
      .readFileSync(path.join(src, file), "utf8")
      .replace(/\/\*[\s\S]*?\*\//g, "")
      .matchAll(/^(?:import|export)\b[^"]*?\bfrom "(\.[^"]+)"/gm),
    ([, specifier]) => path.posix.join(path.posix.dirname(file), specifier!)
  ).filter((file) => files.includes(file))

const arrows = files.flatMap((from) => importsOf(from).map((to) => ({ from, to })))
const shown = ({ from, to }: { readonly from: string; readonly to: string }): string => `${from} -> ${to}`

describe("the house", () => {
  it("has a room for every file", () => {
    assert.deepStrictEqual(
      files.filter((file) => roomOf(file) < 0 && !isOuter(file)),
      []
    )
  })

  it("has no import that runs up", () => {
    const up = arrows.filter(({ from, to }) => !isOuter(from) && (isOuter(to) || roomOf(to) > roomOf(from)))
    assert.deepStrictEqual(up.map(shown), [])
  })

  it("has no room whose inside knows the module that stands on it", () => {
    const known = arrows.filter(
      ({ from, to }) =>
        from.includes("/") && !to.includes("/") && !to.endsWith("Error.ts") && roomOf(from) === roomOf(to)
    )
    assert.deepStrictEqual(known.map(shown), ["handshake/run.ts -> Nonce.ts"])
  })

  it("is entered by its public modules from the rooms above it", () => {
    const inside = arrows.filter(
      ({ from, to }) => isOuter(from) && to.includes("/") && from.split("/")[0] !== to.split("/")[0]
    )
    assert.deepStrictEqual(inside.map(shown), [])
  })

  it("has its closed rooms closed to the outside, too", () => {
    const { exports } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"))
    const closed = rooms.map(({ name }) => name).filter((name) => fs.existsSync(path.join(src, name)))
    for (const name of [...closed, "cli"]) assert.strictEqual(exports[`./${name}/*`], null, name)
  })
})
