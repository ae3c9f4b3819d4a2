import { randomUUID } from 'node:crypto'
import type { ISql, Sql } from 'postgres'

interface Task {
  run_id: string
  step_slug: string
  task_index: number
  attempt: number
}

/** What all connections know: some runs and tasks, which they share, so that they meet. */
export class Pool {
  readonly runs: string[] = [randomUUID()]
  readonly tasks: Task[] = [{ run_id: randomUUID(), step_slug: 'a', task_index: 0, attempt: 1 }]
  version = 1

  addRuns(rows: readonly { run_id: string }[]): void {
    this.runs.push(...rows.map(({ run_id }) => run_id))
    this.runs.splice(0, this.runs.length - 100)
  }

  addTasks(tasks: readonly Task[]): void {
    this.tasks.push(
      ...tasks.map(({ run_id, step_slug, task_index, attempt }) => ({
        run_id,
        step_slug,
        task_index,
        attempt,
      })),
    )
    this.tasks.splice(0, this.tasks.length - 200)
  }

  someRuns(): string[] {
    return Array.from({ length: 1 + random(20) }, () => pick(this.runs))
  }

  /** Some tasks, most of which are settled later once more. */
  some(): Task[] {
    return Array.from({ length: 1 + random(20) }, () => pick(this.tasks))
  }
}

/** Flows with one run at a time, by what becomes of a further start; two of their keys are in use. */
const singletons = ['return', 'reject', 'replace', 'after'].map((whenBusy) => `fuzz_${whenBusy}`)
const parents = ['fuzz_parent', 'fuzz_nested']
export const flowSlugs = [
  ...[
    'fuzz_chain',
    'fuzz_map',
    'fuzz_choice',
    'fuzz_wait',
    'fuzz_collect',
    'fuzz_undo',
    'fuzz_loop',
    'fuzz_sql',
  ],
  ...parents,
  ...singletons,
]
const workers = Array.from({ length: 5 }, () => randomUUID())
const owners = [randomUUID(), randomUUID()]
const scheduleSlugs = ['fuzz_s', 'fuzz_t', 'fuzz_declared']
const limitSlugs = ['fuzz_alias', 'fuzz_shared']
/** What names the topics of clients. */
const tabs = [randomUUID(), randomUUID()]

export function random(below: number): number {
  return Math.floor(Math.random() * below)
}

export function pick<T>(values: readonly T[]): T {
  return values[random(values.length)]!
}

const json = (value: unknown) => JSON.stringify(value)
const oneIn = (times: number) => random(times) === 0

/** Limits that flows share, with numbers that differ. */
const someLimits = () => [
  ...pick([[], [{ running: 1 + random(3), by_path: 'run' }]]),
  ...pick([[], [{ limit_slug: 'fuzz_shared', running: 1 + random(3) }]]),
]

const steps = [{ step_slug: 'a' }, { step_slug: 'b', deps_slugs: ['a'] }]

