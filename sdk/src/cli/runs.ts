import type { Sql } from 'postgres'
import type { RunStatus } from '../client/types.ts'
import { secondsOf } from '../shared/duration.ts'
import { countOf, parsed } from './arguments.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { withDatabase } from './database.ts'
import { cancelRun, getRun, listRuns, type RunFilter, retriesOf, retryRun, tasksOf } from './queries.ts'
import { changeRuns } from './runs-bulk.ts'
import { lineOfRun, linesOfRun } from './runs-text.ts'
import { watchRun } from './runs-watch.ts'

const usage =
  'runs list [<filter>] | runs show|watch <run_id> | runs cancel|retry <run_id>|<filter> [--undo] [--yes] [--dry-run]  [--json] [--db <url>]'

const statuses: readonly string[] = ['started', 'completed', 'failed', 'cancelled'] satisfies RunStatus[]

const common = { db: { type: 'string' }, json: { type: 'boolean' } } as const

const filters = {
  flow: { type: 'string' },
  status: { type: 'string' },
  since: { type: 'string' },
  error: { type: 'string' },
  limit: { type: 'string' },
  children: { type: 'boolean' },
} as const

type FilterValues = { readonly [Name in Exclude<keyof typeof filters, 'children'>]?: string | undefined } & {
  readonly children?: boolean | undefined
}

/** Lists, shows, watches, cancels and retries runs, of everybody. */
export const runsCommand: Command = {
  usage,
  summary:
    'Lists and shows runs, watches one, cancels them, or resumes them from where they failed. cancel --undo also undoes what they have completed. <filter> is any of --flow <slug>, --status <status>, --since <2h or ISO time>, --error <text>, --limit <n>. Runs that sub-flows have started are left out, unless there is --children.',
  async run([action, ...args], io) {
    const handler = action !== undefined && Object.hasOwn(actions, action) ? actions[action] : undefined
    if (handler === undefined) {
      throw new CommandError(`name what to do: list, show, watch, cancel or retry\nUsage: pgflow ${usage}`)
    }
    await handler(args, io)
  },
}

const actions: Readonly<Record<string, (args: readonly string[], io: Io) => Promise<void>>> = {
  list,
  show,
  watch: async (args, io) => {
    const { values, run_id } = one(args)
    await withDatabase(values.db, io, (sql) => watchRun(sql, run_id, io, values.json ?? false))
  },
  cancel: (args, io) => change('cancel', args, io),
  retry: (args, io) => change('retry', args, io),
}

async function list(args: readonly string[], io: Io): Promise<void> {
  const { values } = parsed(usage, args, { ...common, ...filters }, {})
  const filter = filterFrom(values, io)
  const runs = await withDatabase(values.db, io, (sql) =>
    listRuns(sql, { ...filter, limit: filter.limit ?? 20 }),
  )
  if (values.json) return io.out(JSON.stringify(runs, null, 2))
  for (const run of runs) io.out(lineOfRun(run))
  if (runs.length === 0) io.note('no runs')
}

async function show(args: readonly string[], io: Io): Promise<void> {
  const { values, run_id } = one(args)
  await withDatabase(values.db, io, (sql) => print(sql, run_id, values.json ?? false, io))
}

async function print(sql: Sql, run_id: string, json: boolean, io: Io): Promise<void> {
  const run = await getRun(sql, run_id)
  const tasks = await tasksOf(sql, run_id)
  if (json) return io.out(JSON.stringify({ ...run, tasks }, null, 2))
  for (const line of linesOfRun(run, tasks, await retriesOf(sql, run_id, 10))) io.out(line)
}

async function change(action: 'cancel' | 'retry', args: readonly string[], io: Io): Promise<void> {
  const options = {
    ...common,
    ...filters,
    yes: { type: 'boolean' },
    'dry-run': { type: 'boolean' },
    ...(action === 'cancel' && { reason: { type: 'string' as const }, undo: { type: 'boolean' as const } }),
  } as const
  const { values, words } = parsed(usage, args, options, {}, true)
  const { reason = null, undo = false } = values as { reason?: string; undo?: boolean }
  const apply = (sql: Sql, run_id: string) => {
    return action === 'cancel' ? cancelRun(sql, run_id, reason, undo) : retryRun(sql, run_id)
  }
  const { children: _, ...narrowing } = filters
  const hasFilter = Object.keys(narrowing).some((name) => values[name as keyof typeof filters] !== undefined)
  if (words.length > 1 || (words.length === 1 && hasFilter)) {
    throw new CommandError(`name one run by its id, or give a filter\nUsage: pgflow ${usage}`)
  }
  if (words.length === 0 && !hasFilter) {
    throw new CommandError(
      `name the run by its id, or say which runs: --flow, --status, --since, --error, --limit\nUsage: pgflow ${usage}`,
    )
  }
  const filter = changeable(action, filterFrom(values, io))
  const dryRun = values['dry-run'] ?? false
  await withDatabase(values.db, io, async (sql) => {
    const [run_id] = words
    if (run_id === undefined) {
      return changeRuns(
        sql,
        { action, filter, apply: (id) => apply(sql, id), dryRun, yes: values.yes ?? false },
        io,
      )
    }
    if (!dryRun) await apply(sql, run_id)
    await print(sql, run_id, values.json ?? false, io)
  })
}

/** @throws CommandError for a status in which runs cannot be cancelled or retried */
function changeable(action: 'cancel' | 'retry', filter: RunFilter): RunFilter {
  const possible: readonly RunStatus[] = action === 'cancel' ? ['started'] : ['failed', 'cancelled']
  const { status = action === 'cancel' ? ['started'] : ['failed'] } = filter
  const wrong = status.find((one) => !possible.includes(one))
  if (wrong === undefined) return { ...filter, status }
  throw new CommandError(
    `runs that are ${wrong} cannot be ${action === 'cancel' ? 'cancelled' : 'retried'}, only those that are ${possible.join(' or ')}`,
  )
}

function one(args: readonly string[]) {
  const { values, words } = parsed(usage, args, common, { run_id: 'name the run by its id' })
  return { values, run_id: words[0]! }
}

function filterFrom(
  { flow, status, since, error, limit, children = false }: FilterValues,
  { now }: Io,
): RunFilter {
  const wanted = status?.split(',')
  if (wanted?.some((one) => !statuses.includes(one))) {
    throw new CommandError(`--status is one of ${statuses.join(', ')}, or several with commas`)
  }
  return {
    flow,
    status: wanted as RunStatus[] | undefined, // as was just looked at
    since: since === undefined ? undefined : timeFrom(since, now),
    error,
    children,
    limit: countOf('limit', limit),
  }
}

/** A time, or how long ago. */
function timeFrom(text: string, now: Date): Date {
  const seconds = secondsOf(text)
  if (seconds !== undefined) return new Date(now.getTime() - seconds * 1_000)
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? new Date(text) : new Date(Number.NaN)
  if (!Number.isNaN(time.getTime())) return time
  throw new CommandError(
    '--since is a duration such as 30m, 2h or 3d, or a time such as 2026-01-31T12:00:00Z',
  )
}
