import type { Sql } from 'postgres'
import type { Log } from '../flow/context.ts'
import type { AnyFlow } from '../flow/definition.ts'
import type { ResourcesOf } from '../flow/extract.ts'
import { relatedFlows } from '../flow/related.ts'
import { closest } from '../shared/closest.ts'
import { type Duration, durationForms, secondsOf } from '../shared/duration.ts'
import { concurrencyFor } from './batches.ts'
import { WorkerStartError } from './errors.ts'
import { checkWebhooks, type WebhookSettings } from './webhooks/settings.ts'

/** Postgres itself. */
export type DatabaseConnection =
  | {
      /** The URL of the database, of its session pooler or of its transaction pooler, as the role `postgres`. */
      readonly connection: string
      readonly sql?: never
    }
  | {
      /** With `prepare: false` where a transaction pooler is between. */
      readonly sql: Sql
      readonly connection?: never
    }

/** The project's REST API: needs no password of the database. `pgflow_worker` must be among its exposed schemas. */
export interface ProjectConnection {
  /** `https://<project>.supabase.co` */
  readonly url: string
  /** `sb_secret_…`, or the older service_role key. */
  readonly secretKey: string
}

type Without<Options> = { readonly [Name in Options extends unknown ? keyof Options : never]?: never }

/** Where a worker finds its tasks: a database URL, connections of the user's that it does not close, or a project's REST API. */
export type WorkerConnection =
  | (DatabaseConnection & Without<ProjectConnection>)
  | (ProjectConnection & Without<DatabaseConnection>)

export interface WorkerSettings {
  /**
   * How many tasks run at the same time. The default suits handlers that wait, for models, APIs or queries; give those that
   * compute about the number of cores. At least as many as the largest batch of a step has: its tasks run at the same time.
   * @default 200
   */
  readonly concurrency?: number
  /** How long tasks of a worker that died stay hidden from others, in whole seconds up to a day. @default '30s' */
  readonly lease?: Duration
  /**
   * How many connections the worker keeps open at most; without effect on `sql`. With two or more, one of them extends the
   * leases and is notified of new tasks, where no transaction pooler is in between; with one, and over `sql`, the worker
   * polls. With three or more, two calls settle and claim side by side while many tasks end at the same time; the
   * connection for that is closed after 30 s without. One more is open while a large output is settled, and one while a
   * handler blocks the event loop.
   * @default 3
   */
  readonly maxConnections?: number
  /**
   * How many transactions of handlers (`context.transaction`) are open at the same time. Each has a connection of its own, beside
   * `maxConnections`, so that none delays the worker's calls; it is opened when it is needed, and closed after 30 s without use.
   * Further ones wait; the step's timeout goes on meanwhile. Over `sql`, these connections have the same options as `sql`.
   * @default 5
   */
  readonly maxTransactions?: number
  /** How many results one call settles at most. @default 100 */
  readonly settleBatch?: number
  /**
   * How long a result waits for other results, so that one call settles them together, once the worker has settled ten
   * times in quick succession. Before that, each result is settled at once. @default '10ms'
   */
  readonly settleDelay?: Duration
  /** Bytes; a larger run input or output is fetched once for all tasks of the worker that need it. @default 65536 */
  readonly inlineLimit?: number
  /** Memory for such values in bytes, approximately. @default 67108864 */
  readonly cacheLimit?: number
  /**
   * Bytes of JSON; a step that returns more fails. Store more elsewhere, for instance in Supabase Storage, and return
   * where it is. @default 33554432
   */
  readonly outputLimit?: number
  /** How long running handlers get when the worker stops. @default '25s' */
  readonly gracePeriod?: Duration
  /** The worker's name in the table `pgflow.workers`. @default 'worker' */
  readonly name?: string
  /**
   * Where the worker and its handlers log: `console`, a logger of pino, bunyan or winston, or your own. By default
   * warnings and errors go to the console; `false` silences them. @default warnings and errors on the console
   */
  readonly log?: Log | false
  /**
   * What handlers need for `context.waitUrl`, and `serveWorker` to answer these URLs.
   *
   * @example
   * webhooks: { url: 'https://<project>.supabase.co/functions/v1/flow-worker', key: env.PGFLOW_WEBHOOK_KEY }
   */
  readonly webhooks?: WebhookSettings | undefined
  /** Stops the worker. */
  readonly signal?: AbortSignal
}

/** The resources of all these flows, as one type. */
export type ResourcesOfAll<Flows extends readonly AnyFlow[]> = (
  Flows[number] extends infer F
    ? F extends AnyFlow
      ? (resources: ResourcesOf<F>) => void
      : never
    : never
) extends (resources: infer All extends object) => void
  ? All
  : never

type ResourcesOption<Resources> =
  Record<never, never> extends Resources
    ? { readonly resources?: Resources }
    : {
        /** What the handlers get as `context.resources`. */
        readonly resources: Resources
      }

