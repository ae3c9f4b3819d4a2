import postgres, { type Sql } from 'postgres'
import { definitionOf } from '../flow/compile.ts'
import { WorkerStartError } from './errors.ts'
import { type ConnectionOptions, Listener } from './listener.ts'
import type { DatabaseConnection } from './options.ts'
import * as queries from './queries.ts'
import type { Transport } from './transport.ts'

/** Seconds for what is under way when a connection is closed. */
const closing = 1

const settings: ConnectionOptions = {
  prepare: false,
  fetch_types: false,
  connect_timeout: 10,
  // The worker makes its own pauses after a failure.
  backoff: false,
  // The default one writes to the console.
  onnotice: () => {},
  connection: { application_name: 'pgflow worker' },
}

/**
 * The worker's own connections to a session or a transaction pooler, one of which hears of new tasks where there are two
 * or more; or the user's, which stay open in the end, and over which it polls.
 */
export function openPostgresTransport(
  options: DatabaseConnection & { readonly maxConnections?: number },
): Transport {
  if (options.sql !== undefined) return { ...calls(options.sql), close: async () => {} }
  const { connection, maxConnections = 2 } = options
  const sql = openPool(connection, Math.max(1, maxConnections - 1))
  const base = { ...calls(sql), close: () => sql.end({ timeout: closing }) }
  return maxConnections === 1 ? base : withListener(base, connection, sql)
}

function openPool(connection: string, max: number): Sql {
  try {
    return postgres(connection, { ...settings, max })
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

function withListener(base: Transport, connection: string, sql: Sql): Transport {
  let listener: Listener | undefined
  return {
    ...base,
    async listen(onTasks) {
      listener = new Listener(connection, settings, onTasks)
      if (await listener.listen(sql)) return true
      await listener.close()
      return false
    },
    async close() {
      await Promise.all([listener?.close(), base.close()])
    },
  }
}

function calls(sql: Sql): Omit<Transport, 'close' | 'listen'> {
  return {
    defineFlow: (flow) => queries.registerFlow(sql, definitionOf(flow)),
    registerWorker: (worker) => queries.registerWorker(sql, worker),
    settleAndClaim: (request) => queries.settleAndClaim(sql, request),
    heartbeat: (workerId, tasks, lease) => queries.heartbeat(sql, workerId, tasks, lease),
    handBack: (tasks) => queries.handBack(sql, tasks),
    reportProgress: (reports) => queries.reportProgress(sql, reports),
    fetchValue: (ref) => queries.fetchValue(sql, ref),
    stopWorker: (workerId) => queries.stopWorker(sql, workerId),
  }
}
