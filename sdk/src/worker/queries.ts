import type { ISql, Sql } from 'postgres'
import type { FlowDefinition } from '../flow/compile.ts'
import type { Json } from '../flow/json-types.ts'
import { sqlState } from './faults.ts'
import { resultsJson } from './tasks.ts'
import type {
  Lease,
  ProgressReport,
  ResultToKeep,
  TaskKey,
  Tick,
  ValueRef,
  WaitCompletion,
  Work,
  WorkerRow,
  WorkRequest,
} from './transport.ts'

/*
 * Rows come as one column of JSON text and values go as text: whatever types, prepared statements and transforms the
 * user's connection is set up with, nothing is renamed, parsed or encoded twice.
 */

/** The version of the migrations; `undefined` where none of them, or older ones, were applied. */
export async function schemaVersion(sql: Sql): Promise<number | undefined> {
  try {
    const rows = await sql`select pgflow.schema_version()::text`.values()
    return Number(rows[0]![0])
  } catch (error) {
    if (['42883', '3F000'].includes(sqlState(error) ?? '')) return undefined
    throw error
  }
}

export async function settleAndClaim(sql: Sql, request: WorkRequest): Promise<Work> {
  const [work] = rowsFrom<Work>(
    await sql`
      select (to_jsonb(w) ${request.due ? sql`|| jsonb_build_object('next_due_in', pgflow.next_due_in(), 'next_call_in', pgflow.next_call_in())` : sql``})::text
      from pgflow.settle_and_claim(
        results => ${resultsJson(request.results)}::text::jsonb,
        flow_slugs => string_to_array(${request.flow_slugs.join()}, ','),
        quantity => ${request.quantity}::int,
        worker_id => ${request.worker_id}::uuid,
        lease => ${request.lease}::int,
        inline_limit => ${request.inline_limit}::int,
        waiting => ${String(request.waiting)}::text::boolean
      ) as w`.values(),
  )
  return work! // a function with OUT arguments answers with one row
}

/** As text, for the thread that extends leases: worker, tasks, lease. */
export const heartbeatQuery = `
  select to_jsonb(l)::text
  from pgflow.heartbeat(worker_id => $1::uuid, tasks => $2::text::jsonb, lease => $3::text::int) as l`

export async function heartbeat(
  sql: Sql,
  worker_id: string,
  tasks: readonly TaskKey[],
  lease: number,
): Promise<Lease[]> {
  return rowsFrom(
    await sql`
      select to_jsonb(l)::text
      from pgflow.heartbeat(
        worker_id => ${worker_id}::uuid,
        tasks => ${JSON.stringify(tasks)}::text::jsonb,
        lease => ${lease}::int
      ) as l`.values(),
  )
}

export async function tick(sql: Sql): Promise<Tick> {
  const [answer] = rowsFrom<Tick>(
    await sql`
      select jsonb_build_object('settled', t.settled, 'next_due_in', pgflow.next_due_in())::text
      from pgflow.settle_due() t (settled)`.values(),
  )
  return answer! // a function answers with one row
}

/**
 * Two statements, since none can limit how long it takes itself: in one message, which is one transaction, on any connection of
 * a pooler.
 */
export async function callFunctions(sql: Sql): Promise<Tick> {
  const results = await sql`
    select set_config('statement_timeout', pgflow.call_timeout()::text, true);
    select jsonb_build_object('settled', t.called, 'next_due_in', pgflow.next_call_in())::text as answer
    from pgflow.call_functions() t (called)`.simple()
  const rows = results.flat() as unknown as { answer?: string }[]
  return JSON.parse(rows.at(-1)!.answer!) as Tick // the last statement answers with one row
}

export async function handBack(sql: Sql, tasks: readonly TaskKey[]): Promise<void> {
  await sql`select pgflow.hand_back(tasks => ${JSON.stringify(tasks)}::text::jsonb)`
}

