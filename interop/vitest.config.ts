import { defineConfig } from "vitest/config"

export default defineConfig({
  root: import.meta.dirname,
  test: {
    include: ["**/*.test.ts"],
    exclude: ["node_modules/**"],
    // A node takes a core while it starts and while it mines: one after the other, so that no timeout is a matter of luck.
    fileParallelism: false,
    testTimeout: 120_000
  }
})
