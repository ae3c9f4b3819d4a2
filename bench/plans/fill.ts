import type { Sql } from 'postgres'

const TABLES_WITH_ROOM = ['runs', 'step_states', 'step_tasks']
/** So full are pages whose rows were updated until they were finished; they take no more rows. */
const FILLFACTOR_OF_FINISHED = 52

/** Inserts finished runs of the flow `chain` with all that belongs to them, past triggers and foreign keys. */
export async function fill(sql: Sql, count: number): Promise<void> {
  const setFillfactor = (percent: number) =>
    sql.unsafe(
      TABLES_WITH_ROOM.map((name) => `alter table pgflow.${name} set (fillfactor = ${percent});`).join(' '),
    )
  await setFillfactor(FILLFACTOR_OF_FINISHED)
  await sql.unsafe(`
    set session_replication_role = replica;
    set synchronous_commit = off;
    create temp table filling as
      select (pgflow.new_run_ids(1, at))[1] as run_id, at, n
      from generate_series(1, ${count}) n, lateral (select now() - (${count} - n) * interval '1 second') t (at);
    insert into pgflow.runs (run_id, flow_slug, status, input, output, owner_id, started_at, completed_at)
      select run_id, 'chain', 'completed', to_jsonb(n), '{"c": 1}', md5((n % 1000)::text)::uuid, at, at from filling;
    insert into pgflow.step_states (
      run_id, step_slug, flow_slug, status, remaining_deps, remaining_tasks, initial_tasks, output,
      created_at, started_at, completed_at
    )
      select run_id, step_slug, 'chain', 'completed', 0, 0, 1, to_jsonb(n), at, at, at
      from filling, unnest(array['a', 'b', 'c']) step_slug;
    insert into pgflow.step_tasks (
      run_id, step_slug, task_index, flow_slug, message_id, status, attempts_count, queued_at, started_at, completed_at
    )
      select run_id, step_slug, 0, 'chain', 0, 'completed', 1, at, at, at
      from filling, unnest(array['a', 'b', 'c']) step_slug;
    insert into pgflow.run_events (run_id, seq, type, step_slug, at)
      select run_id, seq, type, step_slug, at
      from filling, (values
        (1, 'run:started', null), (2, 'step:started', 'a'), (3, 'step:completed', 'a'), (4, 'step:started', 'b'),
        (5, 'step:completed', 'b'), (6, 'step:started', 'c'), (7, 'step:completed', 'c'), (8, 'run:completed', null)
      ) as event (seq, type, step_slug);
    insert into pgmq.a_chain (msg_id, read_ct, enqueued_at, vt, message)
      select -n, 1, at, at, '{}' from filling;
    drop table filling`)
  for (const name of [
    'pgflow.runs',
    'pgflow.step_states',
    'pgflow.step_tasks',
    'pgflow.run_events',
    'pgmq.a_chain',
  ]) {
    await sql.unsafe(`vacuum (analyze, truncate off) ${name}`)
  }
}

/** Inserts runs of the flow `chain` whose first step waits for a time that is a year away, past triggers and foreign keys. */
export async function fillWaiting(sql: Sql, count: number): Promise<void> {
  await sql.unsafe(`
    set session_replication_role = replica;
    set synchronous_commit = off;
    create temp table filling as
      select (pgflow.new_run_ids(1, at))[1] as run_id, at, n
      from generate_series(1, ${count}) n, lateral (select now() - (${count} - n) * interval '1 second') t (at);
    insert into pgflow.runs (run_id, flow_slug, input, owner_id, started_at)
      select run_id, 'chain', to_jsonb(n), md5((n % 1000)::text)::uuid, at from filling;
    insert into pgflow.step_states (
      run_id, step_slug, flow_slug, status, remaining_deps, remaining_tasks, initial_tasks, created_at, started_at
    )
      select run_id, step_slug, 'chain', status, deps, tasks, tasks, at, started_at
      from filling, lateral (
        values ('a', 'started', 0, 1, at), ('b', 'created', 1, null, null), ('c', 'created', 1, null, null)
      ) as state (step_slug, status, deps, tasks, started_at);
    insert into pgflow.step_tasks (
      run_id, step_slug, task_index, flow_slug, status, waits_for, due_at, queued_at
    )
      select run_id, 'a', 0, 'chain', 'waiting', 'time', at + interval '1 year', at from filling;
    insert into pgflow.run_events (run_id, seq, type, step_slug, at)
      select run_id, seq, type, step_slug, at
      from filling, (values (1, 'run:started', null), (2, 'step:started', 'a')) as event (seq, type, step_slug);
    drop table filling`)
}
