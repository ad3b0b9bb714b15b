/** A server as Bitcoin Core's `getnetworkinfo` prints a node, with Core's names and units. */
import * as Schema from "effect/Schema"
import { publicNetworks } from "./internal/networkNames.ts"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/**
 * A server as `getnetworkinfo` of Bitcoin Core prints a node.
 *
 * @category models
 * @since 0.1.0
 */
export class NetworkInfo extends Schema.Class<NetworkInfo>("effect-bitcoin-peer/server/NetworkInfo")({
  /** The version of the software, as a number: 100 is 0.1.0. */
  version: Count,
  /** Our user agent. */
  subversion: Schema.String,
  protocolversion: Schema.Int,
  /** 16 hexadecimal digits. */
  localservices: Schema.String,
  localservicesnames: Schema.Array(Schema.String),
  /** Whether transactions are wanted. */
  localrelay: Schema.Boolean,
  /** The median of the last outbound peers' clocks minus ours, in seconds. */
  timeoffset: Schema.Finite,
  networkactive: Schema.Boolean,
  connections: Count,
  connections_in: Count,
  connections_out: Count,
  networks: Schema.Array(
    Schema.Struct({
      name: Schema.Literals(publicNetworks),
      /** Whether addresses of this network are not dialled automatically. */
      limited: Schema.Boolean,
      reachable: Schema.Boolean,
      /** "host:port", or empty. */
      proxy: Schema.String,
      proxy_randomize_credentials: Schema.Boolean
    })
  ),
  /** Our own addresses. */
  localaddresses: Schema.Array(Schema.Struct({ address: Schema.String, port: Count, score: Count })),
  warnings: Schema.Array(Schema.String)
}) {}
