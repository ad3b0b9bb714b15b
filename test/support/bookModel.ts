/**
 * The address book once more, slow and obvious: texts for addresses, maps for tables, and the rules as sentences. Tests compare it with the
 * real one after random scripts.
 */
import { createHash } from "node:crypto"
import * as Address from "../../src/Address.ts"
import type { AddressV2 } from "../../src/Wire.ts"
import type { Random } from "../../src/server/internal/random.ts"

const hour = 3_600
const day = 24 * hour

interface Known {
  readonly address: Address.Address
  readonly source: Address.Host
  services: bigint
  time: number
  lastTry: number
  lastCounted: number
  lastSuccess: number
  attempts: number
}

const sha256 = (bytes: Uint8Array): Uint8Array => createHash("sha256").update(bytes).digest()
const hash = (...parts: ReadonlyArray<Uint8Array>): bigint =>
  Buffer.from(sha256(sha256(Buffer.concat(parts)))).readBigUInt64LE()
const vec = (bytes: Uint8Array): Uint8Array => Buffer.concat([Uint8Array.of(bytes.length), bytes])
const u64 = (value: bigint): Uint8Array => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}
const i32 = (value: number): Uint8Array => u64(BigInt(value)).subarray(0, 4)
const groupOf = (host: Address.Host): Uint8Array => Buffer.from(Address.group(host), "hex")
const addressKey = (address: Address.Address): Uint8Array =>
  Buffer.concat([Address.toBytes(address) ?? address.address, Uint8Array.of(address.port >> 8, address.port)])

export class BookModel {
  readonly known = new Map<string, Known>()
  /** The text of an address by `new bucket/position` or `tried bucket/position`. */
  readonly places = new Map<string, string>()
  waiting: Array<string> = []
  lastGood = 1
  readonly key: Uint8Array
  readonly random: Random

  constructor(key: Uint8Array, random: Random) {
    this.key = key
    this.random = random
  }

