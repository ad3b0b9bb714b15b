/** PCP and NAT-PMP: the packets and cases of Bitcoin Core's pcp_tests, and the routes of Linux. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import {
  Dialogue,
  gatewayOfRoutes,
  gatewayOfRoutesIPv6,
  natPmpRequest,
  pcpRequest,
  type Request,
  type Step
} from "../../src/server/internal/pcp.ts"
import { dice } from "../support/dice.ts"

/** Hexadecimal, with spaces for the reader. */
const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/[^\da-f]/g, ""), "hex"))
const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))

const nonce = hex("112233445566778899aabbcc")
const request: Request = { nonce, internal: host("192.168.0.6"), port: 1234, lifetime: 1000 }
const requestIPv6: Request = { ...request, internal: host("2a10:1234:5678:9abc:def0:1234:5678:9abc") }

const packets = {
  pcp:
    "0201 0000 000003e8" + // version, operation, lifetime
    "00000000000000000000ffff c0a80006" + // our address
    "112233445566778899aabbcc 06000000" + // nonce, TCP
    "04d2 04d2 00000000000000000000ffff 00000000", // our port, wanted port and address
  pcpGranted:
    "0281 0000 000001f4 00000000 000000000000000000000000" +
    "112233445566778899aabbcc 06000000 04d2 04d2 00000000000000000000ffff 01020304",
  pcpIPv6:
    "0201 0000 000003e8 2a10123456789abcdef0123456789abc" +
    "112233445566778899aabbcc 06000000 04d2 04d2 2a10123456789abcdef0123456789abc",
  pcpIPv6Granted:
    "0281 0000 000001f4 00000000 000000000000000000000000" +
    "112233445566778899aabbcc 06000000 04d2 04d2 2a10123456789abcdef0123456789abc",
  noResources:
    "0281 0008 00000000 00000000 000000000000000000000000" +
    "112233445566778899aabbcc 06000000 04d2 0000 00000000000000000000000000000000",
  natPmpOnly: "0081 0001 00000000",
  address: "0000",
  addressGiven: "0080 0000 66fda1ee 01020304",
  map: "0002 0000 04d2 04d2 000003e8",
  mapped: "0082 0000 66fda1ee 04d2 04d2 000001f4"
}

const shown = (step: Step): string => {
  switch (step._tag) {
    case "Send":
      return `send ${Buffer.from(step.bytes).toString("hex")}`
    case "Wait":
      return "wait"
    case "Granted": {
      const { external, lifetime, protocol } = step.granted
      return `${protocol} ${Address.format(external)} for ${lifetime} s`
    }
    case "Failed":
      return step.failure._tag === "Refused" ? `${step.failure.protocol}: ${step.failure.name}` : step.failure._tag
  }
}
const sends = (packet: string) => `send ${Buffer.from(hex(packet)).toString("hex")}`

/** Plays a request: each packet of the router, or `undefined` for a time that passed, and what we do then. */
const play = (request: Request, ...answers: ReadonlyArray<string | undefined>): ReadonlyArray<string> => {
  const dialogue = new Dialogue(request)
  const steps = [dialogue.next()]
  for (const answer of answers) steps.push(answer === undefined ? dialogue.next() : dialogue.receive(hex(answer)))
  return steps.map(shown)
}