const definitions = {
  fuzz_undo: {
    flow_slug: 'fuzz_undo',
    base_delay: 0,
    steps: [{ step_slug: 'a', run_if: { run: { completed: { a: true } } }, when_unmet: 'skip' }],
  },
  fuzz_chain: {
    undo_flow: 'fuzz_undo',
    ...{ flow_slug: 'fuzz_chain', base_delay: 0, start_role: 'authenticated', steps, schedulable: true },
    schedules: [{ schedule_slug: 'fuzz_declared', cron: '* * * * *', input: [1], catch_up: 'all' }],
  },
  fuzz_map: {
    flow_slug: 'fuzz_map',
    base_delay: 0,
    broadcast: 'always',
    steps: [
      { step_slug: 'a', step_type: 'map', map_source: 'run', when_exhausted: 'skip' },
      { step_slug: 'b', deps_slugs: ['a'] },
    ],
  },
  fuzz_choice: {
    flow_slug: 'fuzz_choice',
    base_delay: 0,
    max_attempts: 2,
    steps: [
      { step_slug: 'a', run_if: { run: [1] } },
      { step_slug: 'b', deps_slugs: ['a'], when_exhausted: 'skip-cascade' },
      { step_slug: 'c', run_unless: { run: [1] }, when_unmet: 'skip' },
      { step_slug: 'd', deps_slugs: ['b', 'c'] },
    ],
  },
  fuzz_wait: {
    flow_slug: 'fuzz_wait',
    base_delay: 0,
    start_role: 'authenticated',
    steps: [
      {
        step_slug: 'a',
        step_type: 'wait',
        completed_by: 'authenticated',
        timeout: 1,
        when_timed_out: 'skip',
      },
      { step_slug: 'b', deps_slugs: ['a'] },
      { step_slug: 'c', deps_slugs: ['b'], step_type: 'wait', completed_by: 'owner', when_exhausted: 'skip' },
      { step_slug: 'd', deps_slugs: ['a'], step_type: 'sleep', sleep_for: 1 },
      {
        ...{ step_slug: 'e', run_if: { run: [owners[0]] }, when_unmet: 'skip' },
        ...{ step_type: 'wait', completed_by: 'assignees', assignees_path: 'run' },
        ...{ timeout: 1, when_timed_out: 'complete' },
      },
    ],
  },
  fuzz_sql: {
    ...{ flow_slug: 'fuzz_sql', base_delay: 0, max_attempts: 2 },
    steps: [
      { step_slug: 'a', step_type: 'sql', sql_function: 'public.fuzz_called', when_exhausted: 'skip' },
      { step_slug: 'b', deps_slugs: ['a'] },
      {
        step_slug: 'c',
        deps_slugs: ['b'],
        step_type: 'sql',
        sql_function: 'public.fuzz_called',
        start_delay: 1,
      },
    ],
  },
  fuzz_collect: {
    ...{ flow_slug: 'fuzz_collect', base_delay: 0, max_attempts: 2, deadline: 2, undo_flow: 'fuzz_undo' },
    steps: [
      {
        ...{ step_slug: 'a', step_type: 'map', map_source: 'run', concurrency: 2, deadline: 1 },
        ...{ when_item_fails: 'collect', tolerate_share: 0.5 },
      },
      {
        ...{ step_slug: 'b', deps_slugs: ['a'], step_type: 'map', map_source: 'a' },
        ...{ when_item_fails: 'collect', when_exhausted: 'skip' },
      },
      { step_slug: 'c', deps_slugs: ['a'], when_exhausted: 'skip', deadline: 1 },
    ],
  },
  fuzz_parent: {
    flow_slug: 'fuzz_parent',
    steps: [
      {
        ...{ step_slug: 'a', step_type: 'map', map_source: 'run', child_flow: 'fuzz_chain' },
        ...{ concurrency: 3, when_item_fails: 'collect', tolerate_share: 0.5 },
      },
      {
        step_slug: 'b',
        step_type: 'map',
        map_source: 'run',
        child_flow: 'fuzz_choice',
        when_exhausted: 'skip',
      },
      {
        step_slug: 'c',
        deps_slugs: ['b'],
        child_flow: 'fuzz_map',
        map_source: 'b',
        when_parent_ends: 'leave',
      },
    ],
  },
  fuzz_nested: {
    flow_slug: 'fuzz_nested',
    deadline: 2,
    steps: [
      { step_slug: 'a', child_flow: 'fuzz_parent' },
      { step_slug: 'b', child_flow: 'fuzz_chain', limits: [{ limit_slug: 'fuzz_nested', running: 2 }] },
    ],
  },
  fuzz_loop: {
    ...{ flow_slug: 'fuzz_loop', base_delay: 0, max_attempts: 2 },
    steps: [
      {
        ...{ step_slug: 'a', step_type: 'loop', loop_until: [1], loop_max: 4, when_exhausted: 'skip' },
        limits: [{ running: 3 }],
      },
      {
        ...{ step_slug: 'b', step_type: 'loop', deps_slugs: ['a'], run_if: { run: [1] }, when_unmet: 'skip' },
        ...{ loop_max: 3, when_exceeded: 'complete', deadline: 1 },
      },
      { step_slug: 'c', deps_slugs: ['b'] },
    ],
  },
}

/** Functions that write one row a run, or fail. */
const functions = `
  create table if not exists public.fuzz_written (step text, written_at timestamptz default now());
  create or replace function public.fuzz_called(payload jsonb) returns jsonb language plpgsql as $$
  begin
    insert into public.fuzz_written (step) values (case when payload ? 'b' then 'c' else 'a' end);
    if random() < 0.3 then
      raise exception 'no';
    end if;
    return payload -> 'run';
  end $$`

export async function createFlows(sql: Sql): Promise<void> {
  await sql.unsafe(functions)
  for (const definition of Object.values(definitions)) {
    await sql`select pgflow.register_flow(${json(definition)}::text::jsonb)`
  }
  for (const flow_slug of singletons) {
    await sql`select pgflow.register_flow(${json({ ...definitions.fuzz_chain, flow_slug, schedules: [] })}::text::jsonb)`
    await sql`
      update pgflow.flows
      set singleton_when_busy = ${flow_slug.slice(5)}, singleton_path = 'run.0',
          singleton_wait = case when ${flow_slug} = 'fuzz_after' then 1 end
      where flow_slug = ${flow_slug}`
  }
}