  #place(table: "new" | "tried", bucket: bigint, address: Address.Address): string {
    const letter = Buffer.from(table === "new" ? "N" : "K")
    const position = hash(this.key, letter, i32(Number(bucket)), vec(addressKey(address))) % 64n
    return `${table} ${bucket}/${position}`
  }

  newPlace(address: Address.Address, source: Address.Host): string {
    const sourceGroup = vec(groupOf(source))
    const slot = hash(this.key, vec(groupOf(address)), sourceGroup) % 64n
    return this.#place("new", hash(this.key, sourceGroup, u64(slot)) % 1_024n, address)
  }

  triedPlace(address: Address.Address): string {
    const slot = hash(this.key, vec(addressKey(address))) % 8n
    return this.#place("tried", hash(this.key, vec(groupOf(address)), u64(slot)) % 256n, address)
  }

  placesOf(text: string): ReadonlyArray<string> {
    return [...this.places].flatMap(([place, other]) => (other === text ? [place] : []))
  }

  isTried(text: string): boolean {
    return this.placesOf(text).some((place) => place.startsWith("tried"))
  }

  isTerrible({ attempts, lastSuccess, lastTry, time }: Known, now: number): boolean {
    const wasTried = lastTry > 0
    if (wasTried && now - lastTry <= 60) return false
    const isFromTheFuture = time > now + 600
    const isOld = now - time > 30 * day
    const neverWorked = lastSuccess === 0 && attempts >= 3
    const worksNoMore = now - lastSuccess > 7 * day && attempts >= 10
    return isFromTheFuture || isOld || neverWorked || worksNoMore
  }

  #leave(place: string): void {
    const text = this.places.get(place)
    this.places.delete(place)
    if (text === undefined || this.placesOf(text).length > 0) return
    this.known.delete(text)
    this.waiting = this.waiting.filter((other) => other !== text)
  }

  add(address: AddressV2, source: Address.Host, now: number, asked: number): boolean {
    if (!Address.isRoutable(address)) return false
    const text = Address.format(address)
    const isOfItself = Address.formatHost(address) === Address.formatHost(source)
    const penalty = isOfItself ? 0 : asked
    const known = this.known.get(text)
    const entry = known ?? {
      address: { networkId: address.networkId, address: address.address, port: address.port },
      source,
      services: address.services,
      time: Math.max(0, address.timestamp - penalty),
      lastTry: 0,
      lastCounted: 0,
      lastSuccess: 0,
      attempts: 0
    }
    const references = this.placesOf(text).length
    if (known !== undefined) {
      const interval = now - address.timestamp < day ? hour : day
      if (known.time < address.timestamp - interval - penalty) known.time = Math.max(0, address.timestamp - penalty)
      known.services |= address.services
      if (address.timestamp <= known.time) return false
      if (this.isTried(text) || references === 8) return false
      if (this.random.below(2 ** references) !== 0) return false
    }
    const place = this.newPlace(address, source)
    const other = this.places.get(place)
    if (other === text) return false
    if (other !== undefined) {
      const isWorse = this.isTerrible(this.known.get(other)!, now)
      const hasOthers = this.placesOf(other).length > 1
      if (!isWorse && !(hasOthers && references === 0)) return false
    }
    this.known.set(text, entry)
    this.#leave(place)
    this.places.set(place, text)
    return true
  }

  attempt(address: Address.Address, counts: boolean, now: number): void {
    const known = this.known.get(Address.format(address))
    if (known === undefined) return
    known.lastTry = now
    if (!counts || known.lastCounted >= this.lastGood) return
    known.lastCounted = now
    known.attempts++
  }

  good(address: Address.Address, now: number): boolean {
    this.lastGood = Math.max(this.lastGood, now)
    const text = Address.format(address)
    const known = this.known.get(text)
    if (known === undefined) return false
    this.#worked(known, now)
    if (this.isTried(text)) return false
    if (!this.places.has(this.triedPlace(address))) {
      this.#move(text)
      return true
    }
    if (this.waiting.length < 10 && !this.waiting.includes(text)) this.waiting.push(text)
    return false
  }

  #worked(known: Known, now: number): void {
    known.lastSuccess = now
    known.lastTry = now
    known.attempts = 0
  }

  #move(text: string): void {
    const { address } = this.known.get(text)!
    this.waiting = this.waiting.filter((other) => other !== text)
    for (const place of this.placesOf(text)) this.places.delete(place)
    const place = this.triedPlace(address)
    const occupant = this.places.get(place)
    this.places.set(place, text)
    if (occupant === undefined) return
    const old = this.known.get(occupant)!
    const back = this.newPlace(old.address, old.source)
    this.#leave(back)
    this.places.set(back, occupant)
  }

  resolveCollisions(now: number): void {
    for (const text of this.waiting.slice()) {
      const newcomer = this.known.get(text)
      if (newcomer === undefined || !this.waiting.includes(text)) continue
      const occupant = this.known.get(this.places.get(this.triedPlace(newcomer.address))!)!
      const answered = now - occupant.lastSuccess < 4 * hour
      const wasTried = now - occupant.lastTry < 4 * hour
      const failed = wasTried && now - occupant.lastTry > 60
      const waitedLong = !wasTried && now - newcomer.lastSuccess > 40 * 60
      if (answered) this.waiting = this.waiting.filter((other) => other !== text)
      else if (failed || waitedLong) {
        this.lastGood = Math.max(this.lastGood, now)
        this.#worked(newcomer, now)
        this.#move(text)
      }
    }
  }

  connected(address: Address.Address, now: number): void {
    const known = this.known.get(Address.format(address))
    if (known !== undefined && now - known.time > 20 * 60) known.time = now
  }

  setServices(address: Address.Address, services: bigint): void {
    const known = this.known.get(Address.format(address))
    if (known !== undefined) known.services = services
  }

  /** What a restart forgets. */
  restart(): void {
    this.waiting = []
    this.lastGood = 1
    for (const known of this.known.values()) {
      known.lastTry = 0
      known.lastCounted = 0
    }
  }
}
