/** Lists of addresses as text: `peers.json` of btcd, arrays of JSON, and lines. */
import * as Result from "effect/Result"
import * as Address from "../../../Address.ts"
import type { AddressV2 } from "../../../Wire.ts"
import { bucketSize, newBuckets } from "./hash.ts"
import type { List, ListedAddress } from "./models.ts"
import type { Tables } from "./tables.ts"
import { type NetworkName, networkNameOf } from "../networkNames.ts"

/** The properties of an address that a text does not give. */
export interface Defaults {
  readonly port: number
  readonly services: bigint
  /** Seconds. */
  readonly time: number
}

const maxServices = (1n << 64n) - 1n

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const servicesOf = (value: unknown, otherwise: bigint): bigint => {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0) return otherwise
  const services = BigInt(value)
  return services > maxServices ? otherwise : services
}

/** Seconds as a uint32. */
const timeOf = (value: unknown, otherwise: number): number =>
  typeof value === "number" && value > 0 && value <= 0xffff_ffff ? Math.floor(value) : otherwise

/** Collects the entries of a list, and counts those that cannot be read. */
class Collector {
  readonly #found: Array<ListedAddress> = []
  #skipped = 0
  #problem: string | undefined

  take(imported: ListedAddress | string, where: string): void {
    if (typeof imported !== "string") {
      this.#found.push(imported)
      return
    }
    this.#skipped++
    this.#problem ??= `${where}: ${imported}`
  }

  get list(): List {
    return { found: this.#found, skipped: this.#skipped, problem: this.#problem }
  }
}

const withTime = (
  parsed: Result.Result<Address.Address, Address.AddressError>,
  timestamp: number,
  services: bigint,
  lastSuccess = 0
): ListedAddress | string =>
  Result.isFailure(parsed)
    ? parsed.failure.message
    : {
        address: { ...parsed.success, timestamp, services },
        // The operator's file is trusted: each address is its own source, so that no source group limits them.
        source: parsed.success,
        lastSuccess
      }

/** Lines of `host:port`, or of hosts alone. A `#` begins a comment. */
export const readLines = (text: string, defaults: Defaults): List => {
  const collector = new Collector()
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const address = line.replace(/#.*/, "").trim()
    if (address === "") continue
    collector.take(
      withTime(Address.parse(address, defaults.port), defaults.time, defaults.services),
      `line ${index + 1}`
    )
  }
  return collector.list
}

const isPort = (port: unknown): port is number =>
  typeof port === "number" && Number.isInteger(port) && port >= 0 && port <= 65_535

const at = (host: unknown, port: unknown): Result.Result<Address.Address, Address.AddressError> | string => {
  if (typeof host !== "string") return "the address is not a text"
  if (!isPort(port)) return `${JSON.stringify(port)} is not a port`
  return Result.map(Address.parseHost(host), (host) => ({ ...host, port }))
}

/** An object of `getnodeaddresses`, or an array of a snapshot of bitnodes: host, port, version, user agent, connected since, services. */
const readElement = (element: unknown, defaults: Defaults): ListedAddress | string => {
  const [host, port, time, services] = Array.isArray(element)
    ? [element[0], element[1], element[4], element[5]]
    : isObject(element)
      ? [element["address"], element["port"], element["time"], element["services"]]
      : []
  const address = at(host, port)
  return typeof address === "string"
    ? address
    : withTime(address, timeOf(time, defaults.time), servicesOf(services, defaults.services))
}

/** An array of JSON; a text says what is wrong with it. */
export const readJson = (json: unknown, defaults: Defaults): List | string => {
  if (!Array.isArray(json)) return "is not an array of addresses"
  const collector = new Collector()
  for (const [index, element] of json.entries()) collector.take(readElement(element, defaults), `element ${index}`)
  return collector.list
}

const newestPeersJson = 2

/** `peers.json` of btcd. Its buckets are not read: they are chosen at random. */
export const readPeersJson = (json: unknown, defaults: Defaults): List | string => {
  if (!isObject(json) || !Array.isArray(json["Addresses"])) return "is not a peers.json of btcd"
  const version = json["Version"]
  if (typeof version !== "number" || version < 1) return "is not a peers.json of btcd"
  if (version > newestPeersJson) return `has version ${version}, which is newer than ${newestPeersJson}`
  const collector = new Collector()
  for (const [index, element] of json["Addresses"].entries()) {
    const where = `address ${index}`
    if (!isObject(element) || typeof element["Addr"] !== "string") {
      collector.take("it has no Addr", where)
      continue
    }
    const imported = withTime(
      Address.parse(element["Addr"], defaults.port),
      timeOf(element["TimeStamp"], defaults.time),
      servicesOf(element["Services"], defaults.services),
      timeOf(element["LastSuccess"], 0)
    )
    const source = typeof element["Src"] === "string" ? Address.parse(element["Src"]) : undefined
    collector.take(
      typeof imported !== "string" && source !== undefined && Result.isSuccess(source)
        ? { ...imported, source: source.success }
        : imported,
      where
    )
  }
  return collector.list
}

// ---- writing

/** The addresses of `getnodeaddresses` of Bitcoin Core. */
export interface NodeAddress {
  readonly time: number
  readonly services: number
  readonly address: string
  readonly port: number
  readonly network: NetworkName
}

export const nodeAddress = ({ services, timestamp, ...address }: AddressV2): NodeAddress => ({
  time: timestamp,
  services: Number(services),
  address: Address.formatHost(address),
  port: address.port,
  network: networkNameOf(address)
})

const btcdTriedBuckets = 64
/** btcd has 64 tried buckets of 256 instead of 256 of 64, and cannot read addresses of I2P and CJDNS. */
const isOfBtcd = ({ networkId }: Address.Host): boolean =>
  networkId === Address.NetworkId.ipv4 || networkId === Address.NetworkId.ipv6 || networkId === Address.NetworkId.torV3

/** A book as `peers.json` of btcd, version 2. */
export const peersJson = ({ entries, hash, places }: Tables): unknown => {
  const textOf = (id: number): string | undefined => {
    const address = entries.address(id)
    return id !== -1 && isOfBtcd(address) ? Address.format(address) : undefined
  }
  const bucketOf = (first: number, count: number): ReadonlyArray<string> =>
    Array.from(places.subarray(first * bucketSize, (first + count) * bucketSize))
      .filter((id) => id !== -1)
      .flatMap((id) => textOf(id) ?? [])
  const addresses = Array.from(entries.order.subarray(0, entries.size)).flatMap((id) => {
    const Addr = textOf(id)
    if (Addr === undefined) return []
    const source = entries.source(id)
    // btcd refuses the whole file for a source that it cannot read, such as the name of a seed.
    const isReadable = isOfBtcd(source) && Address.isValid(source)
    return {
      Addr,
      Src: isReadable ? Address.format({ ...source, port: entries.address(id).port }) : Addr,
      Attempts: entries.attempts[id]!,
      TimeStamp: entries.time[id]!,
      LastAttempt: entries.lastTry[id]!,
      LastSuccess: entries.lastSuccess[id]!,
      Services: Number(entries.services[id]!),
      SrcServices: 0
    }
  })
  const perBucket = (places.length / bucketSize - newBuckets) / btcdTriedBuckets
  return {
    Version: newestPeersJson,
    Key: Array.from(hash.key),
    Addresses: addresses,
    NewBuckets: Array.from({ length: newBuckets }, (_, bucket) => bucketOf(bucket, 1)),
    TriedBuckets: Array.from({ length: btcdTriedBuckets }, (_, bucket) =>
      bucketOf(newBuckets + bucket * perBucket, perBucket)
    )
  }
}