export type WorkerOptions<Flows extends readonly AnyFlow[]> = WorkerConnection &
  WorkerSettings &
  ResourcesOption<ResourcesOfAll<Flows>> & {
    /** The flows that this worker registers and runs, with the flows that they have as sub-flows. */
    readonly flows: Flows
  }

type OptionName = keyof (DatabaseConnection & ProjectConnection & WorkerSettings) | 'flows' | 'resources'

/** Every option, so that no other name is taken in silence. */
const optionNames: Readonly<Record<OptionName, true>> = {
  ...{ connection: true, sql: true, url: true, secretKey: true, flows: true, resources: true, log: true },
  ...{ concurrency: true, lease: true, maxConnections: true, settleBatch: true, settleDelay: true },
  ...{ inlineLimit: true, cacheLimit: true, outputLimit: true, gracePeriod: true, name: true, signal: true },
  ...{ webhooks: true, maxTransactions: true },
}

/** The least that a whole number may be. */
const leasts = {
  concurrency: 1,
  maxConnections: 1,
  maxTransactions: 1,
  settleBatch: 1,
  inlineLimit: 0,
  cacheLimit: 0,
  outputLimit: 1,
}

/**
 * @param others names of options that are not the worker's own
 * @throws WorkerStartError saying which option cannot work
 */
export function checkOptions(
  options: WorkerConnection & WorkerSettings & { flows: readonly AnyFlow[] },
  others: readonly string[] = [],
): void {
  checkNames(options, [...Object.keys(optionNames), ...others])
  const { flows, ...settings } = options
  if (flows.length === 0) throw new WorkerStartError('The worker has no flows: give it at least one')
  const slugs = flows.map(({ slug }) => slug)
  const twice = slugs.find((slug, index) => slugs.indexOf(slug) !== index)
  if (twice !== undefined) {
    throw new WorkerStartError(`The worker got two flows '${twice}': give it one, or another slug`)
  }
  for (const [name, least] of Object.entries(leasts)) {
    const value = settings[name as keyof typeof leasts]
    if (value !== undefined && !(Number.isInteger(value) && value >= least && value < 2 ** 31)) {
      throw new WorkerStartError(`${name} is ${value}: give it a whole number, ${least} or more`)
    }
  }
  concurrencyFor(hostedFlows(flows), settings.concurrency)
  for (const name of ['settleDelay', 'gracePeriod'] as const) secondsFrom(name, settings[name] ?? 0)
  const lease = secondsFrom('lease', settings.lease ?? 30)
  if (!Number.isInteger(lease) || lease < 1 || lease > 86_400) {
    throw new WorkerStartError(`lease is ${settings.lease}: give it whole seconds, from 1 s to a day`)
  }
  checkLog(settings.log)
  if (settings.webhooks !== undefined) checkWebhooks(settings.webhooks)
  checkConnection(options)
}

/**
 * The flows that a worker runs: those that it got, and those that belong to them.
 *
 * @throws WorkerStartError if two different flows have one slug
 */
export function hostedFlows(flows: readonly AnyFlow[]): readonly AnyFlow[] {
  try {
    return relatedFlows(flows)
  } catch (cause) {
    throw new WorkerStartError((cause as Error).message, { cause })
  }
}

function checkNames(options: object, names: readonly string[]): void {
  const unknown = Object.keys(options).find((name) => !names.includes(name))
  if (unknown === undefined) return
  const meant = closest(unknown, names)
  throw new WorkerStartError(`There is no option ${unknown}: ${meant ? `is it ${meant}?` : 'leave it out'}`)
}

function checkLog(log: unknown): void {
  if (log === undefined || log === false) return
  const missing = ['debug', 'info', 'warn', 'error'].filter(
    (level) => typeof (log as Record<string, unknown> | null)?.[level] !== 'function',
  )
  if (missing.length > 0) {
    throw new WorkerStartError(
      `log has no ${missing.join(', ')}: give it console, a logger such as pino, or false for none`,
    )
  }
}

/** The values of an environment may be missing, whatever TypeScript was told of them. */
function checkConnection(options: WorkerConnection): void {
  if (options.sql !== undefined) return
  const { url, secretKey, connection } = options
  const wanted = url === undefined && secretKey === undefined ? { connection } : { url, secretKey }
  for (const [name, value] of Object.entries(wanted)) {
    if (!value)
      throw new WorkerStartError(`${name} is missing: is the environment variable that holds it set?`)
  }
  if (url !== undefined && !/^https?:\/\//.test(url)) {
    const isDatabase = /^postgres(ql)?:/.test(url)
    throw new WorkerStartError(
      `url is not that of a project (https://<project ref>.supabase.co)${isDatabase ? ', but of a database: use connection' : ''}.`,
    )
  }
}

/** @throws WorkerStartError if the option is no duration */
export function secondsFrom(name: string, duration: Duration): number {
  const seconds = secondsOf(duration)
  if (seconds !== undefined) return seconds
  throw new WorkerStartError(`${name} is ${String(duration)}: give it ${durationForms}`)
}