describe("A request for a port, as Core's unit tests have it", () => {
  it("is granted by PCP, for IPv4 and for IPv6", () => {
    assert.deepStrictEqual(play(request, packets.pcpGranted), [sends(packets.pcp), "PCP 1.2.3.4:1234 for 500 s"])
    assert.deepStrictEqual(play(requestIPv6, packets.pcpIPv6Granted), [
      sends(packets.pcpIPv6),
      "PCP [2a10:1234:5678:9abc:def0:1234:5678:9abc]:1234 for 500 s"
    ])
  })

  it("is granted by NAT-PMP where the router does not know PCP", () => {
    assert.deepStrictEqual(play(request, packets.natPmpOnly, packets.addressGiven, packets.mapped), [
      sends(packets.pcp),
      sends(packets.address),
      sends(packets.map),
      "NAT-PMP 1.2.3.4:1234 for 500 s"
    ])
  })

  it("is given up after three packets without an answer, in each part", () => {
    assert.deepStrictEqual(play(request, undefined, undefined, undefined), [
      sends(packets.pcp),
      sends(packets.pcp),
      sends(packets.pcp),
      "NoAnswer"
    ])
    assert.deepStrictEqual(
      play(request, undefined, packets.natPmpOnly, undefined, packets.addressGiven, undefined, undefined, undefined),
      [
        sends(packets.pcp),
        sends(packets.pcp),
        sends(packets.address),
        sends(packets.address),
        sends(packets.map),
        sends(packets.map),
        sends(packets.map),
        "NoAnswer"
      ]
    )
  })

  it("is granted after a packet was lost", () => {
    assert.deepStrictEqual(play(requestIPv6, undefined, packets.pcpIPv6Granted).slice(1), [
      sends(packets.pcpIPv6),
      "PCP [2a10:1234:5678:9abc:def0:1234:5678:9abc]:1234 for 500 s"
    ])
  })

  it("is refused where the router has no resources, or gives another result", () => {
    assert.strictEqual(play(request, packets.noResources)[1], "PCP: NO_RESOURCES")
    assert.strictEqual(play(request, packets.pcpGranted.replace("0281 0000", "0281 0042"))[1], "PCP: unknown")
    assert.strictEqual(
      play(request, packets.natPmpOnly, packets.addressGiven.replace("0080 0000", "0080 0042"))[2],
      "NAT-PMP: unknown"
    )
    const refused = packets.mapped.replace("0082 0000", "0082 0004")
    assert.strictEqual(play(request, packets.natPmpOnly, packets.addressGiven, refused)[3], "NAT-PMP: NO_RESOURCES")
  })

  it("is refused for IPv6 where the router does not know PCP", () => {
    assert.strictEqual(play(requestIPv6, packets.natPmpOnly)[1], "PCP: UNSUPP_VERSION")
  })
})

describe("A packet that is not the answer", () => {
  it("is ignored: another nonce, port, protocol, version, operation or length", () => {
    const good = packets.pcpGranted
    const others = [
      "",
      "02",
      good.slice(0, -2),
      good.replace("0281", "0201"),
      good.replace("0281", "0181"),
      good.replace("0281", "0282"),
      good.replace("1122", "1123"),
      good.replace("aabbcc", "aabbcd"),
      good.replace("06000000", "11000000"),
      good.replace("04d2 04d2", "04d3 04d2"),
      // A port of 0 cannot be reached.
      good.replace("04d2 04d2", "04d2 0000"),
      packets.natPmpOnly.replace("0081 0001", "0081 0002"),
      `${packets.natPmpOnly} 00`,
      packets.mapped
    ]
    for (const other of others) assert.strictEqual(play(request, other)[1], "wait", other)
  })

  it("is ignored by NAT-PMP", () => {
    const ignores = (answers: ReadonlyArray<string>, others: ReadonlyArray<string>) => {
      for (const other of others) assert.strictEqual(play(request, ...answers, other).at(-1), "wait", other)
    }
    const { addressGiven, mapped, natPmpOnly } = packets
    ignores(
      [natPmpOnly],
      [
        "",
        addressGiven.slice(0, -2),
        addressGiven.replace("0080", "0180"),
        addressGiven.replace("0080", "0081"),
        mapped
      ]
    )
    ignores(
      [natPmpOnly, addressGiven],
      [
        addressGiven,
        mapped.slice(0, -2),
        mapped.replace("0082", "0282"),
        mapped.replace("0082", "0081"),
        mapped.replace("04d2 04d2", "04d3 04d2"),
        mapped.replace("04d2 04d2", "04d2 0000")
      ]
    )
  })

  it("may be longer than the answer, which counts", () => {
    assert.strictEqual(play(request, `${packets.pcpGranted} 00000000`)[1], "PCP 1.2.3.4:1234 for 500 s")
  })

  it("may hold anything", () => {
    const random = dice(1)
    const all = [packets.pcpGranted, packets.natPmpOnly, packets.addressGiven, packets.mapped].map(hex)
    for (let round = 0; round < 20_000; round++) {
      const dialogue = new Dialogue(random.chance(0.5) ? request : requestIPv6)
      let step = dialogue.next()
      for (let turn = 0; turn < 40 && step._tag !== "Granted" && step._tag !== "Failed"; turn++) {
        const bytes = random.pick(all).slice(0, random.chance(0.2) ? random.below(70) : 70)
        if (bytes.length > 0 && random.chance(0.3)) bytes[random.below(bytes.length)]! ^= 1 << random.below(8)
        step = random.chance(0.1) ? dialogue.next() : dialogue.receive(bytes)
      }
    }
  })
})

