import * as os from "node:os"
import * as path from "node:path"
import { defineConfig } from "vitest/config"

// The package is tested from its sources: its own name resolves to src/, as in the examples.
const conditions = ["@effect-bitcoin-peer/source", "node", "import", "module", "default"]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions }, noExternal: ["effect-bitcoin-peer"] },
  test: {
    include: ["test/**/*.test.ts"],
    // What takes longer hangs, on a machine that does ten things at once too.
    testTimeout: 60_000,
    // By default one core is left to the main process, which has next to nothing to do.
    maxWorkers: "100%",
    // Processes that tests start: half of what starting them takes is compiling.
    env: { NODE_COMPILE_CACHE: path.join(os.tmpdir(), "effect-bitcoin-peer-compile-cache") }
  }
})
