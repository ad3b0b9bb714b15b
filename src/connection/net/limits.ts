/** How many connections are open, in all and from where. */
import { NetAddress } from "effect/net"
import * as Result from "effect/Result"

/** An address as it counts: IPv6 by its first 64 bits, of which one customer has at least one whole. */
const countedAs = (host: string): string => {
  const ip = NetAddress.ipFromString(host)
  if (Result.isFailure(ip) || NetAddress.isIpv4Address(ip.success)) return host
  return NetAddress.ipv6ToSegments(ip.success).slice(0, 4).join(":")
}

export interface Limits {
  readonly maxConnections: number
  readonly maxPerAddress: number
}

/** Counts connections. It holds an entry only for addresses that have one open. */
export const makeCount = ({ maxConnections, maxPerAddress }: Limits) => {
  const perAddress = new Map<string, number>()
  let open = 0
  return {
    open: (): number => open,
    /** Counts one in, and gives what counts it out; undefined when there are enough already. */
    enter: (host: string): (() => void) | undefined => {
      const key = countedAs(host)
      const before = perAddress.get(key) ?? 0
      if (open >= maxConnections || before >= maxPerAddress) return undefined
      open++
      perAddress.set(key, before + 1)
      return () => {
        open--
        const rest = perAddress.get(key)! - 1
        if (rest === 0) perAddress.delete(key)
        else perAddress.set(key, rest)
      }
    }
  }
}
