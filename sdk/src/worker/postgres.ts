import postgres, { type Sql } from 'postgres'
import { definitionOf } from '../flow/compile.ts'
import { WorkerStartError } from './errors.ts'
import { Listener, type ListenerHooks } from './listener.ts'
import type { DatabaseConnection } from './options.ts'
import * as queries from './queries.ts'
import type { Transport } from './transport.ts'

/** Seconds for what is under way when a connection is closed. */
const closing = 1

const settings = {
  prepare: false,
  fetch_types: false,
  connect_timeout: 10,
  // The worker makes its own pauses after a failure.
  backoff: false as const,
  // The default one writes to the console.
  onnotice: () => {},
  connection: { application_name: 'pgflow worker' },
}

/**
 * The worker's own connections to a session or a transaction pooler; or the user's, which stay open in the end. Of two or
 * more connections of its own, one listens for tasks and keeps the leases: a settlement that waits for a lock does not
 * delay a heartbeat.
 */
export function openPostgresTransport(
  options: DatabaseConnection & { readonly maxConnections?: number },
): Transport {
  if (options.sql !== undefined) return { ...calls(options.sql), close: async () => {} }
  const { connection, maxConnections = 2 } = options
  const sql = openPool(connection, { max: Math.max(1, maxConnections - 1) })
  if (maxConnections === 1) return { ...calls(sql), close: () => sql.end({ timeout: closing }) }
  const listener = new Listener((hooks) => openPool(connection, { ...hooks, max: 1 }))
  return {
    ...calls(sql, listener.sql),
    listen: (onTasks) => listener.listen(sql, onTasks),
    close: async () => {
      listener.close()
      await Promise.all([sql.end({ timeout: closing }), listener.sql.end({ timeout: closing })])
    },
  }
}

function openPool(connection: string, more: { max: number } & Partial<ListenerHooks>): Sql {
  try {
    return postgres(connection, { ...settings, ...more })
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

/** @param free a connection for what waits for no lock */
function calls(sql: Sql, free = sql): Omit<Transport, 'close' | 'listen'> {
  return {
    defineFlow: (flow) => queries.registerFlow(sql, definitionOf(flow)),
    registerWorker: (worker) => queries.registerWorker(sql, worker),
    settleAndClaim: (request) => queries.settleAndClaim(sql, request),
    heartbeat: (workerId, tasks, lease) => queries.heartbeat(free, workerId, tasks, lease),
    handBack: (tasks) => queries.handBack(free, tasks),
    reportProgress: (reports) => queries.reportProgress(sql, reports),
    fetchValue: (ref) => queries.fetchValue(sql, ref),
    stopWorker: (workerId) => queries.stopWorker(free, workerId),
  }
}
