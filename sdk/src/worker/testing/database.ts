import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import type { Json } from '../../flow/json-types.ts'
import { turn } from '../time.ts'

/** The folder of the plugin. */
export const migrations = fileURLToPath(new URL('../../../../supabase/migrations', import.meta.url))

export interface RunRow {
  readonly run_id: string
  readonly status: string
  readonly output: unknown
  readonly error: string | null
}

export interface TaskRow {
  readonly step_slug: string
  readonly status: string
  readonly attempts_count: number
  readonly error_message: string | null
  readonly last_worker_id: string
}

/** A database with pgflow in it, which tells when a run has ended. */
export interface TestDatabase extends AsyncDisposable {
  readonly stack: LocalSupabase
  readonly url: string
  readonly adminUrl: string
  /** Through a transaction pooler. */
  readonly poolerUrl: string
  readonly sql: Sql
  startRun(flow_slug: string, input: Json): Promise<string>
  startRuns(flow_slug: string, inputs: readonly Json[]): Promise<string[]>
  runEnded(run_id: string): Promise<RunRow>
  tasksOf(run_id: string): Promise<TaskRow[]>
}

export async function startTestDatabase(): Promise<TestDatabase> {
  const stack = await startLocalSupabase({ migrations: [migrations], fsync: false })
  const sql = postgres(stack.dbUrl, { max: 4, onnotice: () => {} })
  const ends = await listenToEnds(sql)

  async function startRuns(flow_slug: string, inputs: readonly Json[]): Promise<string[]> {
    const rows = await sql<RunRow[]>`
      select r.run_id
      from jsonb_array_elements(${JSON.stringify(inputs)}::text::jsonb) input
      cross join lateral pgflow.start_flow(flow_slug => ${flow_slug}, input => input) r`
    return rows.map(({ run_id }) => run_id)
  }

  async function runEnded(run_id: string): Promise<RunRow> {
    await ends.of(run_id)
    const [run] = await sql<
      RunRow[]
    >`select run_id, status, output, error from pgflow.runs where run_id = ${run_id}`
    return run!
  }

  return {
    stack,
    url: stack.dbUrl,
    adminUrl: stack.adminDbUrl,
    poolerUrl: stack.poolerUrl,
    sql,
    startRuns,
    startRun: async (flow_slug, input) => (await startRuns(flow_slug, [input]))[0]!,
    runEnded,
    tasksOf: (run_id) =>
      sql<TaskRow[]>`
        select step_slug, status, attempts_count, error_message, last_worker_id
        from pgflow.step_tasks where run_id = ${run_id} order by step_slug`,
    [Symbol.asyncDispose]: async () => {
      await sql.end({ timeout: 1 })
      await stack.stop()
    },
  }
}

/** Looks again and again until there is a row, and returns it. */
export async function until<Row extends object>(look: () => PromiseLike<readonly Row[]>): Promise<Row> {
  for (;;) {
    const [row] = await look()
    if (row !== undefined) return row
    await turn()
  }
}

/** A trigger of the tests' own announces each end. */
async function listenToEnds(sql: Sql) {
  const ended = new Set<string>()
  const waiting = new Map<string, () => void>()
  await sql.unsafe(`
    create function public.announce_end() returns trigger language plpgsql as $$
    begin
      perform pg_notify('run_ended', new.run_id::text);
      return null;
    end $$;
    create trigger announce_end after update of status on pgflow.runs
    for each row when (new.status <> 'started') execute function public.announce_end();
  `)
  await sql.listen('run_ended', (run_id) => {
    ended.add(run_id)
    waiting.get(run_id)?.()
  })
  return {
    of: (run_id: string) =>
      new Promise<void>((resolve) => {
        if (ended.has(run_id)) resolve()
        else waiting.set(run_id, resolve)
      }),
  }
}
