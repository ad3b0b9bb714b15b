/** The bans of a server by subnet. Times are whole seconds since 1970, as in Bitcoin Core. */
import type { Host } from "../../Address.ts"
import { pop, push } from "../../primitives/heap.ts"
import type { Ban } from "./banFile.ts"
import { type Subnet, SubnetTrie } from "./subnetTrie.ts"

/** The effect of a ban on the list. */
export interface Banned {
  /** The ban in force: the new one, or an old one of the same subnet that does not end earlier. */
  readonly ban: Ban
  readonly isNew: boolean
  /** The ban that was dropped because the list is full. It can be the new one. */
  readonly dropped: Ban | undefined
}

const endsBefore = (a: Ban, b: Ban): boolean => a.until < b.until

export class Bans {
  readonly #capacity: number
  readonly #trie = new SubnetTrie<Ban>()
  /**
   * A heap by the end of bans, the soonest first. It may hold bans that were replaced or removed, at most as many as those that hold:
   * the trie decides.
   */
  #heap: Array<Ban> = []

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  get size(): number {
    return this.#trie.size
  }

  /** Bans in memory, for tests of the bound: those that hold, and as many again that were replaced or removed. */
  get remembered(): number {
    return this.#heap.length
  }

  /** Whether a ban in force contains the host. At its end time a ban is no longer in force. */
  has(host: Host, now: number): boolean {
    return this.#trie.size > 0 && this.#trie.find(host, ({ until }) => now < until) !== undefined
  }

  /** Whether a ban of exactly this subnet is in force. */
  hasSubnet(subnet: Subnet, now: number): boolean {
    const ban = this.#trie.get(subnet)
    return ban !== undefined && now < ban.until
  }

  add(ban: Ban): Banned {
    const old = this.#trie.get(ban.subnet)
    if (old !== undefined && old.until >= ban.until) return { ban: old, isNew: false, dropped: undefined }
    this.#trie.set(ban.subnet, ban)
    if (this.#heap.length > 2 * this.#trie.size + 16) this.#rebuild()
    else push(this.#heap, ban, endsBefore)
    const dropped = this.#trie.size > this.#capacity ? this.#soonest() : undefined
    if (dropped !== undefined) this.remove(dropped.subnet)
    return { ban, isNew: dropped !== ban, dropped }
  }

  /** Removes the ban of exactly this subnet and returns it. */
  remove(subnet: Subnet): Ban | undefined {
    const ban = this.#trie.get(subnet)
    if (ban !== undefined) this.#trie.delete(subnet)
    return ban
  }

  clear(): void {
    this.#trie.clear()
    this.#heap = []
  }

  /** Removes the bans that have ended, and returns them. As in Core a ban is still listed in the second in which it ends. */
  sweep(now: number): ReadonlyArray<Ban> {
    const ended: Array<Ban> = []
    for (let ban = this.#soonest(); ban !== undefined && ban.until < now; ban = this.#soonest()) {
      this.remove(ban.subnet)
      ended.push(ban)
    }
    return ended
  }

  /** All bans, sorted by subnet. */
  all(): ReadonlyArray<Ban> {
    return this.#trie.values()
  }

  /** The ban that ends first. Bans at the top of the heap that do not hold any more are thrown away. */
  #soonest(): Ban | undefined {
    for (;;) {
      const top = this.#heap[0]
      if (top === undefined || this.#trie.get(top.subnet) === top) return top
      pop(this.#heap, endsBefore)
    }
  }

  #rebuild(): void {
    // A sorted array is a heap.
    this.#heap = this.#trie.values().toSorted((a, b) => a.until - b.until)
  }
}