const input = () => json(pick([[], [1], [1, 2, 3], Array.from({ length: 30 }, (_, n) => n)]))

function resultOf(task: Task): object {
  const ending = pick([
    { output: [1] },
    { output: null },
    { error: 'no' },
    { error: 'never', permanent: true },
    { error: 'busy', uncounted: true },
  ])
  if (oneIn(50)) return { ...task, task_index: 'x' }
  return {
    ...task,
    ...ending,
    ...('error' in ending && { thrown: { name: 'Error' }, retry_delay: random(2) / 10 }),
  }
}

/** As a signed-in user. */
async function asUser(sql: Sql, work: (tx: ISql) => Promise<unknown>): Promise<void> {
  await sql.begin(async (tx) => {
    await tx`select set_config('request.jwt.claims', ${json({ role: 'authenticated', sub: pick(owners) })}, true)`
    await tx`set local role authenticated`
    await work(tx)
  })
}

/** A call of each public function, with arguments that make sense most of the time. */
export const calls: Record<string, (sql: Sql, pool: Pool) => Promise<unknown>> = {
  start_flow: async (sql, pool) =>
    pool.addRuns(
      await sql<{ run_id: string }[]>`
        select run_id from pgflow.start_flow(
          ${pick([...flowSlugs, 'fuzz_alias'])}, ${input()}::text::jsonb,
          run_id => ${oneIn(5) ? pick(pool.runs) : null},
          idempotency_key => ${oneIn(2) ? `k${random(30)}` : null}, owner_id => ${pick(owners)},
          priority => ${pick([null, 'high', 'low'])}
        )`,
    ),
  start_flows: async (sql, pool) =>
    pool.addRuns(
      await sql<{ run_id: string }[]>`
        select run_id from pgflow.start_flows(
          ${pick(flowSlugs)}, (select jsonb_agg('[1, 2]'::jsonb) from generate_series(1, ${random(10)})), owner_id => ${pick(owners)}
        )`,
    ),
  claim_tasks: async (sql, pool) =>
    pool.addTasks(
      await sql<Task[]>`
        select run_id, step_slug, task_index, attempt
        from pgflow.claim_tasks(${flowSlugs}, ${random(30)}::int, ${pick(workers)}, lease => 1)`,
    ),
  poll_for_tasks: async (sql, pool) =>
    pool.addTasks(
      await sql<Task[]>`
        select run_id, step_slug, task_index, attempt
        from pgflow.poll_for_tasks(${pick(flowSlugs)}, 1, ${1 + random(10)}::int, max_poll_seconds => 0)`,
    ),
  settle_and_claim: async (sql, pool) => {
    const results = json(pool.some().map(resultOf))
    const [answer] = await sql<{ tasks: Task[] }[]>`
      select * from pgflow.settle_and_claim(
        ${results}::text::jsonb, ${flowSlugs}, ${random(30)}::int, ${pick(workers)}, 1, inline_limit => ${pick([null, 10])}::int, waiting => ${oneIn(2)}
      )`
    pool.addTasks(answer!.tasks)
  },
  settle_tasks: (sql, pool) => sql`
    select pgflow.settle_tasks(${json(pool.some().map(resultOf))}::text::jsonb, wait => ${oneIn(2)})`,
  complete_task: (sql, pool) => {
    const { run_id, step_slug, task_index } = pick(pool.tasks)
    return sql`select pgflow.complete_task(${run_id}, ${step_slug}, ${task_index}, '[2]')`
  },
  fail_task: (sql, pool) => {
    const { run_id, step_slug, task_index } = pick(pool.tasks)
    return sql`select pgflow.fail_task(${run_id}, ${step_slug}, ${task_index}, 'by hand')`
  },
  extend_leases: (sql, pool) =>
    sql`select pgflow.extend_leases(${json(pool.some())}::text::jsonb, ${random(3)})`,
  heartbeat: (sql, pool) => sql`
    select pgflow.heartbeat(${pick(workers)}, ${json(pool.some())}::text::jsonb, 1)`,
  hand_back: (sql, pool) => sql`select pgflow.hand_back(${json(pool.some())}::text::jsonb)`,
  report_progress: (sql, pool) => sql`
    select pgflow.report_progress(${json(pool.some().map((task) => ({ ...task, progress: { value: random(9) } })))}::text::jsonb)`,
  keep_result: (sql, pool) => {
    const { run_id, step_slug, task_index, attempt } = pick(pool.tasks)
    return sql`
      select pgflow.keep_result(${run_id}, ${step_slug}, ${task_index}, ${attempt}, ${pick(['x', 'y'])}, '[1]'),
             pgflow.kept_results_of(${run_id}, ${step_slug}, ${task_index})`
  },
  complete_in_transaction: (sql, pool) => {
    const { run_id, step_slug, task_index, attempt } = pick(pool.tasks)
    const isolation = pick(['read committed', 'repeatable read', 'serializable'])
    return sql
      .begin(`isolation level ${isolation}`, async (tx) => {
        await tx`select count(*) from pgflow.runs`
        await tx`select pgflow.complete_in_transaction(${run_id}, ${step_slug}, ${task_index}, ${attempt}, '[2]')`
      })
      .catch((error) => {
        // What these levels promise to refuse.
        if (isolation === 'read committed' || error.code !== '40001') throw error
      })
  },
  complete_wait: (sql, pool) => sql`
    select pgflow.complete_wait(${pick(pool.runs)}, ${pick(['a', 'c', 'e'])}, ${json(random(2))}::text::jsonb)`,
  reject_wait: (sql, pool) => sql`
    select pgflow.reject_wait(${pick(pool.runs)}, ${pick(['a', 'c', 'e'])}, 'no')`,
  tick: (sql) => sql`select pgflow.tick(${random(20)})`,
  list_children: async (sql, pool) =>
    pool.addRuns(
      await sql<{ run_id: string }[]>`select run_id from pgflow.list_children(${pick(pool.runs)})`,
    ),
  clients_list_children: (sql, pool) =>
    asUser(
      sql,
      (tx) => tx`select pgflow_public.list_children(${pick(pool.runs)}, quantity => ${random(20)}::int)`,
    ),
  settle_due: (sql) => sql`select pgflow.settle_due(${random(20)})`,
  call_functions: (sql) => sql`select pgflow.call_functions(${random(3)})`,
  call_timeout: (sql) =>
    sql`select set_config('statement_timeout', pgflow.call_timeout()::text, true); select pgflow.tick()`.simple(),
  next_call_in: (sql) => sql`select pgflow.next_call_in()`,
  next_due_at: (sql) => sql`select pgflow.next_due_at()`,
  next_due_in: (sql) => sql`select pgflow.next_due_in()`,
  cancel_run: (sql, pool) => sql`select pgflow.cancel_run(${pick(pool.runs)}, 'enough', ${oneIn(2)})`,
  retry_run: (sql, pool) => sql`select pgflow.retry_run(${pick(pool.runs)})`,
  watch_runs: (sql, pool) => sql`
    select pgflow.watch_runs(${pool.someRuns()}::uuid[], ${`pgflow:watch:${pick(tabs)}`}, waits => ${oneIn(2)})`,
  maintain: (sql) =>
    sql`select pgflow.maintain(keep_runs => '2 seconds', keep_archive => '1 second', budget => '0.1 s')`,
  prune_runs: (sql) => sql`select pgflow.prune_runs('1 second', ${random(20)})`,
  forget_owner: (sql) => sql`select pgflow.forget_owner(${pick(owners)}, ${random(20)})`,
  repair: (sql) => sql`select pgflow.repair()`,
  create_flow: (sql) => sql`select pgflow.create_flow(${pick(['fuzz_new', ...flowSlugs])})`,
  add_step: (sql) => sql`
    select pgflow.add_step('fuzz_new', ${pick(['a', 'b'])}, options => ${json(pick([{}, { limits: someLimits() }]))}::text::jsonb)`,
  delete_flow: (sql) => sql`select pgflow.delete_flow('fuzz_new')`,
  register_flow: (sql, pool) => {
    if (oneIn(2))
      return sql`select pgflow.register_flow(${json({ ...pick(Object.values(definitions)), timeout: 60 + random(2) })}::text::jsonb)`
    if (oneIn(4)) pool.version++
    const version = 1 + random(pool.version)
    const flow_slug = version === 1 ? 'fuzz_alias' : `fuzz_alias_v${version}`
    const definition = { flow_slug, alias: 'fuzz_alias', version, steps, limits: someLimits() }
    return sql`select pgflow.register_flow(${json(definition)}::text::jsonb)`
  },
  set_limit: (sql) => sql`select pgflow.set_limit(${pick(limitSlugs)}, running => ${1 + random(9)}::int)`,
  reset_limit: (sql) => sql`select pgflow.reset_limit(${pick(limitSlugs)})`,
  schedule: (sql) => sql`
    select pgflow.schedule(
      ${pick(scheduleSlugs)}, ${pick([...flowSlugs, 'fuzz_alias', 'fuzz_new'])}, ${pick(['* * * * *', '@hourly'])}, ${input()}::text::jsonb,
      overlap => ${pick(['skip', 'allow', 'cancel'])}, catch_up => ${pick(['last', 'none', 'all'])}, owner_id => ${pick([null, ...owners])}
    )`,
  start_due_schedules: async (sql) => {
    const past = new Date(Date.now() - random(600_000))
    await sql`
      update pgflow.schedules s set next_at = ${past}, due_at = ${past}
      where s.schedule_id = (select o.schedule_id from pgflow.schedules o order by random() limit 1)`
    await sql`select pgflow.start_due_schedules(${random(5)})`
  },
  pause_schedule: (sql) => sql`select pgflow.pause_schedule(${pick(scheduleSlugs)}, ${pick(owners)})`,
  resume_schedule: (sql) => sql`select pgflow.resume_schedule(${pick(scheduleSlugs)}, ${pick(owners)})`,
  run_schedule: async (sql, pool) =>
    pool.addRuns(
      await sql<{ run_id: string }[]>`
        select run_id from pgflow.run_schedule(${pick(scheduleSlugs)}, ${pick(owners)})`,
    ),
  unschedule: (sql) => sql`select pgflow.unschedule(${pick(scheduleSlugs)}, ${pick(owners)})`,
  clients_schedule: (sql) =>
    asUser(sql, async (tx) => {
      await tx`select pgflow_public.schedule_flow('fuzz_chain', '* * * * *', '[1]', schedule_slug => ${pick(scheduleSlugs)})`
      await tx`select pgflow_public.list_schedules()`
    }),
  register_worker: (sql) => sql`select pgflow.register_worker(${randomUUID()}, 'fuzz', ${flowSlugs})`,
  stop_worker: (sql) => sql`select pgflow.stop_worker(${pick(workers)})`,
  wake_worker: (sql) => sql`select pgflow.wake_worker()`,
  keep_worker_awake: (sql) => sql`select pgflow.keep_worker_awake()`,
  clients_start: (sql) =>
    asUser(
      sql,
      (tx) => tx`
        select pgflow_public.start_flow(
          ${pick(['fuzz_chain', ...singletons])}, '[1]', watch => ${pick(tabs)}, priority => ${pick([null, 'low'])}
        )`,
    ),
  clients_start_wait: (sql, pool) =>
    asUser(sql, async (tx) =>
      pool.addRuns([
        (
          await tx<
            { run: { run_id: string } }[]
          >`select pgflow_public.start_flow('fuzz_wait', ${json(owners)}::text::jsonb) as run`
        )[0]!.run,
      ]),
    ),
  clients_decide: (sql, pool) =>
    asUser(sql, async (tx) => {
      const [answer] = await tx<{ waits: { run_id: string; step_slug: string }[] }[]>`
        select pgflow_public.list_waits(watch => ${pick(tabs)}, quantity => ${random(20)}::int) as waits`
      const { run_id, step_slug } = answer!.waits[0] ?? { run_id: pick(pool.runs), step_slug: 'a' }
      await tx`select pgflow_public.complete_wait(${run_id}, ${step_slug}, '1')`
    }),
  clients_list: (sql) => asUser(sql, (tx) => tx`select pgflow_public.list_runs(watch => ${pick(tabs)})`),
  clients_look: (sql, pool) =>
    asUser(sql, async (tx) => {
      await tx`select pgflow_public.get_run(${pick(pool.runs)}, watch => ${pick(tabs)})`
      await tx`select pgflow_public.get_run_events(${pick(pool.runs)})`
    }),
  clients_sync: (sql, pool) => {
    const cursors = Object.fromEntries(pool.someRuns().map((run_id) => [run_id, pick([null, 0, 2])]))
    return asUser(sql, (tx) => tx`select pgflow_public.sync(${json(cursors)}::text::jsonb, ${pick(tabs)})`)
  },
  clients_end: (sql, pool) =>
    asUser(sql, (tx) =>
      oneIn(2)
        ? tx`select pgflow_public.cancel_run(${pick(pool.runs)})`
        : tx`select pgflow_public.retry_run(${pick(pool.runs)})`,
    ),
}
