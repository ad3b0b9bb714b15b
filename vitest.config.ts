/** `npm test`: all tests but the long ones, which `npm run test:long` runs (vitest.long.config.ts). */
import * as os from "node:os"
import * as path from "node:path"
import { configDefaults, defineConfig } from "vitest/config"

// The tests import the package by its name. This condition resolves the name to src/, as in the examples.
const conditions = ["@effect-bitcoin-peer/source", "node", "import", "module", "default"]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions }, noExternal: ["effect-bitcoin-peer"] },
  test: {
    include: ["test/**/*.test.ts", "packages/*/test/**/*.test.ts"],
    exclude: [...configDefaults.exclude, "**/*.long.test.ts"],
    // A test that takes longer hangs, on a loaded machine too.
    testTimeout: 180_000,
    // Vitest leaves one core to its main process by default, which has almost nothing to do.
    maxWorkers: "100%",
    // Tests start processes. Compiling takes half of the time of such a start.
    env: { NODE_COMPILE_CACHE: path.join(os.tmpdir(), "effect-bitcoin-peer-compile-cache") }
  }
})
