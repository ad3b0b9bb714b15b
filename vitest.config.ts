import { defineConfig } from "vitest/config"

// The package is tested from its sources: its own name resolves to src/, as in the examples.
const conditions = ["@effect-bitcoin-peer/source", "node", "import", "module", "default"]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions }, noExternal: ["effect-bitcoin-peer"] },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000
  }
})
