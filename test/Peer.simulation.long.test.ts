/** Random schedules in virtual time, long run with fixed seeds. SIMULATION_RUNS=100000 runs more of them. */
import { testSchedules } from "./support/schedules.ts"

testSchedules({ from: 0, to: Number(process.env["SIMULATION_RUNS"] ?? 20_000) })
