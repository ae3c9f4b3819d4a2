import type { Worker } from 'node:worker_threads'
import type { Log } from '../flow/context.ts'
import { leaseThreadCode } from './lease-thread-code.ts'
import type { WorkerConnection } from './options.ts'
import { connectionSettings, targetOf as databaseTargetOf } from './postgres.ts'
import { heartbeatQuery } from './queries.ts'
import { requestOf } from './rpc.ts'
import { keyOf } from './tasks.ts'
import type { ClaimedTask, TaskKey } from './transport.ts'

export interface LeaseThreadOptions {
  readonly workerId: string
  /** Seconds. */
  readonly lease: number
  readonly log: Log
}

type HeldTask = TaskKey & Pick<ClaimedTask, 'timeout'>

/** So many additions at most until the thread gets all tasks anew. */
const mostAdded = 1_000

/**
 * A thread that extends the leases while a handler blocks the main one. It starts with the first task, and connects to the
 * database only when it is needed. A block that is longer than the longest timeout of the held tasks ends its work: a
 * handler that never ends must not keep its tasks.
 */
export class LeaseThread {
  readonly #start: () => Worker
  readonly #log: Log
  #worker: Worker | undefined
  #hasFailed = false
  #added = 0
  #isEmpty = true

  constructor(start: () => Worker, log: Log) {
    this.#start = start
    this.#log = log
  }

  /** Whether leases are extended during a block. */
  get works(): boolean {
    return !this.#hasFailed
  }

  /**
   * These tasks were claimed.
   *
   * @param all what is held, these included
   * @param at when the leases of what is held were extended for the last time, by `threadTime`
   */
  add(tasks: readonly HeldTask[], all: readonly HeldTask[], at: number): void {
    this.#added += tasks.length
    if (this.#added > mostAdded) this.replace(all, at)
    else this.#post({ added: JSON.stringify(tasks.map(keyOf)), ...limits(tasks, at) })
  }

  /** These tasks are held, and no others. */
  replace(tasks: readonly HeldTask[], at: number): void {
    this.#added = 0
    this.#post({ held: JSON.stringify(tasks.map(keyOf)), ...limits(tasks, at) })
  }

  /** Nothing is held. */
  clear(): void {
    if (this.#isEmpty) return
    this.replace([], 0)
    this.#isEmpty = true
  }

  async close(): Promise<void> {
    this.#hasFailed = true
    await this.#worker?.terminate()
  }

  #post(message: object): void {
    if (this.#hasFailed) return
    this.#isEmpty = false
    try {
      this.#worker ??= this.#started()
      this.#worker.postMessage(message)
    } catch (error) {
      this.#fail(error)
    }
  }

  #started(): Worker {
    const worker = this.#start()
    worker.unref()
    worker.on('error', (error) => this.#fail(error))
    worker.on('message', (error) => {
      this.#log.warn('The thread of the worker could not extend its leases', { error })
    })
    return worker
  }

  #fail(error: unknown): void {
    this.#hasFailed = true
    this.#log.warn('Leases are not extended while a handler blocks the event loop: their thread failed', {
      error,
    })
  }
}

/**
 * When the leases were extended, when the main thread was last seen, and for how many seconds from then it may be blocked:
 * one that never comes back must lose its tasks.
 */
function limits(tasks: readonly HeldTask[], extendedAt: number) {
  const longest = tasks.reduce((most, { timeout }) => Math.max(most, timeout), 0)
  return { extendedAt, seenAt: threadTime(), longest }
}

/** Milliseconds on the clock that all threads of a process have in common. */
export function threadTime(): number {
  return Number(process.hrtime.bigint() / 1_000_000n)
}

/**
 * The thread for a worker; `undefined` where there are no threads (outside Node), no URL that it could connect to, or no
 * package `postgres` (in a bundle without `node_modules`).
 */
export async function leaseThreadFor(
  options: WorkerConnection,
  { workerId, lease, log }: LeaseThreadOptions,
): Promise<LeaseThread | undefined> {
  if (!isNode()) return undefined
  const target = await targetOf(options)
  if (target === undefined) return undefined
  const { Worker } = await import('node:worker_threads')
  const workerData = { workerId, lease, ...target }
  // Without the flags of the process, such as loaders, which it does not need.
  const start = () => new Worker(leaseThreadCode, { eval: true, workerData, execArgv: [] })
  return new LeaseThread(start, log)
}

function isNode(): boolean {
  const { Deno, Bun, process } = globalThis as { Deno?: object; Bun?: object; process?: NodeJS.Process }
  return Deno === undefined && Bun === undefined && process?.versions?.node !== undefined
}

async function targetOf(options: WorkerConnection): Promise<object | undefined> {
  if (options.url !== undefined) return { project: requestOf(options, 'heartbeat') }
  if (options.connection === undefined) return undefined
  const postgres = await pathOfPostgres()
  if (postgres === undefined) return undefined
  const { onnotice: _, ...settings } = connectionSettings
  const { url, options: target } = databaseTargetOf(options.connection)
  return {
    database: { postgres, connection: url, settings: { ...settings, ...target }, query: heartbeatQuery },
  }
}

/** Where this module, or the process, finds the package. */
async function pathOfPostgres(): Promise<string | undefined> {
  const { createRequire } = await import('node:module')
  for (const from of [import.meta.url, `${process.cwd()}/`]) {
    try {
      return createRequire(from).resolve('postgres')
    } catch {
      // Not there.
    }
  }
  return undefined
}
