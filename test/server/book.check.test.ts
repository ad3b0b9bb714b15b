/** The check of the address book finds each part that disagrees with the others. */
import { assert, describe, it } from "@effect/vitest"
import { check } from "../../src/server/internal/book/check.ts"
import { Tables } from "../../src/server/internal/book/tables.ts"
import { coreKey, host, randomOf, start, told } from "../support/books.ts"

const filled = (): Tables => {
  const tables = new Tables({ key: coreKey, random: randomOf(1) })
  for (let i = 1; i <= 20; i++) {
    tables.add([told(`250.${i}.1.1:8333`, start)], host("252.2.2.2"), start)
    if (i % 2 === 0) tables.good(told(`250.${i}.1.1:8333`), start)
  }
  return tables
}
/** The places of a table that are taken. */
const taken = ({ places }: Tables, isTried: boolean): ReadonlyArray<number> =>
  Array.from(places.keys()).filter((place) => places[place] !== -1 && place >= 1_024 * 64 === isTried)

describe("the check of the address book", () => {
  it("finds nothing in a good one", () => {
    assert.isUndefined(check(filled()))
  })

  const damages: Readonly<Record<string, (tables: Tables) => void>> = {
    "an entry in a place of another": (tables) => {
      const [one, other] = taken(tables, false)
      const { places } = tables
      const kept = places[one!]!
      places[one!] = places[other!]!
      places[other!] = kept
    },
    "a tried entry in another place": (tables) => {
      const [place] = taken(tables, true)
      tables.places[place! ^ 1] = tables.places[place!]!
      tables.places[place!] = -1
    },
    "a tried entry in the new table": (tables) => {
      tables.entries.isTried[tables.places[taken(tables, true)[0]!]!] = 0
    },
    "an entry without a place": (tables) => {
      tables.places[taken(tables, false)[0]!] = -1
    },
    "a wrong number of references": (tables) => {
      tables.entries.references[tables.places[taken(tables, false)[0]!]!]!++
    },
    "a tried entry that was never reached": (tables) => {
      tables.entries.lastSuccess[tables.places[taken(tables, true)[0]!]!] = 0
    },
    "a wrong count of a bucket": (tables) => {
      tables.counts[0]!++
    },
    "a wrong mask of a bucket": (tables) => {
      tables.masks[5]! ^= 2
    },
    "a wrong size": (tables) => {
      tables.sizes[1]!++
    },
    "an entry twice in the random order": (tables) => {
      tables.entries.order[0] = tables.entries.order[1]!
    },
    "a tried entry that waits for a place": (tables) => {
      tables.collisions.add(tables.places[taken(tables, true)[0]!]!)
    }
  }
  for (const [name, damage] of Object.entries(damages)) {
    it(`finds ${name}`, () => {
      const tables = filled()
      damage(tables)
      assert.isString(check(tables))
    })
  }
})
