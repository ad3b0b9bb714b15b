/** `btcpeer net` as a real process, which asks an HTTP server on loopback. */
import { assert, describe } from "@effect/vitest"
import { once } from "node:events"
import * as http from "node:http"
import type * as net from "node:net"
import { networkInfo } from "./support/networkInfo.ts"
import { btcpeer, live, oneLine, type Running } from "./support/processes.ts"

/** A status of a server without peers. */
const serve = async (): Promise<{ readonly url: string; readonly close: () => void } & AsyncDisposable> => {
  const server = http.createServer(({ url }, response) => {
    response.setHeader("content-type", "application/json")
    response.end(JSON.stringify(url === "/peers" ? [] : networkInfo()))
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const close = (): void => {
    server.close()
    server.closeAllConnections()
  }
  return {
    url: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    close,
    [Symbol.asyncDispose]: async () => close()
  }
}

/** Waits until the table was printed this many times. */
const shown = async ({ child, stdout }: Running, times: number): Promise<void> => {
  while (stdout().split("Local addresses: n/a\n").length <= times) await once(child.stdout, "data")
}

describe("btcpeer net", () => {
  live("prints the table and ends", async () => {
    await using status = await serve()
    const { code, stderr, stdout } = await btcpeer("net", "--url", status.url).ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.match(stdout, /^btcpeer client v[\d.]+ - server 70016\/us:1\/ - services \n\n/)
    assert.notInclude(stdout, "\u001b")
  })

  live("watches until Ctrl-C, which is a clean end", async () => {
    await using status = await serve()
    const watching = btcpeer("net", "--watch", "--url", status.url)
    await shown(watching, 2)
    watching.child.kill("SIGINT")
    const { code, stderr } = await watching.ended
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })

  live("ends with one line when the program that it watches ends", async () => {
    await using status = await serve()
    const watching = btcpeer("net", "-w", "--url", status.url)
    await shown(watching, 1)
    status.close()
    const { code, stderr } = await watching.ended
    assert.strictEqual(code, 1)
    oneLine(stderr, /nothing answers at http:\/\/127\.0\.0\.1:\d+: the connection was (?:refused|reset)\n$/)
  })
})
