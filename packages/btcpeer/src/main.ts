#!/usr/bin/env node
/**
 * Starts the command. Node keeps the compiled code of the command in the temporary directory, which makes the next start faster; a
 * directory in which it cannot write changes nothing.
 */
import * as module from "node:module"

// Bun and Deno have no such cache.
module.enableCompileCache?.()
// Static imports would be compiled before the cache is enabled.
await import("./process.ts")
