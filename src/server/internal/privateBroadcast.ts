/**
 * Private broadcast as two pure machines: the script of one connection, and the pool of transactions and connections.
 *
 *     → version            ← version     the transaction relay is off there: end
 *     → verack             ← verack
 *     → inv                ← getdata     anything but the announced transaction: end
 *     → tx, ping           ← pong        sent: end
 *
 * Nothing else is ever sent, and all other messages are ignored. Bitcoin Core sends the same bytes, so that a recipient cannot tell one
 * program from another. There are no options for that reason.
 */
import type { Address } from "../../Address.ts"
import * as Wire from "../../Wire.ts"
import type { NetworkName } from "./networkNames.ts"
import type { Random } from "./random.ts"

// ---- the script of one connection

/**
 * How a connection ended. `UnexpectedGetdata`: the remote asked for something that was not announced to it. `NothingToSend`: no transaction
 * needed the connection any more.
 */
export type Ending =
  | "Sent"
  | "NoRelay"
  | "ServicesMissing"
  | "VersionTooOld"
  | "NothingToSend"
  | "UnexpectedGetdata"
  | "TimedOut"
  | "Disconnected"

const noAddress = { services: 0n, address: new Uint8Array(16), port: 0 }

/** The version message of everybody: only its nonce differs. */
export const versionMessage = (nonce: bigint): Wire.Version => ({
  _tag: "version",
  protocolVersion: 70_016,
  services: 0n,
  timestamp: 0,
  receiver: noAddress,
  sender: noAddress,
  nonce,
  userAgent: "/pynode:0.0.1/",
  startHeight: 0,
  relay: false
})

const minimumProtocolVersion = 31_800
const { network, networkLimited, witness } = Wire.Service

/** Messages to send, in this order, and the end of the connection after that. */
export interface Reply {
  readonly send: ReadonlyArray<Wire.Message>
  readonly ending: Ending | undefined
}
const nothing: Reply = { send: [], ending: undefined }
const end = (ending: Ending): Reply => ({ send: [], ending })

/** The transaction of one connection. */
export interface Source {
  /** Chooses it, once the handshake is complete. */
  readonly pick: () => Wire.Transaction | undefined
  /** Whether it is still to be sent: it can be aborted, or be seen elsewhere, after it was announced. */
  readonly isWanted: () => boolean
}

/** The answers of one connection, after our version message was sent. */
export class Script {
  #waitsFor: "version" | "verack" | "getdata" | "pong" = "version"
  #transaction: Wire.Transaction | undefined
  readonly #source: Source
  readonly #pingNonce: bigint

  constructor(source: Source, pingNonce: bigint) {
    this.#source = source
    this.#pingNonce = pingNonce
  }

  receive(message: Wire.Message): Reply {
    switch (this.#waitsFor) {
      case "version":
        return message._tag === "version" ? this.#onVersion(message) : nothing
      case "verack":
        return message._tag === "verack" ? this.#onVerack() : nothing
      case "getdata":
        return message._tag === "getdata" ? this.#onGetdata(message) : nothing
      case "pong":
        // A second getdata is not answered: a remote that asks but does not read would fill our memory with copies.
        return message._tag === "pong" && message.nonce === this.#pingNonce ? end("Sent") : nothing
    }
  }

  #onVersion({ protocolVersion, relay, services }: Wire.Version): Reply {
    if (protocolVersion < minimumProtocolVersion) return end("VersionTooOld")
    if ((services & (network | networkLimited)) === 0n || (services & witness) === 0n) return end("ServicesMissing")
    if (!relay) return end("NoRelay")
    this.#waitsFor = "verack"
    return { send: [{ _tag: "verack" }], ending: undefined }
  }

  #onVerack(): Reply {
    const transaction = this.#source.pick()
    if (transaction === undefined) return end("NothingToSend")
    this.#transaction = transaction
    this.#waitsFor = "getdata"
    const item = { type: Wire.InventoryType.tx, hash: Wire.txid(transaction) }
    return { send: [{ _tag: "inv", items: [item] }], ending: undefined }
  }

  #onGetdata({ items }: Wire.GetData): Reply {
    const transaction = this.#transaction!
    if (!this.#source.isWanted()) return end("NothingToSend")
    const [item] = items
    const isOurs =
      items.length === 1 && item!.type === Wire.InventoryType.tx && Wire.hashEquals(item!.hash, Wire.txid(transaction))
    if (!isOurs) return end("UnexpectedGetdata")
    this.#waitsFor = "pong"
    return {
      send: [
        { _tag: "tx", transaction },
        { _tag: "ping", nonce: this.#pingNonce }
      ],
      ending: undefined
    }
  }
}

