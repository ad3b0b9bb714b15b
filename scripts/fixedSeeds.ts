/**
 * Writes src/server/fixedSeeds/*.json from the lists of Bitcoin Core: `node scripts/fixedSeeds.ts path/to/bitcoin/contrib/seeds`. Core
 * makes them before each release, with at most 512 nodes of a network and few of an autonomous system. Run it before a release of ours.
 */
import * as fs from "node:fs"
import * as path from "node:path"

const lists = { mainnet: "nodes_main.txt", testnet4: "nodes_testnet4.txt", signet: "nodes_signet.txt" }
const maximum = 512

const networkOf = (host: string): string => {
  if (host.endsWith(".onion")) return "onion"
  if (host.endsWith(".b32.i2p")) return "i2p"
  if (!host.startsWith("[")) return "ipv4"
  return host.toLowerCase().startsWith("[fc") ? "cjdns" : "ipv6"
}

const [seeds] = process.argv.slice(2)
if (seeds === undefined) throw new Error("usage: node scripts/fixedSeeds.ts path/to/bitcoin/contrib/seeds")
for (const [network, list] of Object.entries(lists)) {
  const byNetwork: Record<string, Array<string>> = { ipv4: [], ipv6: [], onion: [], i2p: [], cjdns: [] }
  for (const line of fs.readFileSync(path.join(seeds, list), "utf8").split("\n")) {
    const address = line.replace(/#.*/, "").trim()
    if (address === "") continue
    const kept = byNetwork[networkOf(address.slice(0, address.lastIndexOf(":")))]!
    if (kept.length < maximum) kept.push(address)
  }
  const file = path.join(import.meta.dirname, `../src/server/fixedSeeds/${network}.json`)
  fs.writeFileSync(file, `${JSON.stringify(byNetwork, undefined, 1)}\n`)
  const counts = Object.entries(byNetwork).map(([name, { length }]) => `${name} ${length}`)
  console.log(`${network}: ${counts.join(", ")}`)
}
