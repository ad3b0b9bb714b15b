/**
 * When to ping, and when a silent peer is given up: a machine without a clock. Times are milliseconds of whatever
 * monotonic clock the caller passes in.
 *
 * Time during which our own side did not read (a slow handler, a full stream) is not held against the remote: nothing of
 * what it sent could be seen, so the deadlines move by that much.
 */

export interface Timing {
  /** Between two pings. */
  readonly pingInterval: number
  /** From a ping to the end of a peer that does not answer it. */
  readonly pingTimeout: number
  /** From the last byte received to the end. */
  readonly idleTimeout: number
}

interface Outstanding {
  readonly sentAt: number
  readonly busyBefore: number
  readonly answered: ((roundTrip: number) => void) | undefined
}

export interface KeepAlive {
  readonly timing: Timing
  /** Pings that wait for their pong, by nonce, the oldest first. */
  readonly outstanding: Map<bigint, Outstanding>
  lastPingAt: number
  /** When the current wait for bytes began; undefined while our side is busy with what came. */
  readingSince: number | undefined
  busySince: number
  busyTotal: number
  lastRoundTrip: number | undefined
  minimumRoundTrip: number | undefined
}

export type Action =
  | { readonly _tag: "Wait"; readonly milliseconds: number }
  | { readonly _tag: "Ping" }
  | { readonly _tag: "PingTimeout" }
  | { readonly _tag: "IdleTimeout" }

export const make = (timing: Timing, now: number): KeepAlive => ({
  timing,
  outstanding: new Map(),
  lastPingAt: now,
  readingSince: now,
  busySince: now,
  busyTotal: 0,
  lastRoundTrip: undefined,
  minimumRoundTrip: undefined
})

const busyUntil = (self: KeepAlive, now: number): number =>
  self.busyTotal + (self.readingSince === undefined ? now - self.busySince : 0)

/** A clock that stands still while our side is busy: what happens meanwhile is not the remote's fault. */
export const remoteTime = (self: KeepAlive, now: number): number => now - busyUntil(self, now)

/** Bytes have arrived, our side begins to work on them. */
export const received = (self: KeepAlive, now: number): void => {
  self.readingSince = undefined
  self.busySince = now
}

/** Our side is done and waits for bytes again. */
export const reading = (self: KeepAlive, now: number): void => {
  if (self.readingSince === undefined) self.busyTotal += now - self.busySince
  self.readingSince = now
}

/** A ping goes out. `answered` is told the round trip in milliseconds. */
export const pinged = (
  self: KeepAlive,
  nonce: bigint,
  now: number,
  answered?: ((roundTrip: number) => void) | undefined
): void => {
  self.outstanding.set(nonce, { sentAt: now, busyBefore: busyUntil(self, now), answered })
}

/** A pong came in; false when nothing is waiting for its nonce, then it is ignored. */
export const ponged = (self: KeepAlive, nonce: bigint, now: number): boolean => {
  const ping = self.outstanding.get(nonce)
  if (ping === undefined) return false
  self.outstanding.delete(nonce)
  const roundTrip = now - ping.sentAt
  self.lastRoundTrip = roundTrip
  self.minimumRoundTrip = Math.min(self.minimumRoundTrip ?? roundTrip, roundTrip)
  ping.answered?.(roundTrip)
  return true
}

/** What is to be done now; after `Ping` was carried out, and after a wait, ask again. */
export const next = (self: KeepAlive, now: number): Action => {
  const { idleTimeout, pingInterval, pingTimeout } = self.timing
  // A ping by hand, or the end of a busy time, moves a deadline without waking whoever waits: none is seen later than this.
  let wait = Math.max(1, Math.min(pingInterval, pingTimeout, idleTimeout))

  if (self.readingSince !== undefined) {
    const left = self.readingSince + idleTimeout - now
    if (left <= 0) return { _tag: "IdleTimeout" }
    wait = Math.min(wait, left)
  }

  const oldest = self.outstanding.values().next().value
  if (oldest !== undefined) {
    const left = oldest.sentAt + pingTimeout + (busyUntil(self, now) - oldest.busyBefore) - now
    if (left <= 0) return { _tag: "PingTimeout" }
    wait = Math.min(wait, left)
  } else {
    const left = self.lastPingAt + pingInterval - now
    if (left <= 0) {
      self.lastPingAt = now
      return { _tag: "Ping" }
    }
    wait = Math.min(wait, left)
  }
  return { _tag: "Wait", milliseconds: wait }
}
