/**
 * The addresses of this machine's interfaces, for a server that listens on all of them.
 *
 * This module needs Node, so it is not in the barrel: `import * as NodeLocalAddresses from
 * "effect-bitcoin-peer/server/NodeLocalAddresses"`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { SecureRandom } from "effect/crypto"
import { networkInterfaces, type NetworkInterfaceInfo } from "node:os"
import * as Address from "../Address.ts"
import { type LocalAddressError, LocalAddresses, make, type Options, scores } from "./LocalAddresses.ts"

/**
 * The routable addresses of this machine's interfaces, with the given port. A machine that a router connects has
 * private addresses only, and gives no address.
 *
 * @category getters
 * @since 0.1.0
 */
export const interfaceAddresses = (
  port: number,
  interfaces: Readonly<
    Record<string, ReadonlyArray<Pick<NetworkInterfaceInfo, "address">> | undefined>
  > = networkInterfaces()
): ReadonlyArray<Address.Address> =>
  Object.values(interfaces).flatMap((list = []) =>
    list.flatMap(({ address }) => {
      const host = Address.parseHost(address)
      return Result.isSuccess(host) && Address.isRoutable(host.success) ? [{ ...host.success, port }] : []
    })
  )

/**
 * The service `LocalAddresses` with the addresses of this machine's interfaces, if it discovers addresses.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<LocalAddresses, LocalAddressError> =>
  Layer.effect(
    LocalAddresses,
    Effect.gen(function* () {
      const local = yield* make(options)
      for (const address of interfaceAddresses(options.port)) yield* local.add(address, scores.interface)
      return local
    })
  ).pipe(Layer.provide(SecureRandom.layerWebCrypto))
