import type { ISql, Sql } from 'postgres'

const OWNER = '11111111-1111-4111-8111-111111111111'
const WATCH = '30000000-0000-4000-8000-000000000001'
const RUNS = 100

interface Task {
  run_id: string
  step_slug: string
  task_index: number
  attempt: number
}

/** Creates the flows of {@link exercise}: a chain, a map, conditions. */
export async function prepare(sql: Sql): Promise<void> {
  await sql.unsafe(`
    select pgflow.create_flow('chain', base_delay => 0, start_role => 'authenticated');
    select pgflow.add_step('chain', 'a'), pgflow.add_step('chain', 'b', array['a']), pgflow.add_step('chain', 'c', array['b']);
    select pgflow.create_flow('map', broadcast => 'always');
    select pgflow.add_step('map', 'each', step_type => 'map'), pgflow.add_step('map', 'join', array['each']);
    select pgflow.create_flow('choice');
    select pgflow.add_step('choice', 'yes', run_if => '{"run": {"n": 1}}'), pgflow.add_step('choice', 'no', run_unless => '{"run": {"n": 1}}');
    select pgflow.add_step('choice', 'end', array['yes', 'no'])`)
}

/** Calls whatever is called often: starts, claims, settlements of every kind, heartbeats, and what clients ask. */
export async function exercise(sql: Sql): Promise<void> {
  const flows = ['chain', 'map', 'choice']
  const inputs = Array.from({ length: RUNS }, (_, n) => ({ n }))
  await sql`select count(*) from pgflow.start_flows('chain', ${sql.json(inputs)}, owner_id => ${OWNER})`
  await sql`select count(*) from pgflow.start_flows('choice', ${sql.json([{ n: 1 }, { n: 2 }])})`
  await sql`select count(*) from pgflow.start_flow('map', ${sql.json([1, 2, 3, 4])}, idempotency_key => ${crypto.randomUUID()})`
  await asClient(sql, sync)
  await drain(sql, flows)

  const [failed] = await sql`select run_id from pgflow.start_flow('chain', '1', owner_id => ${OWNER})`
  await drain(sql, flows, () => ({ error: 'no', permanent: true }))
  await sql`select pgflow.retry_run(${failed?.run_id})`
  await sql`select pgflow.cancel_run(${failed?.run_id})`
  await asClient(sql, (client) => look(client, failed?.run_id))
  await sql`select pgflow.maintain()`
}

async function drain(sql: Sql, flows: string[], end: (task: Task) => object = attemptTwice): Promise<void> {
  const worker = crypto.randomUUID()
  let tasks: Task[] = []
  do {
    const results = tasks.map((task) => ({ ...idOf(task), ...end(task) }))
    const [answer] =
      await sql`select * from pgflow.settle_and_claim(${sql.json(results as never)}, ${flows}, 50, ${worker}::uuid)`
    tasks = answer?.tasks
    await hold(sql, worker, tasks)
  } while (tasks.length > 0)
}

/** What happens to tasks while their handlers run: leases are extended, progress is reported, one task is given back. */
async function hold(sql: Sql, worker: string, tasks: Task[]): Promise<void> {
  const ids = tasks.map(idOf)
  await sql`select count(*) from pgflow.heartbeat(${worker}::uuid, ${sql.json(ids as never)})`
  const [first] = ids
  if (!first) return
  await sql`select pgflow.report_progress(${sql.json([{ ...first, progress: { value: 0.5 } }] as never)})`
  await sql`
    select pgflow.fetch_value(r.run_id, 'run', pgflow.version_of(r.started_at))
    from pgflow.runs r where r.run_id = ${first.run_id}`
  if (first.attempt === 1) await sql`select pgflow.hand_back(${sql.json([first] as never)})`
}

function idOf({ run_id, step_slug, task_index, attempt }: Task): Task {
  return { run_id, step_slug, task_index, attempt }
}

/** One task in ten fails at first. */
function attemptTwice({ run_id, attempt }: Task): object {
  return attempt === 1 && run_id.endsWith('a')
    ? { error: 'once', retry_delay: 0, thrown: { name: 'Error' } }
    : { output: 1 }
}

/** Under a client's role. */
async function asClient(sql: Sql, work: (client: ISql) => Promise<void>): Promise<void> {
  await sql.begin(async (client) => {
    await client`select set_config('request.jwt.claims', ${JSON.stringify({ sub: OWNER, role: 'authenticated' })}, true)`
    await client.unsafe('set local role authenticated')
    await work(client)
  })
}

/** Watches the newest runs, reads their events, and finds them watched. */
async function sync(client: ISql): Promise<void> {
  const runs = await client<{ run_id: string }[]>`
    select r.run_id
    from jsonb_to_recordset(pgflow_public.list_runs(status => 'started', quantity => ${RUNS / 2}, watch => ${WATCH})) r (run_id uuid)`
  const more = await client<{ run_id: string }[]>`
    select r.run_id from jsonb_to_recordset(pgflow_public.list_runs(status => 'started', quantity => ${RUNS})) r (run_id uuid)`
  for (const rows of [runs, more, more]) {
    const cursors = Object.fromEntries(rows.map(({ run_id }, n) => [run_id, n % 3]))
    await client`select pgflow_public.sync(${JSON.stringify(cursors)}::text::jsonb, ${WATCH})`
  }
}

/** What else the functions for clients do. */
async function look(client: ISql, runId: string): Promise<void> {
  await client`select pgflow_public.start_flow('chain', '{"n": 0}', watch => ${WATCH})`
  await client`select pgflow_public.get_run(${runId}, watch => ${WATCH})`
  await client`select pgflow_public.get_run_events(${runId}, after => 2)`
  await client`select pgflow_public.list_runs(quantity => 20)`
  await client`select pgflow_public.list_runs(flow_slug => 'chain', status => 'completed', quantity => 20)`
}
