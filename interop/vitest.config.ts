/** `npm run test:interop`: tests against real nodes. */
import config from "../vitest.config.ts"

export default {
  ...config,
  root: import.meta.dirname,
  test: {
    include: ["**/*.test.ts"],
    exclude: ["node_modules/**"],
    // A node uses a whole core while it starts and mines. Files run one at a time, so that no test times out by chance.
    fileParallelism: false,
    testTimeout: 120_000
  }
}
