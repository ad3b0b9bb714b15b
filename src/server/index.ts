/** Many peers: connection management, addresses, bans, and what Bitcoin Core's `net` and btcd's `server` do around one peer. */
export * as ConnectionKind from "./ConnectionKind.ts"
export * as Dialer from "./Dialer.ts"