describe("The end of a mapping", () => {
  it("is a request for 0 seconds", () => {
    const over = { ...request, lifetime: 0 }
    assert.deepStrictEqual(pcpRequest(over), hex(packets.pcp.replace("000003e8", "00000000")))
    assert.deepStrictEqual(natPmpRequest(over), hex("0002 0000 04d2 0000 00000000"))
  })
})

describe("The gateway of Linux's tables", () => {
  const heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
  const route = (destination: string, gateway: string, flags: string, metric: number, mask = "00000000") =>
    `eth0\t${destination}\t${gateway}\t${flags}\t0\t0\t${metric}\t${mask}\t0\t0\t0 \n`
  const usual =
    heading + route("00000000", "010200C0", "0003", 0) + route("000200C0", "00000000", "0001", 0, "00FFFFFF")

  it("is that of the default route of IPv4, in the byte order of the machine", () => {
    assert.strictEqual(gatewayOfRoutes(usual, true), "192.0.2.1")
    assert.strictEqual(gatewayOfRoutes(usual, false), "1.2.0.192")
  })

  it("has the lowest metric, is up, and is a gateway", () => {
    const table =
      heading +
      route("00000000", "0100000A", "0003", 600) +
      route("00000000", "0200000A", "0003", 100) +
      route("00000000", "0300000A", "0002", 0) +
      route("00000000", "0400000A", "0001", 0) +
      route("00000000", "0500000A", "0003", 0, "000000FF")
    assert.strictEqual(gatewayOfRoutes(table, true), "10.0.0.2")
    assert.isUndefined(gatewayOfRoutes(heading, true))
    assert.isUndefined(gatewayOfRoutes("", true))
    assert.isUndefined(gatewayOfRoutes(heading + route("00000000", "xyz", "0003", 0), true))
  })

  it("has the name of its interface where it is link-local, for IPv6", () => {
    const zeros = "0".repeat(32)
    const line = (gateway: string, metric: string, flags = "00000003", length = "00") =>
      `${zeros} ${length} ${zeros} 00 ${gateway} ${metric} 00000003 00000000 ${flags}     eth0\n`
    const global = "2a010000000000000000000000000001"
    const local = "fe800000000000000000000000000001"
    assert.strictEqual(gatewayOfRoutesIPv6(line(global, "00000400")), "2a01::1")
    assert.strictEqual(gatewayOfRoutesIPv6(line(global, "00000400") + line(local, "000000ff")), "fe80::1%eth0")
    assert.isUndefined(gatewayOfRoutesIPv6(line(zeros, "ffffffff", "00200200")))
    assert.isUndefined(gatewayOfRoutesIPv6(line(global, "00000400", "00000001")))
    assert.isUndefined(gatewayOfRoutesIPv6(line(global, "00000400", "00000003", "40")))
    assert.isUndefined(gatewayOfRoutesIPv6("hello\n\n"))
  })
})
