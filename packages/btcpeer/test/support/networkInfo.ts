/** A server without peers, as `getnetworkinfo` shows it. */
import { NetworkInfo } from "effect-bitcoin-peer/server/NetworkInfo"

export const networkInfo = (fields: Partial<NetworkInfo> = {}): NetworkInfo =>
  new NetworkInfo({
    version: 100,
    subversion: "/us:1/",
    protocolversion: 70_016,
    localservices: "0000000000000000",
    localservicesnames: [],
    localrelay: true,
    timeoffset: 0,
    networkactive: true,
    connections: 0,
    connections_in: 0,
    connections_out: 0,
    networks: [],
    localaddresses: [],
    warnings: [],
    ...fields
  })
