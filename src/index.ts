/**
 * A concurrent Bitcoin peer on Effect. Nothing here imports `node:`; connections over TCP are in
 * `effect-bitcoin-peer/NodeConnection`.
 */
export * as Address from "./Address.ts"
export * as Block from "./Block.ts"
export * as BloomFilter from "./BloomFilter.ts"
export * as Capture from "./Capture.ts"
export * as CompactBlock from "./CompactBlock.ts"
export * as CompactFilter from "./CompactFilter.ts"
export * as Connection from "./Connection.ts"
export * as Handshake from "./Handshake.ts"
export * as Inventory from "./Inventory.ts"
export * as MerkleBlock from "./MerkleBlock.ts"
export * as Network from "./Network.ts"
export * as Nonce from "./Nonce.ts"
export * as Peer from "./Peer.ts"
export * as PeerServer from "./PeerServer.ts"
export * as Policy from "./Policy.ts"
export * as Transport from "./Transport.ts"
export * as Wire from "./Wire.ts"
export * as WireJson from "./WireJson.ts"