// ---- which networks

/**
 * The networks from which recipients are taken, each as likely as the others. IPv4 and IPv6 only through Tor, and only once a peer has
 * answered at an onion address: the address of a proxy does not prove that it is Tor.
 */
export const privateNetworks = (ways: ReadonlySet<NetworkName>, ipThroughTor: boolean): ReadonlyArray<NetworkName> => {
  const candidates: ReadonlyArray<NetworkName> =
    ipThroughTor && ways.has("onion") ? ["onion", "ipv4", "ipv6", "i2p"] : ["onion", "i2p"]
  return candidates.filter((name) => ways.has(name))
}

// ---- the pool

/** A transaction was offered to a recipient. Times are milliseconds since 1970. */
export interface Send {
  readonly address: Address
  readonly at: number
  /** When the recipient confirmed with its pong that it had read the transaction. */
  confirmedAt: number | undefined
}

/** A transaction of the pool. */
export interface Entry {
  readonly transaction: Wire.Transaction
  readonly txid: Uint8Array
  readonly wtxid: Uint8Array
  addedAt: number
  sends: Array<Send>
  confirmed: number
  lastConfirmedAt: number
}

/** The numbers of Bitcoin Core. */
export const limits = {
  transactions: 10_000,
  sends: 1_000,
  connections: 64,
  connectionsPerTransaction: 3,
  /** Milliseconds. */
  lifetime: 180_000,
  unsentRetry: 300_000,
  sentRetry: 60_000,
  checkInterval: 120_000,
  checkJitter: 60_000,
  failurePause: 100,
  emptyBookPause: 500,
  noNetworkPause: 5_000
}

export type Limits = Readonly<typeof limits>

/** Whether a send is preferred: fewer sends, then fewer confirmations, then the older send, then the older confirmation. */
const isBefore = (self: Entry, that: Entry): boolean => {
  const order =
    self.sends.length - that.sends.length ||
    self.confirmed - that.confirmed ||
    (self.sends.at(-1)?.at ?? 0) - (that.sends.at(-1)?.at ?? 0) ||
    self.lastConfirmedAt - that.lastConfirmedAt
  return order < 0
}

/** The transactions, and how many connections they still need. Does no I/O; its driver passes in the time, in milliseconds. */
export class Pool {
  readonly #limits: Limits
  /** By wtxid, as text. Two transactions can differ in their witnesses only. */
  readonly #entries = new Map<string, Entry>()
  readonly #byTxid = new Map<string, Set<Entry>>()
  /** Connections by id, from the dial to the end, with the send of each. */
  readonly #connections = new Map<number, { isConnected: boolean; send: Send | undefined; entry: Entry | undefined }>()
  #dialing = 0
  #lastId = 0
  /** Connections that are still to be made. */
  #needed = 0
  #pausedUntil = 0
  /** When `check` is due. */
  nextCheck: number

  constructor(now: number, options: Partial<Limits> = {}) {
    this.#limits = { ...limits, ...options }
    this.nextCheck = now
  }

  get entries(): Iterable<Entry> {
    return this.#entries.values()
  }

  get needed(): number {
    return this.#needed
  }

