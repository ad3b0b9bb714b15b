/** How a connection ended, as the registry takes it. */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Address from "../../Address.ts"
import { ConnectionError } from "../../ConnectionError.ts"
import type { HandshakeError } from "../../HandshakeError.ts"
import * as Peer from "../../Peer.ts"
import { Unreachable } from "../Dialer.ts"
import { Duplicate } from "../ServerEvent.ts"
import type { End } from "./registry.ts"

/** Why a dial, or the handshake after it, failed. */
export type Failure = ConnectionError | Duplicate | HandshakeError | Unreachable

/** Whether a dial failed because of this machine, and says nothing about the address. */
const isLocal = (error: Failure): boolean =>
  error instanceof ConnectionError &&
  error.reason._tag === "DialFailed" &&
  ((error.reason.problem === "Unreachable" && error.reason.proxy === undefined) ||
    error.reason.problem === "ProxyUnreachable")

/** `undefined` for an interruption or a defect. */
export const failureOf = (cause: Cause.Cause<Failure>): Failure | undefined =>
  Option.getOrUndefined(Cause.findErrorOption(cause))

export const endOf = (exit: Exit.Exit<Peer.EndReason, Failure>): End => {
  if (Exit.isSuccess(exit)) {
    const { by, retry } = Peer.assess(exit.value)
    return { isInterrupted: exit.value._tag === "ScopeClosed", isLocal: by === "local", retry }
  }
  const error = failureOf(exit.cause)
  if (error === undefined) {
    return { isInterrupted: Cause.hasInterrupts(exit.cause), isLocal: true, isUndialled: true, retry: true }
  }
  if (error instanceof Unreachable) {
    return { isInterrupted: false, isLocal: true, isUndialled: true, retry: false, unreachable: error.message }
  }
  if (error instanceof Duplicate) return { isInterrupted: false, isLocal: true, isUndialled: true, retry: false }
  // Without a network no name is found, but with one a name may be gone, too.
  const isUndialled =
    error instanceof ConnectionError && error.reason._tag === "DialFailed" && error.reason.problem === "HostNotFound"
  return { isInterrupted: false, isLocal: isLocal(error), isUndialled, retry: Peer.assess(error).retry }
}

/** The text of a defect. */
export const defectOf = (cause: Cause.Cause<unknown>): string => {
  const defect = Cause.squash(cause)
  return defect instanceof Error ? defect.message : String(defect)
}

/** The address of an endpoint. `::` for a host that is not an address, such as a Unix socket. */
export const addressOf = ({ host, port }: { readonly host: string; readonly port: number }): Address.Address => {
  const parsed = Address.parseHost(host)
  return Result.isSuccess(parsed)
    ? { ...parsed.success, port }
    : { networkId: Address.NetworkId.ipv6, address: new Uint8Array(16), port }
}
