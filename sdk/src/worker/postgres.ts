import postgres, { type Sql } from 'postgres'
import { definitionOf } from '../flow/compile.ts'
import { arrayTypes } from './array-types.ts'
import { firstAnswer } from './connection-problem.ts'
import { type DatabaseTarget, DatabaseUrlError, databaseTarget } from './database-url.ts'
import { WorkerStartError } from './errors.ts'
import { Listener, type ListenerHooks } from './listener.ts'
import type { DatabaseConnection } from './options.ts'
import { type Pool, RenewedPool } from './pool.ts'
import * as queries from './queries.ts'
import { Transactions } from './transactions.ts'
import type { Transport, WorkRequest } from './transport.ts'

/** Seconds for queries that run when a connection is closed. */
const closing = 1

/** Of every connection that a worker makes. */
export const connectionSettings = {
  prepare: false,
  fetch_types: false,
  connect_timeout: 10,
  // The worker makes its own pauses after a failure.
  backoff: false as const,
  // The default one writes to the console.
  onnotice: () => {},
  connection: { application_name: 'pgflow worker' },
}

/** Each transaction has a connection, which is kept for others for a while (seconds). */
const forTransactions = { max: 1, idle_timeout: 30 }

export interface Patience {
  /** Seconds for an answer to what may wait for locks. */
  readonly patience: number
  /** Seconds for an answer to what waits for nothing. */
  readonly freePatience: number
}

/**
 * The worker's own connections to a session or a transaction pooler; or the user's, which stay open in the end. Of two or
 * more connections of its own, one listens for tasks and keeps the leases: a settlement that waits for a lock does not
 * delay a heartbeat.
 */
export function openPostgresTransport(
  options: DatabaseConnection & { readonly maxConnections?: number; readonly maxTransactions?: number },
  { patience, freePatience }: Patience = { patience: 60, freePatience: 15 },
): Transport {
  const { sql, connection, maxConnections = 3, maxTransactions = 5 } = options
  const transactionsOver = (connect: (onclose: () => void) => Sql, free: Pool) =>
    new Transactions({
      connect,
      limit: maxTransactions,
      patience: freePatience,
      end: (name) => free.use((sql) => queries.endTransaction(sql, name)),
    })
  if (sql !== undefined) {
    const free: Pool = { use: (query) => query(sql) }
    // Connections like the user's, since these are for the worker's own calls, too.
    const transactions = transactionsOver(
      (onclose) => postgres({ ...sql.options, ...forTransactions, fetch_types: false, onclose } as object),
      free,
    )
    return {
      ...calls({ pool: free }),
      transact: (work, request) => transactions.run(work, request),
      close: () => transactions.close(closing),
    }
  }
  const connectForTransactions = (onclose: () => void) =>
    connect(connection, { ...forTransactions, types: arrayTypes, onclose })
  const max = Math.max(1, maxConnections - 2)
  const pool = new RenewedPool(() => connect(connection, { max }), patience)
  const schemaVersion = () => pool.use((sql) => firstAnswer(sql, queries.schemaVersion(sql)))
  // These connect when they are used.
  const second = new RenewedPool(() => connect(connection, { max: 1, idle_timeout: 30 }), patience)
  const apart = new RenewedPool(() => connect(connection, { max: 1, idle_timeout: 5 }), 2 * patience)
  // As long as the functions of SQL steps take, which their timeouts end.
  const caller = new RenewedPool(
    () => connect(connection, { max: 1, idle_timeout: 30 }),
    Number.POSITIVE_INFINITY,
  )
  const close = async (...others: (RenewedPool | Transactions)[]) => {
    await Promise.all([pool, apart, caller, ...others].map((one) => one.close(closing)))
  }
  if (maxConnections === 1) {
    const transactions = transactionsOver(connectForTransactions, pool)
    return {
      ...calls({ pool, apart, caller }),
      schemaVersion,
      transact: (work, request) => transactions.run(work, request),
      close: () => close(transactions),
    }
  }
  const listener = new Listener((hooks) => {
    return new RenewedPool(() => connect(connection, { ...hooks, max: 1 }), freePatience, hooks.onclose)
  })
  const transactions = transactionsOver(connectForTransactions, listener.pool)
  return {
    ...calls({ pool, free: listener.pool, apart, caller, ...(maxConnections > 2 && { second }) }),
    schemaVersion,
    transact: (work, request) => transactions.run(work, request),
    async listen(onTasks) {
      const isSession = await listener.listen(pool, onTasks)
      if (isSession) for (const one of [pool, second, listener.pool, transactions]) one.prepare()
      return isSession
    },
    close: async () => {
      listener.close()
      await close(listener.pool, second, transactions)
    },
  }
}

function connect(
  connection: string,
  more: { max: number; idle_timeout?: number; types?: typeof arrayTypes } & Partial<ListenerHooks>,
): Sql {
  const { url, options } = targetOf(connection)
  return postgres(url, { ...connectionSettings, ...options, ...more })
}

/** @throws WorkerStartError */
export function targetOf(connection: string): DatabaseTarget {
  try {
    return databaseTarget(connection, 'connection')
  } catch (error) {
    if (error instanceof DatabaseUrlError)
      throw new WorkerStartError(`${error.message}.`, { cause: error.cause })
    throw error
  }
}

interface Pools {
  readonly pool: Pool
  /** A connection for what waits for no lock. */
  readonly free?: Pool
  /** One for what takes long. */
  readonly apart?: Pool
  /** One for the functions of SQL steps. */
  readonly caller?: Pool
  /** One for a second exchange at the same time. */
  readonly second?: Pool
}

function calls({
  pool,
  free = pool,
  apart = pool,
  caller = pool,
  second,
}: Pools): Omit<Transport, 'close' | 'listen'> {
  const poolOf = ({ apart: isApart, lane }: WorkRequest) =>
    isApart ? apart : lane === 1 ? (second ?? pool) : pool
  return {
    exchanges: second === undefined ? 1 : 2,
    schemaVersion: () => pool.use(queries.schemaVersion),
    defineFlow: (flow) => pool.use((sql) => queries.registerFlow(sql, definitionOf(flow))),
    registerWorker: (worker) => pool.use((sql) => queries.registerWorker(sql, worker)),
    settleAndClaim: (request) => poolOf(request).use((sql) => queries.settleAndClaim(sql, request)),
    heartbeat: (workerId, tasks, lease) => free.use((sql) => queries.heartbeat(sql, workerId, tasks, lease)),
    tick: () => free.use(queries.tick),
    callFunctions: () => caller.use(queries.callFunctions),
    handBack: (tasks) => free.use((sql) => queries.handBack(sql, tasks)),
    reportProgress: (reports) => pool.use((sql) => queries.reportProgress(sql, reports)),
    fetchValue: (ref) => pool.use((sql) => queries.fetchValue(sql, ref)),
    stopWorker: (workerId) => free.use((sql) => queries.stopWorker(sql, workerId)),
    keepResult: (result) => pool.use((sql) => queries.keepResult(sql, result)),
    keptResultsOf: (task) => pool.use((sql) => queries.keptResultsOf(sql, task)),
    completeWait: (completion) => pool.use((sql) => queries.completeWait(sql, completion)),
  }
}
