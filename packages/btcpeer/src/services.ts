/** Services of a node, as people write them. */
import * as Wire from "effect-bitcoin-peer/Wire"

const bits = new Map(Object.values(Wire.Service).map((bit) => [Wire.serviceNames(bit)[0]!, bit]))

/** The names of services that have one, as Bitcoin Core prints them. */
export const names: ReadonlyArray<string> = Array.from(bits.keys())

/**
 * The service bits that a text names: names between commas, in upper or lower case, or the bits as a number, as in 1033 and 0x409.
 * Throws an `Error` that describes the problem.
 */
export const parseServices = (text: string): bigint => {
  if (/^(?:\d+|0x[0-9a-f]+)$/i.test(text)) {
    const services = BigInt(text)
    if (services < 1n << 64n) return services
    throw new Error("more than 64 bits")
  }
  let services = 0n
  for (const name of text.split(",")) {
    const bit = bits.get(name.trim().toUpperCase())
    if (bit === undefined) {
      throw new Error(
        `${name.trim() === "" ? "a name is missing" : `unknown service "${name.trim()}"`}; known: ${names.join(", ")}`
      )
    }
    services |= bit
  }
  return services
}
