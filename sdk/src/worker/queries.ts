import type { Sql } from 'postgres'
import { resultsJson } from './tasks.ts'
import type { ClaimedTask, ClaimRequest, Lease, Result, Settlement, TaskKey, WorkerRow } from './transport.ts'

/*
 * Rows come as one column of JSON text and values go as text: whatever types, prepared statements and transforms the
 * user's connection is set up with, nothing is renamed, parsed or encoded twice.
 */

export async function claimTasks(
  sql: Sql,
  { flow_slugs, quantity, worker_id, lease }: ClaimRequest,
): Promise<ClaimedTask[]> {
  return rowsFrom(
    await sql`
      select to_jsonb(t)::text
      from pgflow.claim_tasks(
        flow_slugs => string_to_array(${flow_slugs.join()}, ','),
        quantity => ${quantity}::int,
        worker_id => ${worker_id}::uuid,
        lease => ${lease}::int
      ) as t`.values(),
  )
}

export async function settleTasks(sql: Sql, results: readonly Result[]): Promise<Settlement[]> {
  return rowsFrom(
    await sql`
      select to_jsonb(s)::text
      from pgflow.settle_tasks(results => ${resultsJson(results)}::text::jsonb) as s`.values(),
  )
}

export async function extendLeases(sql: Sql, tasks: readonly TaskKey[], lease: number): Promise<Lease[]> {
  return rowsFrom(
    await sql`
      select to_jsonb(l)::text
      from pgflow.extend_leases(
        tasks => ${JSON.stringify(tasks)}::text::jsonb,
        lease => ${lease}::int
      ) as l`.values(),
  )
}

export async function registerWorker(sql: Sql, { worker_id, name, flow_slugs }: WorkerRow): Promise<void> {
  await sql`
    select pgflow.register_worker(
      worker_id => ${worker_id}::uuid,
      name => ${name}::text,
      flow_slugs => string_to_array(${flow_slugs.join()}, ',')
    )`
}

export async function heartbeat(sql: Sql, worker_id: string): Promise<void> {
  await sql`select pgflow.heartbeat(worker_id => ${worker_id}::uuid)`
}

export async function stopWorker(sql: Sql, worker_id: string): Promise<void> {
  await sql`select pgflow.stop_worker(worker_id => ${worker_id}::uuid)`
}

/** Runs statements that have no parameters, all or none. */
export async function runStatements(sql: Sql, statements: string): Promise<void> {
  await sql.unsafe(statements).simple()
}

/** The type is what the called function returns: see its definition in the migrations. */
function rowsFrom<Row>(rows: readonly unknown[][]): Row[] {
  return rows.map(([text]) => JSON.parse(text as string) as Row)
}
