/** Numbers and addresses as Bitcoin Core writes them to its files. */
import * as Address from "../../../Address.ts"
import {
  compactSizeAt,
  compactSizeWidth,
  i32At,
  i64At,
  setU32At,
  u32At,
  u64At,
  viewOf
} from "../../../primitives/bytes.ts"
import { isWellFormed } from "./entries.ts"

/** Longer addresses make the rest of a file unreadable (BIP155). */
const mostAddressBytes = 512

/** The bit that says that an address has the form of `addrv2`, and the version of Core that its writer adds. */
const addrV2Bit = 0x2000_0000
const coreVersion = 220_000
/** The bits that are ignored. */
const versionMask = 0x0007_ffff

/** Reads numbers. After the first one that is not there every read returns 0, and `failed` is true. */
export class DiskReader {
  readonly bytes: Uint8Array
  offset: number
  failed = false

  constructor(bytes: Uint8Array, offset = 0) {
    this.bytes = bytes
    this.offset = offset
  }

  /** The offset of the next `size` bytes, or -1. */
  #next(size: number): number {
    const at = this.offset
    if (this.failed || this.bytes.length - at < size) {
      this.failed = true
      return -1
    }
    this.offset = at + size
    return at
  }

  u8(): number {
    const at = this.#next(1)
    return at < 0 ? 0 : this.bytes[at]!
  }

  u16be(): number {
    const at = this.#next(2)
    return at < 0 ? 0 : (this.bytes[at]! << 8) | this.bytes[at + 1]!
  }

  i32(): number {
    const at = this.#next(4)
    return at < 0 ? 0 : i32At(this.bytes, at)
  }

  u32(): number {
    const at = this.#next(4)
    return at < 0 ? 0 : u32At(this.bytes, at)
  }

  i64(): number {
    const at = this.#next(8)
    return at < 0 ? 0 : i64At(this.bytes, at)
  }

  view(size: number): Uint8Array {
    const at = this.#next(size)
    return at < 0 ? new Uint8Array(0) : viewOf(this.bytes, at, at + size)
  }

  /** A CompactSize of 64 bits in its shortest form. */
  compact(): bigint {
    if (this.offset >= this.bytes.length) this.failed = true
    if (this.failed) return 0n
    const first = this.bytes[this.offset]!
    const at = this.#next(compactSizeWidth(first))
    if (at < 0) return 0n
    const value = first === 0xff ? u64At(this.bytes, at + 1) : BigInt(compactSizeAt(this.bytes, at))
    const least = first < 0xfd ? 0n : first === 0xfd ? 0xfdn : first === 0xfe ? 0x1_0000n : 0x1_0000_0000n
    if (value < least) this.failed = true
    return value
  }

  /** A host in the form of BIP155; `undefined` for one that this program does not know, or that hides another in an IPv6 address. */
  host(): Address.Host | undefined {
    const networkId = this.u8()
    const length = this.compact()
    if (length > mostAddressBytes) this.failed = true
    const host = { networkId, address: this.view(Number(length)) }
    if (this.failed) return undefined
    if (networkId === Address.NetworkId.torV2 || networkId < 1 || networkId > Address.NetworkId.cjdns) return undefined
    // As in Core, a known network with a wrong length makes the rest unreadable.
    if (!isWellFormed(host)) this.failed = true
    return this.failed || Address.canonical(host) !== host ? undefined : host
  }

  /** An address with time and services. `undefined` for an unknown host; the rest can be read. */
  address(): DiskAddress | undefined {
    if ((this.u32() & ~versionMask) >>> 0 !== addrV2Bit) this.failed = true
    const timestamp = this.u32()
    const services = this.compact()
    const host = this.host()
    const port = this.u16be()
    if (host === undefined || this.failed) return undefined
    return { networkId: host.networkId, address: host.address, port, timestamp, services }
  }
}

/** An address of a file. */
export interface DiskAddress extends Address.Address {
  /** Seconds. */
  readonly timestamp: number
  readonly services: bigint
}

/** Writes numbers to a buffer that grows. */
export class DiskWriter {
  bytes: Uint8Array
  #view: DataView
  offset = 0

  constructor(size: number) {
    this.bytes = new Uint8Array(size)
    this.#view = new DataView(this.bytes.buffer)
  }

  #next(size: number): number {
    const at = this.offset
    if (at + size > this.bytes.length) {
      const bytes = new Uint8Array(Math.max(2 * this.bytes.length, at + size))
      bytes.set(this.bytes)
      this.bytes = bytes
      this.#view = new DataView(bytes.buffer)
    }
    this.offset = at + size
    return at
  }

  u8(value: number): void {
    const at = this.#next(1)
    this.bytes[at] = value
  }

  u16be(value: number): void {
    const at = this.#next(2)
    this.bytes[at] = value >>> 8
    this.bytes[at + 1] = value
  }

  u32(value: number): void {
    const at = this.#next(4)
    setU32At(this.bytes, at, value)
  }

  i64(value: number): void {
    const at = this.#next(8)
    const high = Math.floor(value / 0x1_0000_0000)
    setU32At(this.bytes, at, value - high * 0x1_0000_0000)
    setU32At(this.bytes, at + 4, high)
  }

  raw(bytes: Uint8Array): void {
    const at = this.#next(bytes.length)
    this.bytes.set(bytes, at)
  }

  compact(value: bigint): void {
    if (value < 0xfdn) return this.u8(Number(value))
    if (value > 0xffff_ffffn) {
      this.u8(0xff)
      const at = this.#next(8)
      return this.#view.setBigUint64(at, value, true)
    }
    this.u8(value > 0xffffn ? 0xfe : 0xfd)
    const at = this.#next(value > 0xffffn ? 4 : 2)
    if (value > 0xffffn) this.#view.setUint32(at, Number(value), true)
    else this.#view.setUint16(at, Number(value), true)
  }

  host({ address, networkId }: Address.Host): void {
    this.u8(networkId)
    this.compact(BigInt(address.length))
    this.raw(address)
  }

  address(address: DiskAddress): void {
    this.u32(addrV2Bit + coreVersion)
    this.u32(address.timestamp)
    this.compact(address.services)
    this.host(address)
    this.u16be(address.port)
  }

  written(): Uint8Array {
    return this.bytes.slice(0, this.offset)
  }
}
