/** The payload of a frame that arrives in several chunks. Large parts are kept without a copy, small ones are copied together. */

import { joined } from "../primitives/bytes.ts"

/** Parts of at least this size are kept without a copy. */
const keepSize = 16_384
/** A buffer for small parts has at most this much room that nothing has arrived for. */
const aheadSize = 262_144

/** The part that has arrived of `size` bytes. Many small chunks cost neither an object each nor a buffer of the whole size. */
export class PartialPayload {
  readonly size: number
  arrived = 0

  #parts: Array<Uint8Array> = []
  /** Small chunks are copied here. The bytes from `#blockStart` to `#blockEnd` are not among the parts yet. */
  #block: Uint8Array | undefined
  #blockStart = 0
  #blockEnd = 0

  constructor(size: number) {
    this.size = size
  }

  /** Takes the bytes of the frame from `offset` on, and returns where the rest of the chunk begins. */
  keep(chunk: Uint8Array, offset: number): number {
    const end = Math.min(chunk.length, offset + this.size - this.arrived)
    if (end - offset >= keepSize) {
      this.#seal()
      this.#parts.push(chunk.subarray(offset, end))
      this.arrived += end - offset
      return end
    }
    let at = offset
    while (at < end) {
      if (this.#block === undefined || this.#blockEnd === this.#block.length) {
        this.#seal()
        // As much again as has arrived: so there are few blocks, and a frame that only claims a length gets a small one.
        const wanted = Math.min(Math.max(this.arrived, keepSize), aheadSize)
        this.#block = new Uint8Array(Math.min(this.size - this.arrived, wanted))
        this.#blockStart = this.#blockEnd = 0
      }
      const size = Math.min(end - at, this.#block.length - this.#blockEnd)
      // For a few bytes a loop is 30 ns faster than `set`.
      if (size > 16) this.#block.set(chunk.subarray(at, at + size), this.#blockEnd)
      else for (let i = 0; i < size; i++) this.#block[this.#blockEnd + i] = chunk[at + i]
      this.#blockEnd += size
      this.arrived += size
      at += size
    }
    return end
  }

  /** The parts, in order. */
  parts(): ReadonlyArray<Uint8Array> {
    this.#seal()
    return this.#parts
  }

  /** All bytes, joined. */
  join(): Uint8Array {
    return joined(this.parts())
  }

  /** Moves the bytes in the block to the parts. */
  #seal(): void {
    if (this.#block !== undefined && this.#blockEnd > this.#blockStart) {
      this.#parts.push(this.#block.subarray(this.#blockStart, this.#blockEnd))
      this.#blockStart = this.#blockEnd
    }
  }
}
