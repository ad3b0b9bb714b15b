/** A longer fuzz run of fixed seeds. */
import { testInputs } from "./fuzz/inputsTest.ts"

testInputs(10_000)
