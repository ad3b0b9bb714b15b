/**
 * A machine that says when to ping and when to give up a silent remote. Times are milliseconds of a monotonic clock that the
 * caller passes in.
 *
 * Deadlines move by the time during which our own side did not read (a slow handler, a full stream), because it could not see
 * what the remote sent.
 */

export interface Timing {
  /** The time between two pings. */
  readonly pingInterval: number
  /** How long a ping may stay unanswered. */
  readonly pingTimeout: number
  /** How long the remote may send nothing. */
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
  /** When the current wait for bytes began; undefined while our side works on a batch. */
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

/** A clock that stands still while our side is busy: the remote is not responsible for that time. */
export const remoteTime = (self: KeepAlive, now: number): number => now - busyUntil(self, now)

/** Bytes have arrived, and our side begins to work on them. */
export const received = (self: KeepAlive, now: number): void => {
  self.readingSince = undefined
  self.busySince = now
}

/** Our side is done and waits for bytes again. */
export const reading = (self: KeepAlive, now: number): void => {
  if (self.readingSince === undefined) self.busyTotal += now - self.busySince
  self.readingSince = now
}

/** A ping is written. `answered` is called with the round trip in milliseconds. */
export const pinged = (
  self: KeepAlive,
  nonce: bigint,
  now: number,
  answered?: ((roundTrip: number) => void) | undefined
): void => {
  self.outstanding.set(nonce, { sentAt: now, busyBefore: busyUntil(self, now), answered })
}

/** A pong arrived. False when no ping with its nonce waits; the pong is then ignored. */
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

/** The next action. Ask again after a `Ping` was queued and after a wait. */
export const next = (self: KeepAlive, now: number): Action => {
  const { idleTimeout, pingInterval, pingTimeout } = self.timing
  // A ping by hand, or the end of a busy time, moves a deadline without waking the loop, so no wait is longer than this.
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