export async function reportProgress(
  sql: Sql,
  reports: readonly ProgressReport[],
): Promise<readonly TaskKey[]> {
  const [held] = rowsFrom<TaskKey[]>(
    await sql`select pgflow.report_progress(reports => ${JSON.stringify(reports)}::text::jsonb)::text`.values(),
  )
  return held! // a function that answers with one value
}

export async function fetchValue(sql: Sql, { run_id, name, version }: ValueRef): Promise<string> {
  const rows = await sql`
    select pgflow.fetch_value(
      run_id => ${run_id}::uuid,
      name => ${name}::text,
      version => ${version}::text
    )::text`.values()
  return rows[0]![0] as string
}

export async function keepResult(sql: Sql, result: ResultToKeep): Promise<Json> {
  const { run_id, step_slug, task_index, attempt, name, valueJson } = result
  const [kept] = rowsFrom<Json>(
    await sql`
      select pgflow.keep_result(
        run_id => ${run_id}::uuid,
        step_slug => ${step_slug}::text,
        task_index => ${task_index}::int,
        attempt => ${attempt}::int,
        name => ${name}::text,
        value => ${valueJson}::text::jsonb
      )::text`.values(),
  )
  return kept! // a function that answers with one value
}

export async function keptResultsOf(
  sql: Sql,
  { run_id, step_slug, task_index }: TaskKey,
): Promise<Record<string, Json>> {
  const [kept] = rowsFrom<Record<string, Json>>(
    await sql`
      select pgflow.kept_results_of(
        run_id => ${run_id}::uuid,
        step_slug => ${step_slug}::text,
        task_index => ${task_index}::int
      )::text`.values(),
  )
  return kept! // a function that answers with one value
}

/** @param sql the transaction with which the task completes */
export async function completeInTransaction(
  sql: ISql,
  { run_id, step_slug, task_index, attempt }: TaskKey,
  outputJson: string,
): Promise<void> {
  await sql`
    select pgflow.complete_in_transaction(
      run_id => ${run_id}::uuid,
      step_slug => ${step_slug}::text,
      task_index => ${task_index}::int,
      attempt => ${attempt}::int,
      output => ${outputJson}::text::jsonb
    )`
}

/** Ends the session that has begun a transaction of this name, wherever a pooler has it. */
export async function endTransaction(sql: Sql, name: string): Promise<void> {
  await sql`
    select pg_terminate_backend(a.pid) from pg_stat_activity a
    where a.application_name = ${name}::text and a.pid <> pg_backend_pid()`
}

export async function registerWorker(sql: Sql, { worker_id, name, flow_slugs }: WorkerRow): Promise<void> {
  await sql`
    select pgflow.register_worker(
      worker_id => ${worker_id}::uuid,
      name => ${name}::text,
      flow_slugs => string_to_array(${flow_slugs.join()}, ',')
    )`
}

export async function stopWorker(sql: Sql, worker_id: string): Promise<void> {
  await sql`select pgflow.stop_worker(worker_id => ${worker_id}::uuid)`
}

export async function completeWait(
  sql: Sql,
  { run_id, step_slug, outputJson }: WaitCompletion,
): Promise<void> {
  await sql`
    select pgflow.complete_wait(
      run_id => ${run_id}::uuid,
      step_slug => ${step_slug}::text,
      output => ${outputJson}::text::jsonb
    )`
}

/** Names the flows that have new tasks. */
export const channel = 'pgflow_tasks'

export async function listen(sql: Sql): Promise<void> {
  await sql`listen pgflow_tasks`.simple()
}

export async function notify(sql: Sql, payload: string): Promise<void> {
  await sql`select pg_notify(${channel}, ${payload})`
}

export async function registerFlow(sql: Sql, definition: FlowDefinition): Promise<void> {
  await sql`select pgflow.register_flow(definition => ${JSON.stringify(definition)}::text::jsonb)`
}

/** The type is what the called function returns: see its definition in the migrations. */
function rowsFrom<Row>(rows: readonly unknown[][]): Row[] {
  return rows.map(([text]) => JSON.parse(text as string) as Row)
}