  #isPending({ sends }: Entry): boolean {
    return sends.length < this.#limits.sends
  }

  get hasPending(): boolean {
    for (const entry of this.#entries.values()) if (this.#isPending(entry)) return true
    return false
  }

  sendsLeft({ sends }: Entry): number {
    return Math.max(0, this.#limits.sends - sends.length)
  }

  /** Takes a transaction, or starts anew with one that has used up its sends. */
  add(transaction: Wire.Transaction, now: number): "Added" | "AlreadyPresent" | "QueueFull" {
    const wtxid = Wire.wtxid(transaction)
    const key = Wire.hashToHex(wtxid)
    const known = this.#entries.get(key)
    if (known !== undefined) {
      if (this.#isPending(known)) return "AlreadyPresent"
      this.#forgetSends(known)
      Object.assign(known, { addedAt: now, sends: [], confirmed: 0, lastConfirmedAt: 0 })
    } else {
      if (this.#entries.size >= this.#limits.transactions) return "QueueFull"
      const txid = Wire.txid(transaction)
      const entry: Entry = { transaction, txid, wtxid, addedAt: now, sends: [], confirmed: 0, lastConfirmedAt: 0 }
      this.#entries.set(key, entry)
      const siblings = this.#byTxid.get(Wire.hashToHex(txid))
      if (siblings === undefined) this.#byTxid.set(Wire.hashToHex(txid), new Set([entry]))
      else siblings.add(entry)
    }
    this.#needed += this.#limits.connectionsPerTransaction
    return "Added"
  }

  /** Removes the transactions with this txid or wtxid, and the connections that they do not need any more. */
  remove(hash: Uint8Array): ReadonlyArray<Entry> {
    if (this.#entries.size === 0) return []
    const key = Wire.hashToHex(hash)
    const exact = this.#entries.get(key)
    const removed = Array.from(this.#byTxid.get(key) ?? (exact === undefined ? [] : [exact]))
    for (const entry of removed) {
      const txid = Wire.hashToHex(entry.txid)
      const siblings = this.#byTxid.get(txid)!
      siblings.delete(entry)
      if (siblings.size === 0) this.#byTxid.delete(txid)
      this.#entries.delete(Wire.hashToHex(entry.wtxid))
      this.#forgetSends(entry)
      const unused = Math.max(0, this.#limits.connectionsPerTransaction - entry.confirmed)
      this.#needed = Math.max(0, this.#needed - unused)
    }
    return removed
  }

  #forgetSends(entry: Entry): void {
    for (const connection of this.#connections.values()) {
      if (connection.entry === entry) connection.entry = undefined
    }
  }

  /** The first transaction with this txid or wtxid. */
  find(hash: Uint8Array): Entry | undefined {
    const key = Wire.hashToHex(hash)
    return this.#entries.get(key) ?? this.#byTxid.get(key)?.values().next().value
  }

  // ---- connections

  /** Milliseconds until the next dial; 0 for a dial now, and `Infinity` while none is needed or possible. */
  dialDelay(now: number): number {
    const isFull = this.#connections.size >= this.#limits.connections
    if (isFull || this.#needed <= this.#dialing) return Infinity
    return Math.max(0, this.#pausedUntil - now)
  }

  /** No dial before this many milliseconds have passed. */
  pause(now: number, milliseconds: number): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, now + milliseconds)
  }

  /** A dial begins. Returns the id of the connection. */
  dial(): number {
    const id = ++this.#lastId
    this.#connections.set(id, { isConnected: false, send: undefined, entry: undefined })
    this.#dialing++
    return id
  }

  /** The dial succeeded. */
  connected(id: number): void {
    const connection = this.#connections.get(id)
    if (connection === undefined || connection.isConnected) return
    connection.isConnected = true
    this.#dialing--
    this.#needed = Math.max(0, this.#needed - 1)
  }

  /** The transaction that needs this connection most. A connection carries one only: two would be linked. */
  pick(id: number, address: Address, now: number): Wire.Transaction | undefined {
    const connection = this.#connections.get(id)
    if (connection === undefined || connection.send !== undefined) return undefined
    let first: Entry | undefined
    for (const entry of this.#entries.values()) {
      if (this.#isPending(entry) && (first === undefined || isBefore(entry, first))) first = entry
    }
    if (first === undefined) return undefined
    connection.send = { address, at: now, confirmedAt: undefined }
    connection.entry = first
    first.sends.push(connection.send)
    return first.transaction
  }

  /** Whether the transaction that was picked for a connection is still in the pool. */
  wants(id: number): boolean {
    return this.#connections.get(id)?.entry !== undefined
  }

  /** The connection has ended, with the confirmation of its recipient or without. Without one another connection is needed. */
  ended(id: number, wasSent: boolean, now: number): void {
    const connection = this.#connections.get(id)
    if (connection === undefined) return
    this.#connections.delete(id)
    const { entry, isConnected, send } = connection
    if (wasSent && send !== undefined) {
      send.confirmedAt = now
      if (entry === undefined) return
      entry.confirmed++
      entry.lastConfirmedAt = now
      return
    }
    this.pause(now, this.#limits.failurePause)
    if (!isConnected) this.#dialing--
    else if (this.hasPending) this.#needed++
  }

  // ---- again

  /** The transactions that nobody else has announced in time. */
  stale(now: number): ReadonlyArray<Entry> {
    return Array.from(this.#entries.values()).filter(
      (entry) =>
        this.#isPending(entry) &&
        (entry.confirmed === 0
          ? entry.addedAt < now - this.#limits.unsentRetry
          : entry.lastConfirmedAt < now - this.#limits.sentRetry)
    )
  }

  /**
   * Asks for one more connection for each stale transaction, and sets the time of the next check. While no connection succeeds their
   * number does not grow beyond that of new transactions, so that the return of the network does not start thousands.
   */
  check(now: number, random: Random): void {
    this.nextCheck = now + this.#limits.checkInterval + random.next() * this.#limits.checkJitter
    const stale = this.stale(now).length
    const most = this.#limits.connectionsPerTransaction * this.#entries.size
    if (this.#needed < most) this.#needed = Math.min(most, this.#needed + stale)
  }
}
