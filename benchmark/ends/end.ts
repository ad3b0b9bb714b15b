/**
 * One end of the connections of `peer.ts`, in a process of its own. Every implementation has the same peer at both ends: one process
 * serves, the other dials. The driver calls the functions of `Commands` over the IPC of Node, one at a time.
 */
import { createHash } from "node:crypto"
import { block1MB, inventory } from "../data.ts"
import type { Wire } from "../../src/index.ts"

/** What a connected outbound peer is asked to do. Each result is a sum over what arrived, equal for all implementations. */
export interface Work {
  /** Round trips of ping and pong, one after the other. */
  readonly pings: (count: number) => Promise<number>
  /** Asks for blocks by getdata, `atOnce` in each, and decodes them. Sums up what `valueOfBlock` returns. */
  readonly blocks: (hashes: ReadonlyArray<Buffer>, atOnce: number) => Promise<number>
  /** Sends a `mempool`, waits for its `invsPerRound` invs, sends the next one. Sums up the first byte of each inv's first hash. */
  readonly invs: (rounds: number) => Promise<number>
}

/** One implementation, with its type of a peer. */
export interface End<Peer> {
  /**
   * Listens on loopback; returns the port. Answers pings, a getdata with blocks of `prepareBlocks`, and a `mempool` with the invs of
   * `prepareInvs`. Calls `onHandshake` for each completed handshake.
   */
  readonly serve: (onHandshake: () => void) => Promise<number>
  /** Dials; resolves when the handshake is completed: both sides have sent verack, and ours has received one. */
  readonly connect: (port: number) => Promise<Peer>
  /** Ends a peer cleanly: when it resolves, the other side has ended as well. */
  readonly close: (peer: Peer) => Promise<void>
  /** Adds the listeners for work. */
  readonly use: (peer: Peer) => Work
  /** Dials, completes the handshake and ends; by default `connect` and `close`. */
  readonly handshake?: (port: number) => Promise<void>
}

/** The functions of a process, for the driver. */
export interface Commands {
  readonly serve: () => Promise<number>
  /** The number of handshakes that a server has completed. */
  readonly served: () => Promise<number>
  /** Milliseconds of processor time that the process has used. */
  readonly processorTime: () => Promise<number>
  /** Whether a server sends the first inv of a round again and again, instead of one after the other. */
  readonly repeatInv: (repeats: boolean) => Promise<void>
  readonly handshakes: (port: number, count: number, atOnce: number) => Promise<number>
  /** Connects the peer that the next three functions use. The hashes are those of the blocks to ask for. */
  readonly connect: (port: number, hashes?: ReadonlyArray<Uint8Array>) => Promise<void>
  readonly pings: (count: number) => Promise<number>
  readonly blocks: (count: number, atOnce: number) => Promise<number>
  readonly invs: (rounds: number) => Promise<number>
  /** What each of `count` connected peers takes; then ends them. */
  readonly idle: (port: number, count: number) => Promise<IdleSize>
}

/** Bytes of the heap, and of array buffers outside of it. */
export interface IdleSize {
  readonly heap: number
  readonly buffers: number
}

export const invsPerRound = 50
const itemsPerInv = 1_000
const differentBlocks = 16

/** What is added for each block: fields that no implementation has without decoding it, and no walk over its transactions. */
export const valueOfBlock = (nonce: number, transactions: number): number => nonce + transactions

/** Blocks of 1 MB that differ in their nonces, with their hashes. */
export const prepareBlocks = (): ReadonlyArray<{ readonly hash: Buffer; readonly payload: Buffer }> => {
  const block = block1MB()
  return Array.from({ length: differentBlocks }, (_, nonce) => {
    const payload = Buffer.from(block)
    payload.writeUInt32LE(nonce, 76)
    const once = createHash("sha256").update(payload.subarray(0, 80)).digest()
    return { hash: createHash("sha256").update(once).digest(), payload }
  })
}

let repeats = false

/**
 * Prepares the invs that answer a `mempool`, with a function of the library for one; no two items are the same. The result returns
 * those to send.
 */
