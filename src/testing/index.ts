/** Modules for tests and demos: a chain that is mined in memory, and a peer that serves it. */
export * as RegtestChain from "./RegtestChain.ts"
export * as ServingPeer from "./ServingPeer.ts"
export * as Simulation from "./Simulation.ts"
export * as VirtualClock from "./VirtualClock.ts"
