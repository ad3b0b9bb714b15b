/** Counts open connections, in total and for each remote address. */
import { NetAddress } from "effect/net"
import * as Result from "effect/Result"

/** The key of an address. IPv6 addresses count by /64, the smallest block that one customer gets. */
const countedAs = (host: string): string => {
  if (!host.includes(":")) return host
  const ip = NetAddress.ipFromString(host)
  if (Result.isFailure(ip) || NetAddress.isIpv4Address(ip.success)) return host
  return NetAddress.ipv6ToSegments(ip.success).slice(0, 4).join(":")
}

export interface Limits {
  readonly maxConnections: number
  readonly maxPerAddress: number
}

/** Counts connections. It has entries only for addresses with an open connection. */
export const makeCount = ({ maxConnections, maxPerAddress }: Limits) => {
  const perAddress = new Map<string, number>()
  let open = 0
  return {
    open: (): number => open,
    /** Counts a connection and returns the function that removes it, or undefined if a limit is reached. */
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
