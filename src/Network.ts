/**
 * The Bitcoin networks as values: magic, default port, genesis block, DNS seeds. A custom network is a value of the same
 * type.
 *
 * @example
 * ```ts
 * import { Network } from "effect-bitcoin-peer"
 *
 * const custom: Network.Network = { ...Network.signet, name: "my signet", magic: Uint8Array.of(1, 2, 3, 4), dnsSeeds: [] }
 * console.log(Network.regtest.port, custom.name) // 18444 my signet
 * ```
 */
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

const bytesOfSize = (size: number) =>
  Schema.Uint8ArrayFromHex.check(
    Schema.makeFilter((bytes: Uint8Array) => bytes.length === size || `expected ${size} bytes in hex`)
  )

const reversed = (hash: Uint8Array): Uint8Array => hash.toReversed()

const HashFromHex = bytesOfSize(32).pipe(
  Schema.decodeTo(Schema.Uint8Array, SchemaTransformation.transform({ decode: reversed, encode: reversed }))
)

/**
 * A network. Encoded as JSON, `magic` is 8 hex digits in wire order and `genesisHash` is 64 hex digits in reversed
 * order, as people write hashes. In memory both are bytes in wire order.
 *
 * @category models
 * @since 0.1.0
 */
export const Network = Schema.Struct({
  /** A name for logs and people. It is not sent. */
  name: Schema.NonEmptyString,
  /** The 4 bytes at the start of every version 1 frame. */
  magic: bytesOfSize(4),
  /** The TCP port on which nodes of this network listen by default. */
  port: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65_535 })),
  /** Hash of block 0, 32 bytes in wire order. */
  genesisHash: HashFromHex,
  /**
   * The first height with segregated witness (BIP141), 0 by default. A coinbase below it may have an output with a
   * witness commitment and no witness, as in mainnet block 481,815.
   */
  segwitHeight: Schema.optional(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  /** Host names that resolve to addresses of nodes. This package never looks them up by itself. */
  dnsSeeds: Schema.Array(Schema.String)
})
export type Network = typeof Network.Type

const network = Schema.decodeSync(Network)

/**
 * The main network.
 *
 * @category constants
 * @since 0.1.0
 */
export const mainnet: Network = network({
  name: "mainnet",
  magic: "f9beb4d9",
  port: 8333,
  genesisHash: "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
  segwitHeight: 481_824,
  dnsSeeds: [
    "dnsseed.bluematt.me",
    "seed.bitcoin.jonasschnelli.ch",
    "seed.btc.petertodd.net",
    "seed.bitcoin.sprovoost.nl",
    "dnsseed.emzy.de",
    "seed.bitcoin.wiz.biz",
    "seed.mainnet.achownodes.xyz"
  ]
})

/**
 * The third test network.
 *
 * @category constants
 * @since 0.1.0
 */
export const testnet3: Network = network({
  name: "testnet3",
  magic: "0b110907",
  port: 18333,
  genesisHash: "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
  segwitHeight: 834_624,
  dnsSeeds: [
    "testnet-seed.bitcoin.jonasschnelli.ch",
    "seed.tbtc.petertodd.net",
    "testnet-seed.bluematt.me",
    "seed.testnet.achownodes.xyz"
  ]
})

/**
 * The fourth test network (BIP94).
 *
 * @category constants
 * @since 0.1.0
 */
export const testnet4: Network = network({
  name: "testnet4",
  magic: "1c163f28",
  port: 48333,
  genesisHash: "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
  dnsSeeds: ["seed.testnet4.bitcoin.sprovoost.nl", "seed.testnet4.wiz.biz"]
})

/**
 * The public signet (BIP325). A custom signet has the first 4 bytes of the hash of its challenge as magic.
 *
 * @category constants
 * @since 0.1.0
 */
export const signet: Network = network({
  name: "signet",
  magic: "0a03cf40",
  port: 38333,
  genesisHash: "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
  dnsSeeds: ["seed.signet.bitcoin.sprovoost.nl", "seed.signet.achownodes.xyz"]
})

/**
 * The network for regression tests, on which anyone can mine at once.
 *
 * @category constants
 * @since 0.1.0
 */
export const regtest: Network = network({
  name: "regtest",
  magic: "fabfb5da",
  port: 18444,
  genesisHash: "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
  dnsSeeds: []
})

/**
 * The network of btcd for simulations.
 *
 * @category constants
 * @since 0.1.0
 */
export const simnet: Network = network({
  name: "simnet",
  magic: "161c1412",
  port: 18555,
  genesisHash: "683e86bd5c6d110d91b94b97137ba6bfe02dbbdb8e3dff722a669b5d69d77af6",
  dnsSeeds: []
})

/**
 * All networks of this module, oldest first.
 *
 * @category constants
 * @since 0.1.0
 */
export const all: ReadonlyArray<Network> = [mainnet, testnet3, regtest, simnet, signet, testnet4]

/**
 * The network of this module whose frames start with these 4 bytes, if any.
 *
 * @category getters
 * @since 0.1.0
 */
export const fromMagic = (magic: Uint8Array): Network | undefined =>
  all.find((network) => network.magic.every((byte, index) => byte === magic[index]))

/**
 * The network of this module whose nodes listen on this port by default, if any.
 *
 * @category getters
 * @since 0.1.0
 */
export const fromPort = (port: number): Network | undefined => all.find((network) => network.port === port)

/**
 * The names of the networks of this module, for configurations and command lines.
 *
 * @category constants
 * @since 0.1.0
 */
export const names = ["mainnet", "testnet3", "testnet4", "signet", "regtest", "simnet"] as const
/**
 * The name of a network of this module.
 *
 * @category models
 * @since 0.1.0
 */
export type Name = (typeof names)[number]

/**
 * The network of this module with that name.
 *
 * @category getters
 * @since 0.1.0
 */
export const fromName = (name: Name): Network => ({ mainnet, testnet3, testnet4, signet, regtest, simnet })[name]
