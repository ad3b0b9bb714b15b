/** The architecture: layers of rooms, and the allowed imports between them. An import of a type counts as an import. */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"

const root = path.resolve(import.meta.dirname, "..")
const src = path.join(root, "src")

/** The rooms, lowest first. A room is a closed folder (if it has one) and the public modules on top of it. */
const rooms: ReadonlyArray<{ readonly name: string; readonly modules: ReadonlyArray<string> }> = [
  { name: "primitives", modules: [] },
  { name: "address", modules: ["Address"] },
  { name: "wire", modules: ["WireError", "Wire"] },
  {
    name: "data",
    modules: [
      "WireJson",
      "Network",
      "Policy",
      "Inventory",
      "Block",
      "BloomFilter",
      "MerkleBlock",
      "CompactBlock",
      "CompactFilter"
    ]
  },
  { name: "connection", modules: ["ConnectionError", "Connection", "NodeConnection"] },
  { name: "transport", modules: ["Transport"] },
  { name: "handshake", modules: ["HandshakeError", "Nonce", "Handshake"] },
  { name: "peer", modules: ["PeerError", "Peer", "PeerServer"] },
  { name: "capture", modules: ["Capture"] }
]
/**
 * Rooms that import only public modules, as a user's program does, and the lowest room: hash functions and numbers in bytes belong to no
 * peer.
 */
const outer = new Set(["node", "light", "server", "testing", "dashboard"])
const ground = "primitives/"

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

/** The specifiers of all imports and re-exports of a file. */
const specifiersOf = (file: string): ReadonlyArray<string> => {
  const code = fs.readFileSync(file, "utf8").replace(/\/\*[\s\S]*?\*\//g, "")
  return Array.from(
    code.matchAll(/^(?:import|export)\b[^"]*?\bfrom "([^"]+)"|^import "([^"]+)"/gm),
    ([, from, bare]) => from ?? bare!
  )
}

const importsOf = (file: string): ReadonlyArray<string> =>
  specifiersOf(path.join(src, file))
    .filter((specifier) => specifier.startsWith("."))
    .map((specifier) => path.posix.join(path.posix.dirname(file), specifier))
    .filter((file) => files.includes(file))

const arrows = files.flatMap((from) => importsOf(from).map((to) => ({ from, to })))
const shown = ({ from, to }: { readonly from: string; readonly to: string }): string => `${from} -> ${to}`

describe("the rooms of src", () => {
  it("contain every file", () => {
    assert.deepStrictEqual(
      files.filter((file) => roomOf(file) < 0 && !isOuter(file)),
      []
    )
  })

  it("do not import from a higher room", () => {
    const up = arrows.filter(({ from, to }) => !isOuter(from) && (isOuter(to) || roomOf(to) > roomOf(from)))
    assert.deepStrictEqual(up.map(shown), [])
  })

  it("do not import their own public modules from inside their folders", () => {
    const known = arrows.filter(
      ({ from, to }) =>
        from.includes("/") && !to.includes("/") && !to.endsWith("Error.ts") && roomOf(from) === roomOf(to)
    )
    assert.deepStrictEqual(known.map(shown), ["handshake/run.ts -> Nonce.ts"])
  })

  it("are imported by the outer rooms through public modules only", () => {
    const inside = arrows.filter(
      ({ from, to }) =>
        isOuter(from) && to.includes("/") && !to.startsWith(ground) && from.split("/")[0] !== to.split("/")[0]
    )
    assert.deepStrictEqual(inside.map(shown), [])
  })

  it("have folders that users of the package cannot import", () => {
    const { exports } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"))
    const closed = rooms.map(({ name }) => name).filter((name) => fs.existsSync(path.join(src, name)))
    for (const name of closed) assert.strictEqual(exports[`./${name}/*`], null, name)
  })
})

describe("the other packages and the examples", () => {
  const packages = path.join(root, "packages")
  const outside = [
    path.join(root, "examples"),
    ...(fs.existsSync(packages) ? fs.readdirSync(packages).map((name) => path.join(packages, name, "src")) : [])
  ]
    .flatMap((folder) =>
      fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => path.join(folder, name))
    )
    .filter((file) => file.endsWith(".ts"))

  it("import this package by its name, as a user's program does", () => {
    const reaching = outside.filter((file) =>
      specifiersOf(file).some((specifier) => path.resolve(path.dirname(file), specifier).startsWith(src + path.sep))
    )
    assert.deepStrictEqual(reaching, [])
  })
})
