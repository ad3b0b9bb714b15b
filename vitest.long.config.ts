/** `npm run test:long`: the files `*.long.test.ts`, which run the same rules as the short tests over many more inputs. */
import { configDefaults, defineConfig, mergeConfig } from "vitest/config"
import config from "./vitest.config.ts"

const long = mergeConfig(config, defineConfig({ test: { testTimeout: 300_000 } }))

export default {
  ...long,
  // mergeConfig would join these lists with those of the short tests.
  test: { ...long.test, include: ["{test,packages/*/test}/**/*.long.test.ts"], exclude: configDefaults.exclude }
}
