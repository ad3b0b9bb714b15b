/** Many peers: connection management, addresses, bans, and what Bitcoin Core's `net` and btcd's `server` do around one peer. */
export * as ChainView from "./ChainView.ts"
export * as ConnectionKind from "./ConnectionKind.ts"
export * as Dialer from "./Dialer.ts"
export * as NetworkInfo from "./NetworkInfo.ts"
export * as PeerInfo from "./PeerInfo.ts"
export * as Server from "./Server.ts"
