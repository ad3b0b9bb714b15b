/**
 * Addresses of nodes that come with the package, for a start without any other source. They are files of their own, so that a program
 * that does not need them does not load them.
 */
import type { NetworkName } from "./networkNames.ts"

/** Addresses as text, by network. */
export type FixedSeeds = { readonly [network in NetworkName]?: ReadonlyArray<string> }

/** The files, by the name of the Bitcoin network. */
const files: { readonly [name: string]: (() => Promise<{ readonly default: FixedSeeds }>) | undefined } = {
  mainnet: () => import("../fixedSeeds/mainnet.json", { with: { type: "json" } }),
  testnet4: () => import("../fixedSeeds/testnet4.json", { with: { type: "json" } }),
  signet: () => import("../fixedSeeds/signet.json", { with: { type: "json" } })
}

/** Loads the addresses of a Bitcoin network; empty where the package has no addresses. */
export const loadFixedSeeds = async (name: string): Promise<FixedSeeds> =>
  (Object.hasOwn(files, name) ? await files[name]?.() : undefined)?.default ?? {}
