/** Random schedules in virtual time, the long run. SIMULATION_RUNS=100000 makes it longer; the seeds are always the same. */
import { testSchedules } from "./support/schedules.ts"

testSchedules({ from: 0, to: Number(process.env["SIMULATION_RUNS"] ?? 20_000) })
