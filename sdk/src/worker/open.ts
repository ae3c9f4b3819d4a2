import type { WorkerConnection } from './options.ts'
import { openPostgresTransport } from './postgres.ts'
import { openRpcTransport } from './rpc.ts'
import type { Transport } from './transport.ts'

/** The transport for a way to connect. */
export function openTransport(
  options: WorkerConnection & { readonly maxConnections?: number; readonly maxTransactions?: number },
): Transport {
  return options.url === undefined ? openPostgresTransport(options) : openRpcTransport(options)
}
