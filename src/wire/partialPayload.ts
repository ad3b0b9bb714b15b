/** Bytes of one frame that come in pieces: kept without a copy where they are large, copied together where they are small. */

import { joined } from "../primitives/bytes.ts"

/** Pieces from this size on are kept as they are. */
const keepSize = 16_384
/** How far a buffer may be ahead of what has arrived. */
const aheadSize = 262_144

/** What has arrived of `size` bytes. Many small pieces cost neither an object each nor a buffer of the whole size. */
export class Pieces {
  readonly size: number
  arrived = 0

  #parts: Array<Uint8Array> = []
  /** Small pieces are copied here: from `#blockStart` to `#blockEnd` they are not among the parts yet. */
  #block: Uint8Array | undefined
  #blockStart = 0
  #blockEnd = 0

  constructor(size: number) {
    this.size = size
  }

  /** Takes what belongs to the frame from `offset` on, and returns where the rest begins. */
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
        // As much again as has arrived: there are few blocks, and a length alone never pays for a large one.
        const wanted = Math.min(Math.max(this.arrived, keepSize), aheadSize)
        this.#block = new Uint8Array(Math.min(this.size - this.arrived, wanted))
        this.#blockStart = this.#blockEnd = 0
      }
      const size = Math.min(end - at, this.#block.length - this.#blockEnd)
      // `set` costs 30 ns more than a few bytes do.
      if (size > 16) this.#block.set(chunk.subarray(at, at + size), this.#blockEnd)
      else for (let i = 0; i < size; i++) this.#block[this.#blockEnd + i] = chunk[at + i]
      this.#blockEnd += size
      this.arrived += size
      at += size
    }
    return end
  }

  /** All of it, in order. */
  parts(): ReadonlyArray<Uint8Array> {
    this.#seal()
    return this.#parts
  }

  /** All of it, as one. */
  join(): Uint8Array {
    return joined(this.parts())
  }

  /** Moves what the block holds to the parts. */
  #seal(): void {
    if (this.#block !== undefined && this.#blockEnd > this.#blockStart) {
      this.#parts.push(this.#block.subarray(this.#blockStart, this.#blockEnd))
      this.#blockStart = this.#blockEnd
    }
  }
}
