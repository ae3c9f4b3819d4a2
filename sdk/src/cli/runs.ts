import type { Sql } from 'postgres'
import type { RunRow, RunSnapshot, RunStatus } from '../client/types.ts'
import { parsed } from './arguments.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { withDatabase } from './database.ts'

const usage =
  'runs list [--flow <slug>] [--status <status>] [--limit <n>] | runs show|cancel|retry <run_id>  [--json] [--db <url>]'

const statuses: readonly string[] = ['started', 'completed', 'failed', 'cancelled'] satisfies RunStatus[]

const database = { db: { type: 'string' }, json: { type: 'boolean' } } as const

/** Lists, shows, cancels and retries runs, of everybody. */
export const runsCommand: Command = {
  usage,
  summary: 'Lists runs, shows one with its steps, cancels it, or lets it go on from where it failed.',
  async run([action, ...args], io) {
    if (action === 'list') return list(args, io)
    const change = action === undefined ? undefined : changes[action]
    if (change === undefined)
      throw new CommandError(`name what to do: list, show, cancel or retry\nUsage: pgflow ${usage}`)
    const { values, words } = parsed(usage, args, database, { run_id: 'name the run by its id' })
    const run = await withDatabase(values.db, io, (sql) => change(sql, words[0]!))
    print(values.json ? [JSON.stringify(run, null, 2)] : linesOf(run), io)
  },
}

const changes: Readonly<Record<string, (sql: Sql, runId: string) => Promise<RunSnapshot>>> = {
  show: (sql, runId) => only(sql`select pgflow_public.get_run(run_id => ${runId}) as value`),
  cancel: (sql, runId) => only(sql`select pgflow_public.cancel_run(run_id => ${runId}) as value`),
  retry: (sql, runId) => only(sql`select pgflow_public.retry_run(run_id => ${runId}) as value`),
}

async function list(args: readonly string[], io: Io): Promise<void> {
  const options = {
    ...database,
    flow: { type: 'string' },
    status: { type: 'string' },
    limit: { type: 'string' },
  } as const
  const { values } = parsed(usage, args, options, {})
  const limit = Number(values.limit ?? 20)
  if (!Number.isInteger(limit) || limit < 1) throw new CommandError('--limit is a whole number, 1 or more')
  if (values.status !== undefined && !statuses.includes(values.status))
    throw new CommandError(`--status is one of ${statuses.join(', ')}`)
  const runs = await withDatabase(values.db, io, (sql) =>
    only<RunRow[]>(sql`
      select pgflow_public.list_runs(
        flow_slug => ${values.flow ?? null}, status => ${values.status ?? null}, quantity => ${limit}
      ) as value`),
  )
  print(values.json ? [JSON.stringify(runs, null, 2)] : runs.map(lineOf), io)
}

/** What the called function returns: see its definition in the migrations. */
async function only<Value>(rows: PromiseLike<readonly unknown[]>): Promise<Value> {
  return ((await rows)[0] as { value: Value }).value
}

function lineOf({ run_id, flow_slug, status, started_at, error }: RunRow): string {
  return [run_id, started_at.slice(0, 19), status.padEnd(9), flow_slug, error ?? ''].join('  ').trimEnd()
}

function linesOf({ steps, ...run }: RunSnapshot): string[] {
  const width = Math.max(...steps.map(({ step_slug }) => step_slug.length))
  const states = steps.map(({ step_slug, status, skip_reason, error }) =>
    ['', step_slug.padEnd(width), status.padEnd(9), error ?? skip_reason ?? ''].join('  ').trimEnd(),
  )
  return [lineOf(run), ...states]
}

function print(lines: readonly string[], io: Io): void {
  for (const line of lines) io.out(line)
}
