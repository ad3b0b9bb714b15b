/** Parses the nodes of the operator's options. */
import * as Result from "effect/Result"
import * as Address from "../../Address.ts"
import type { Target } from "../Dialer.ts"

/** Labels of letters, digits and hyphens (RFC 1123), at least one of them not a number. */
const isHostName = (text: string): boolean =>
  text.length <= 253 &&
  !/^[\d.]+$/.test(text) &&
  text.split(".").every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(label))

/**
 * Reads "1.2.3.4", "[2001:db8::1]:8333", "….onion" or a host name, each with or without a port. Fails with the problem as a text.
 */
export const parseTarget = (text: string, defaultPort: number): Result.Result<Target, string> => {
  const address = Address.parse(text, defaultPort)
  if (Result.isSuccess(address)) {
    return address.success.port === 0 && address.success.networkId !== Address.NetworkId.i2p
      ? Result.fail(`"${text}": port 0 cannot be dialled`)
      : Result.succeed(address.success)
  }
  const { reason } = address.failure
  if (reason._tag !== "NotAnAddress") return Result.fail(address.failure.message)
  const [, host, port] = /^([^:]+)(?::(\d{1,5}))?$/.exec(text) ?? []
  if (host === undefined || !isHostName(host)) return Result.fail(`"${text}" is neither an address nor a host name`)
  if (/\.(onion|i2p)$/i.test(host)) return Result.fail(`"${text}" is not a valid address of Tor or I2P`)
  const number = port === undefined ? defaultPort : Number(port)
  return number >= 1 && number <= 65_535
    ? Result.succeed({ host, port: number })
    : Result.fail(`"${text}": the port ${number} is not a number from 1 to 65535`)
}
