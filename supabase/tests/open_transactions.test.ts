import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type ISql, type Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { untilSomebodyWaits } from './testing/contend.ts'
import { violations } from './testing/invariants.ts'

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 8, onnotice: () => undefined })
})

afterAll(async () => {
  await sql?.end()
  await stack?.stop()
})

interface Task {
  run_id: string
  step_slug: string
  task_index: number
  attempt: number
}

/** Runs of a flow with one step, each claimed. */
async function claimedRuns(flowSlug: string, runs: number): Promise<Task[]> {
  await sql`select pgflow.create_flow(${flowSlug}, base_delay => 0), pgflow.add_step(${flowSlug}, 'a')`
  await sql`select pgflow.start_flows(${flowSlug}, ${sql.json(Array(runs).fill(null))})`
  return sql<Task[]>`
    select run_id, step_slug, task_index, attempt from pgflow.claim_tasks(array[${flowSlug}], ${runs}, null)`
}

/** What somebody does while a transaction of somebody else stays open. Nothing may wait for it. */
async function whileOpen<T>(
  transaction: (tx: ISql) => Promise<unknown>,
  meanwhile: (tx: ISql) => Promise<T>,
): Promise<T> {
  return sql.begin(async (open) => {
    await transaction(open)
    return sql.begin(async (tx) => {
      await tx`set local lock_timeout = '50ms'`
      return meanwhile(tx)
    })
  }) as Promise<T>
}

const settleAndClaim = async (flowSlug: string, results: object[], tx: ISql = sql) => {
  const [answer] = await tx<{ stale: Task[]; held: Task[]; tasks: Task[] }[]>`
    select * from pgflow.settle_and_claim(${sql.json(results as never)}, array[${flowSlug}], 10, null)`
  return answer!
}

describe('an open transaction on one run', () => {
  test('leaves its result to the worker, and holds up no other', async () => {
    const tasks = await claimedRuns('held_cancel', 3)
    const [held] = tasks
    const results = tasks.map((task) => ({ ...task, output: 1 }))
    await sql`select pgflow.start_flow('held_cancel', '0')`
    const meanwhile = await whileOpen(
      (open) => open`select pgflow.cancel_run(${held!.run_id})`,
      (tx) => settleAndClaim('held_cancel', results, tx),
    )
    expect(meanwhile).toMatchObject({ stale: [], held: [held], tasks: [{ step_slug: 'a' }] })
    expect(await settleAndClaim('held_cancel', [{ ...held, output: 1 }])).toMatchObject({
      stale: [held],
      held: [],
    })
    const runs = await sql`select status from pgflow.runs where flow_slug = 'held_cancel' order by status`
    expect(runs.map(({ status }) => status)).toEqual(['cancelled', 'completed', 'completed', 'started'])
    expect(await violations(sql, ['held_cancel'])).toEqual([])
  })

  test('that changes nothing in the end leaves the result to be settled', async () => {
    const [task] = await claimedRuns('held_briefly', 1)
    const thrown = { ...task, error: 'e', thrown: { message: 'e' }, permanent: true }
    const meanwhile = await whileOpen(
      (open) => open`select from pgflow.runs where run_id = ${task!.run_id} for no key update`,
      (tx) => settleAndClaim('held_briefly', [thrown], tx),
    )
    expect(meanwhile).toEqual({ stale: [], held: [task], tasks: [] })
    const failed = await settleAndClaim('held_briefly', [thrown])
    expect(failed).toEqual({ stale: [], held: [], tasks: [] })
    const [run] = await sql`select status, error from pgflow.runs where run_id = ${task!.run_id}`
    expect(run).toEqual({ status: 'failed', error: 'e' })
  })

  test('holds up no cancel of the other runs of a batch that waits for it', async () => {
    const tasks = await claimedRuns('held_batch', 3)
    const [held, other] = tasks
    const results = sql.json(tasks.map((task) => ({ ...task, output: 1 })) as never)
    const settled = await sql.begin(async (open) => {
      await open`select from pgflow.runs where run_id = ${held!.run_id} for no key update`
      const settling = sql`select applied, held from pgflow.settle_tasks(${results})`
      settling.execute()
      await untilSomebodyWaits(sql)
      await sql.begin(async (tx) => {
        await tx`set local lock_timeout = '50ms'`
        await tx`select pgflow.cancel_run(${other!.run_id})`
      })
      return { settling }
    })
    expect(await settled.settling).toMatchObject([
      { applied: true, held: false },
      { applied: false, held: false },
      { applied: true, held: false },
    ])
    expect(await violations(sql, ['held_batch'])).toEqual([])
  })

  test('leaves deadlines of its run for a little later, and ends others', async () => {
    const [held] = await claimedRuns('held_deadline', 2)
    await sql`update pgflow.steps set opt_deadline = 1 where flow_slug = 'held_deadline'`
    await sql`
      update pgflow.step_states set started_at = started_at - interval '2 seconds'
      where flow_slug = 'held_deadline'`
    await sql`
      insert into pgflow.alarms (due_at, kind, run_id, step_slug)
      select pgflow.now(), 'deadline', run_id, 'a' from pgflow.runs where flow_slug = 'held_deadline'`
    const meanwhile = await whileOpen(
      (open) => open`select from pgflow.runs where run_id = ${held!.run_id} for no key update`,
      (tx) => tx`select settled, next_due_at - pgflow.now() <= '50 ms' as is_soon from pgflow.tick()`,
    )
    expect(meanwhile).toEqual([{ settled: 1, is_soon: true }])
    expect(await sql`select run_id from pgflow.alarms`).toEqual([{ run_id: held!.run_id }])
    await sql.begin(async (tx) => {
      await tx`select set_config('pgflow.now', max(due_at)::text, true) from pgflow.alarms`
      expect(await tx`select settled from pgflow.tick()`).toEqual([{ settled: 1 }])
    })
    expect(await violations(sql, ['held_deadline'])).toEqual([])
  })

  test('keeps the progress of its run out, and says so', async () => {
    const tasks = await claimedRuns('held_progress', 2)
    const [held, other] = tasks
    const reports = tasks.map((task) => ({ ...task, progress: { value: 0.5 } }))
    const [answer] = await whileOpen(
      (open) => open`select from pgflow.runs where run_id = ${held!.run_id} for no key update`,
      (tx) => tx`select pgflow.report_progress(${sql.json(reports)}) as held`,
    )
    expect(answer).toEqual({ held: [held] })
    const states = await sql`select run_id, progress from pgflow.step_states where progress is not null`
    expect([...states]).toEqual([{ run_id: other!.run_id, progress: { value: 0.5 } }])
  })
})
