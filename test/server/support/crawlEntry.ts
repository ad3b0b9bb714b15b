/** An address of a crawl, never visited. */
import { Result } from "effect"
import * as Address from "effect-bitcoin-peer/Address"
import type * as Crawler from "effect-bitcoin-peer/server/Crawler"

export const crawlEntry = (text: string, fields: Partial<Crawler.Entry> = {}): Crawler.Entry => ({
  address: Result.getOrThrow(Address.parse(text)),
  state: "new",
  services: 0n,
  seenAt: 0,
  addedAt: 0,
  dueAt: 0,
  visitedAt: 0,
  reachedAt: 0,
  reachedSince: 0,
  visits: 0,
  successes: 0,
  failures: 0,
  problem: undefined,
  node: undefined,
  uptime: [],
  ...fields
})