export const prepareInvs = <A>(prepare: (items: ReadonlyArray<Wire.InventoryItem>) => A): (() => ReadonlyArray<A>) => {
  const items = inventory(invsPerRound * itemsPerInv)
  const all = Array.from({ length: invsPerRound }, (_, i) =>
    prepare(items.slice(i * itemsPerInv, (i + 1) * itemsPerInv))
  )
  const first = all.map(() => all[0]!)
  return () => (repeats ? first : all)
}

/** Collects what arrives: resolves with the sum after so many values. */
export class Collector {
  #left = 0
  #sum = 0
  #finish: ((sum: number) => void) | undefined

  expect(count: number): Promise<number> {
    this.#left = count
    this.#sum = 0
    return new Promise((resolve) => (this.#finish = resolve))
  }

  add(value: number): void {
    this.#sum += value
    if (--this.#left === 0) this.#finish?.(this.#sum)
  }
}

/** `blocks` of `Work`, for implementations with a function that asks and a listener that adds to the collector. */
export const blocksBy =
  (received: Collector, ask: (hashes: ReadonlyArray<Buffer>) => void): Work["blocks"] =>
  async (hashes, atOnce) => {
    let sum = 0
    for (let i = 0; i < hashes.length; i += atOnce) {
      const asked = hashes.slice(i, i + atOnce)
      const done = received.expect(asked.length)
      ask(asked)
      sum += await done
    }
    return sum
  }

/** The same for `invs`. */
export const invsBy =
  (received: Collector, ask: () => void): Work["invs"] =>
  async (rounds) => {
    let sum = 0
    for (let i = 0; i < rounds; i++) {
      const done = received.expect(invsPerRound)
      ask()
      sum += await done
    }
    return sum
  }

const settled = async (): Promise<IdleSize> => {
  const { gc } = globalThis
  if (gc === undefined) throw new Error("run with --expose-gc")
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    gc()
  }
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return { heap: heapUsed, buffers: arrayBuffers }
}

const commandsOf = <Peer>(end: End<Peer>): Commands => {
  let handshakes = 0
  let work: Work | undefined
  let hashes: ReadonlyArray<Buffer> = []
  const connected = (): Work => {
    if (work === undefined) throw new Error("connect comes first")
    return work
  }
  const handshake = end.handshake ?? (async (port: number) => end.close(await end.connect(port)))
  return {
    serve: () => end.serve(() => handshakes++),
    served: async () => handshakes,
    processorTime: async () => {
      const { system, user } = process.cpuUsage()
      return (system + user) / 1_000
    },
    repeatInv: async (asked) => void (repeats = asked),
    handshakes: async (port, count, atOnce) => {
      let left = count
      const worker = async (): Promise<void> => {
        while (left-- > 0) await handshake(port)
      }
      await Promise.all(Array.from({ length: atOnce }, worker))
      return count
    },
    connect: async (port, wanted) => {
      hashes = wanted?.map((hash) => Buffer.from(hash)) ?? prepareBlocks().map(({ hash }) => hash)
      work = end.use(await end.connect(port))
    },
    pings: (count) => connected().pings(count),
    blocks: (count, atOnce) => {
      const asked = Array.from({ length: count }, (_, i) => hashes[i % hashes.length]!)
      return connected().blocks(asked, atOnce)
    },
    invs: (rounds) => connected().invs(rounds),
    idle: async (port, count) => {
      const before = await settled()
      const peers: Array<Peer> = []
      for (let i = 0; i < count; i++) peers.push(await end.connect(port))
      const after = await settled()
      await Promise.all(peers.map((peer) => end.close(peer)))
      return { heap: (after.heap - before.heap) / count, buffers: (after.buffers - before.buffers) / count }
    }
  }
}

/** A call of one of the commands, and its answer. */
export interface Call {
  readonly command: keyof Commands
  readonly args: ReadonlyArray<unknown>
}
export type Answer = { readonly result: unknown } | { readonly error: string }

/** Answers the calls of the parent process until it disconnects. */
export const runEnd = <Peer>(end: End<Peer>): void => {
  const commands = commandsOf(end)
  process.on("message", ({ args, command }: Call) => {
    const run = commands[command] as (...args: ReadonlyArray<unknown>) => Promise<unknown>
    const reply = (answer: Answer): void => void process.send?.(answer)
    Promise.resolve()
      .then(() => run(...args))
      .then(
        (result) => reply({ result }),
        (error: unknown) => reply({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
      )
  })
  process.on("disconnect", () => process.exit(0))
}
