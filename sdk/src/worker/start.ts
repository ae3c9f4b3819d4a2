import type { Log } from '../flow/context.ts'
import type { AnyFlow } from '../flow/definition.ts'
import type { Duration } from '../shared/duration.ts'
import { schemaProblem, schemaVersion } from '../shared/schema-version.ts'
import { concurrencyFor } from './batches.ts'
import { ConnectionProblem } from './connection-problem.ts'
import { Core, type CoreOptions } from './core.ts'
import { WorkerStartError } from './errors.ts'
import { codeOf, explain } from './faults.ts'
import { type LeaseThread, leaseThreadFor } from './lease-thread.ts'
import { logFrom } from './log.ts'
import { openTransport } from './open.ts'
import { checkOptions, hostedFlows, secondsFrom, type WorkerOptions, type WorkerSettings } from './options.ts'
import { after } from './time.ts'
import type { Transport, WorkerRow } from './transport.ts'

/** Seconds for telling the database that the worker has stopped. */
const stopTimeout = 2

export interface StopOptions {
  /** How long running handlers get to finish; `0` aborts them at once. @default the worker's `gracePeriod` */
  readonly gracePeriod?: Duration
}

/** A worker that runs. */
export interface Worker {
  readonly workerId: string
  /**
   * Claims no more tasks, lets the running ones finish and settles them, then closes the worker's connections. What
   * still runs after the grace period is aborted and handed back: another worker runs it at once, and the attempt does
   * not count.
   * It never rejects, and may be called again: with a shorter grace period it ends sooner.
   *
   * @example
   * await worker.stop({ gracePeriod: '10s' })
   */
  stop(options?: StopOptions): Promise<void>
  /**
   * Looks for tasks now, instead of at the next poll: for a worker that is not notified of them, by somebody who knows that
   * there are some.
   */
  wake(): void
  /**
   * Resolves when the worker has stopped, by `stop` or by its `signal`. Rejects with a `WorkerFailedError` if it stopped by
   * itself, since the database refused all its calls for a minute, as one without its migrations does. If nobody handles
   * that, the process ends with the error, so that its platform starts it again.
   */
  readonly stopped: Promise<void>
}

/**
 * Registers the flows and their sub-flows in the database and runs their steps until the worker is stopped.
 *
 * @throws WorkerStartError if an option cannot work, the database cannot be reached, lacks the migrations or has older
 * ones, or refuses a flow; the message says what to do
 *
 * @example
 * const worker = await startWorker({ connection: process.env.DATABASE_URL, flows: [AnalyzeDocument] })
 * stopOnSignals(worker)
 */
export async function startWorker<const Flows extends readonly AnyFlow[]>(
  options: WorkerOptions<Flows>,
): Promise<Worker> {
  const { signal, name = 'worker', gracePeriod = '25s' }: WorkerSettings = options
  checkOptions(options)
  const flows = hostedFlows(options.flows)
  signal?.throwIfAborted()
  const log = logFrom(options.log)
  const transport = openTransport(options)
  const workerId = crypto.randomUUID()
  try {
    await checkSchema(transport, log)
    await register(transport, flows, {
      worker_id: workerId,
      name,
      flow_slugs: flows.map(({ slug }) => slug),
    })
    signal?.throwIfAborted()
  } catch (error) {
    await transport.close()
    throw error
  }
  const lease = secondsFrom('lease', options.lease ?? '30s')
  const thread = await leaseThreadFor(options, { workerId, lease, log }).catch(() => undefined)
  const core = createCore({ ...options, flows, log }, { transport, workerId, lease, thread })
  core.start()
  return runningWorker({ core, transport, thread, workerId, gracePeriod, signal, log })
}

function createCore(
  options: WorkerSettings & {
    readonly flows: readonly AnyFlow[]
    readonly resources?: object | undefined
    readonly log: Log
  },
  parts: Pick<CoreOptions, 'transport' | 'workerId' | 'lease' | 'thread'>,
): Core {
  const { flows, log, resources = {}, webhooks } = options
  const concurrency = concurrencyFor(flows, options.concurrency)
  const { settleBatch = 100, inlineLimit = 65_536, cacheLimit = 67_108_864 } = options
  const { outputLimit = 33_554_432 } = options
  const settleDelay = secondsFrom('settleDelay', options.settleDelay ?? '10ms')
  return new Core({
    ...parts,
    ...{ flows, concurrency, log, resources, webhooks },
    ...{ settleBatch, settleDelay, inlineLimit, cacheLimit, outputLimit },
  })
}

/** Older migrations are refused; newer ones serve older packages too. */
async function checkSchema(transport: Transport, log: Log): Promise<void> {
  const found = await transport.schemaVersion().catch((cause) => {
    throw startError('The worker cannot reach the database', cause)
  })
  const problem = schemaProblem(found)
  if (problem !== undefined) throw new WorkerStartError(problem)
  if (found !== schemaVersion) {
    log.info('The database has newer migrations than this package needs', { found, needed: schemaVersion })
  }
}

async function register(transport: Transport, flows: readonly AnyFlow[], worker: WorkerRow): Promise<void> {
  for (const flow of flows) {
    await transport.defineFlow(flow).catch((cause) => {
      throw startError(`The worker cannot define the flow "${flow.slug}"`, cause)
    })
  }
  await transport.registerWorker(worker).catch((cause) => {
    throw startError('The worker cannot register', cause)
  })
}

/** What to do, by what the database or PostgREST says. */
const advice: Readonly<Record<string, string>> = {
  '42501': 'Connect as the role postgres, or with a secret key of the project.',
  ECONNREFUSED: 'Check the URL, and whether the database runs.',
  ENOTFOUND: 'Check the host in the URL, and in the dashboard whether the project is paused.',
  PGRST106:
    'Add pgflow_worker to the exposed schemas of the project: in the API settings of the dashboard, or in [api] schemas of config.toml.',
}

function startError(what: string, cause: unknown): WorkerStartError {
  const isExplained = cause instanceof ConnectionProblem
  const next = isExplained ? undefined : advice[codeOf(cause) ?? '']
  const why = isExplained ? cause.message : explain(cause).replace(/\.$/, '')
  return new WorkerStartError(`${what}: ${why}.${next ? ` ${next}` : ''}`, { cause })
}

interface Running {
  readonly core: Core
  readonly transport: Transport
  readonly thread: LeaseThread | undefined
  readonly workerId: string
  readonly gracePeriod: Duration
  readonly signal: AbortSignal | undefined
  readonly log: Log
}

function runningWorker({ core, transport, thread, workerId, gracePeriod, signal, log }: Running): Worker {
  const stopped = core.ended().finally(async () => {
    signal?.removeEventListener('abort', onAbort)
    await noteStop()
    await Promise.all([transport.close(), thread?.close()])
  })

  async function stop(options: StopOptions = {}): Promise<void> {
    const seconds = secondsFrom('gracePeriod', options.gracePeriod ?? gracePeriod)
    await core.stop(seconds)
    // Whoever waits for `stopped` gets the reason why it failed.
    await stopped.catch(() => {})
  }

  function noteStop(): Promise<void> {
    return new Promise((resolve) => {
      const cancel = after(stopTimeout, resolve)
      transport
        .stopWorker(workerId)
        .catch((error) => log.warn('The worker could not note in the database that it stops', { error }))
        .finally(cancel)
        .then(resolve)
    })
  }

  function onAbort(): void {
    void stop()
  }

  signal?.addEventListener('abort', onAbort)
  log.info('The worker started', { workerId })
  return { workerId, wake: () => core.wake(), stop, stopped }
}
