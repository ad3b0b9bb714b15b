/** Modules for tests and demos: a network in memory, remotes that play scripts, a chain that is mined in memory, a clock, suites. */
export * as ConnectionCompliance from "./ConnectionCompliance.ts"
export * as RegtestChain from "./RegtestChain.ts"
export * as ScriptedPeer from "./ScriptedPeer.ts"
export * as ServingPeer from "./ServingPeer.ts"
export * as Simulation from "./Simulation.ts"
export * as VirtualClock from "./VirtualClock.ts"
