/** Ranges of IP addresses with a special meaning, as in Bitcoin Core's netaddress.cpp. */

/** Ranges of IPv6 by their first bytes. */
export const prefixes = {
  /** ::ffff:0:0/96, IPv4-mapped: an IPv4 address follows */
  mapped: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
  /** fd87:d87e:eb43::/48, OnionCat, which embeds Tor v2 addresses */
  onionCat: [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43],
  /** fd6b:88c0:8724::/48, internal names of Bitcoin Core's address tables */
  internal: [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24],
  /** 2001:db8::/32, for documentation */
  rfc3849: [0x20, 0x01, 0x0d, 0xb8],
  /** 2002::/16, 6to4: an IPv4 address follows */
  rfc3964: [0x20, 0x02],
  /** 64:ff9b::/96, NAT64: an IPv4 address follows */
  rfc6052: [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0],
  /** ::ffff:0:0:0/96, SIIT: an IPv4 address follows */
  rfc6145: [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0],
  /** 2001::/32, Teredo: the last four bytes are an IPv4 address, inverted */
  rfc4380: [0x20, 0x01, 0, 0],
  /** fe80::/64, link-local */
  rfc4862: [0xfe, 0x80, 0, 0, 0, 0, 0, 0],
  /** 2001:470::/32, the tunnels of Hurricane Electric */
  heNet: [0x20, 0x01, 0x04, 0x70]
} as const

/** Whether the bytes at `offset` begin with a prefix. */
export const isIn = (bytes: Uint8Array, prefix: ReadonlyArray<number>, offset = 0): boolean => {
  for (let i = 0; i < prefix.length; i++) if (bytes[offset + i] !== prefix[i]) return false
  return true
}

/** Whether an IPv4 address is private, shared by a carrier, link-local, or reserved for benchmarks or documentation. */
export const isReservedIPv4 = (bytes: Uint8Array): boolean => {
  const [first, second, third] = bytes as unknown as readonly [number, number, number]
  switch (first) {
    case 10: // RFC 1918
      return true
    case 100: // RFC 6598
      return second >= 64 && second <= 127
    case 169: // RFC 3927
      return second === 254
    case 172: // RFC 1918
      return second >= 16 && second <= 31
    case 192: // RFC 1918, RFC 5737
      return second === 168 || (second === 0 && third === 2)
    case 198: // RFC 2544, RFC 5737
      return second === 18 || second === 19 || (second === 51 && third === 100)
    case 203: // RFC 5737
      return second === 0 && third === 113
    default:
      return false
  }
}

/** Whether an IPv6 address is link-local, unique local, or ORCHID of either version. */
export const isReservedIPv6 = (bytes: Uint8Array): boolean =>
  isIn(bytes, prefixes.rfc4862) ||
  (bytes[0]! & 0xfe) === 0xfc || // RFC 4193
  (isIn(bytes, [0x20, 0x01, 0]) && ((bytes[3]! & 0xf0) === 0x10 || (bytes[3]! & 0xf0) === 0x20)) // RFC 4843, RFC 7343
