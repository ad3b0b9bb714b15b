/**
 * Tells requests of the operator's programs to a local HTTP server from requests of foreign web pages in the operator's browser. A browser lets a page send them to 127.0.0.1, and with DNS rebinding also read the answers: the name of the page then resolves to
 * 127.0.0.1, but stays in the Host header.
 */

/** The headers that tell them apart. */
export interface RequestHeaders {
  readonly host: string | undefined
  readonly origin: string | undefined
  /** `Sec-Fetch-Site`, which browsers set and pages cannot. */
  readonly fetchSite: string | undefined
}

const name = /^([^[\]:]*)(?::\d*)?$/
const ipv4 = /^\d{1,3}(?:\.\d{1,3}){3}$/
const ipv6 = /^\[[0-9a-f:.]+\](?::\d*)?$/i

/**
 * Whether a Host header names this server: `localhost`, an IP address, or one of `hosts` in lower case. No page can make its own origin
 * an IP address that resolves to another one.
 */
export const isOwnHost = (host: string, hosts: ReadonlySet<string>): boolean => {
  if (ipv6.test(host)) return true
  const [, of = ""] = name.exec(host) ?? []
  return ipv4.test(of) || of.toLowerCase() === "localhost" || hosts.has(of.toLowerCase())
}

/** Why a request is refused, or undefined if it is not. */
export const refusal = (headers: RequestHeaders, hosts: ReadonlySet<string>): string | undefined => {
  const { fetchSite, host, origin } = headers
  if (host === undefined || !isOwnHost(host, hosts)) {
    return "the Host header is not localhost, an IP address or a host that the program allows"
  }
  // "none": the user entered the URL.
  const isForeign =
    (fetchSite !== undefined && fetchSite !== "none" && fetchSite !== "same-origin") ||
    (origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`)
  return isForeign ? "a page of another origin asks" : undefined
}
