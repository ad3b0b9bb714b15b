/** bitcoinjs-lib, as far as it is compared with; it is installed in `benchmark/`, and the rest runs without it. */
import * as fs from "node:fs"
import * as path from "node:path"

export interface BitcoinJsTransaction {
  readonly version: number
  readonly locktime: number
  readonly ins: ReadonlyArray<{
    readonly hash: Uint8Array
    readonly index: number
    readonly script: Uint8Array
    readonly sequence: number
    readonly witness: ReadonlyArray<Uint8Array>
  }>
  readonly outs: ReadonlyArray<{ readonly value: bigint; readonly script: Uint8Array }>
  readonly getHash: (forWitness?: boolean) => Uint8Array
}

export interface BitcoinJsBlock {
  readonly version: number
  readonly prevHash: Uint8Array
  readonly merkleRoot: Uint8Array
  readonly timestamp: number
  readonly bits: number
  readonly nonce: number
  readonly transactions: ReadonlyArray<BitcoinJsTransaction>
  readonly toBuffer: () => Uint8Array
}

export interface BitcoinJs {
  /** With its version, for the table. */
  readonly name: string
  readonly Block: { readonly fromBuffer: (bytes: Uint8Array) => BitcoinJsBlock }
}

export const loadBitcoinJs = async (): Promise<BitcoinJs | undefined> => {
  const manifest = path.join(import.meta.dirname, "node_modules/bitcoinjs-lib/package.json")
  if (!fs.existsSync(manifest)) {
    console.error("bitcoinjs-lib is not installed, its rows are left out. Install it with: npm ci --prefix benchmark")
    return undefined
  }
  const { version } = JSON.parse(fs.readFileSync(manifest, "utf8")) as { readonly version: string }
  // Not a literal, so that the type checker does not ask for a package that need not be there.
  const specifier: string = "bitcoinjs-lib"
  const { Block } = (await import(specifier)) as Pick<BitcoinJs, "Block">
  return { name: `bitcoinjs-lib ${version}`, Block }
}
