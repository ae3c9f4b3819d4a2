import postgres, { type Sql } from 'postgres'
import { compile } from '../flow/compile.ts'
import { WorkerStartError } from './errors.ts'
import type { WorkerConnection } from './options.ts'
import * as queries from './queries.ts'
import type { Transport } from './transport.ts'

/** Seconds for what is under way when a connection is closed. */
const closing = 1

/** The worker's own connections to a session or a transaction pooler, or the user's, which stay open in the end. */
export function openTransport(options: WorkerConnection & { readonly maxConnections?: number }): Transport {
  if (options.sql !== undefined) return transportOver(options.sql, async () => {})
  const sql = openPool(options.connection, options.maxConnections ?? 2)
  return transportOver(sql, () => sql.end({ timeout: closing }))
}

function openPool(connection: string, maxConnections: number): Sql {
  try {
    return postgres(connection, {
      max: maxConnections,
      prepare: false,
      fetch_types: false,
      connect_timeout: 10,
      // The worker makes its own pauses after a failure.
      backoff: false,
      // The default one writes to the console.
      onnotice: () => {},
      connection: { application_name: 'pgflow worker' },
    })
  } catch (cause) {
    // Without the URL, which holds a password.
    throw new WorkerStartError(
      'connection is not the URL of a database: postgresql://user:password@host:port/database',
      {
        cause,
      },
    )
  }
}

function transportOver(sql: Sql, close: () => Promise<void>): Transport {
  return {
    defineFlow: (flow) => queries.runStatements(sql, compile(flow)),
    registerWorker: (worker) => queries.registerWorker(sql, worker),
    claim: (request) => queries.claimTasks(sql, request),
    settle: (results) => queries.settleTasks(sql, results),
    extend: (tasks, lease) => queries.extendLeases(sql, tasks, lease),
    heartbeat: (workerId) => queries.heartbeat(sql, workerId),
    stopWorker: (workerId) => queries.stopWorker(sql, workerId),
    close,
  }
}
