import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { type AnyFlow, compile } from '@pgflow/sdk/flow'
import pg from 'pg'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { imported } from './testing/import.ts'
import { codeOf } from './testing/shown.ts'
import { signaturesOf } from './testing/signatures.ts'

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))

let stack: LocalSupabase

beforeAll(async () => {
  stack = await startLocalSupabase({ migrations: [path('../supabase/migrations')], fsync: false })
})
afterAll(() => stack.stop())

async function connected(): Promise<pg.Client> {
  const client = new pg.Client(stack.dbUrl)
  await client.connect()
  onTestFinished(() => client.end())
  return client
}

/** The SQL of a page, block by block. */
function blocksOf(page: string): string[] {
  return [...readFileSync(path(page), 'utf8').matchAll(/^```sql\n(.*?)^```$/gms)].map(([, sql]) => sql!)
}

/** The rows of each statement. */
async function rowsOf(client: pg.Client, sql: string): Promise<unknown[][]> {
  // A query of many statements has a result for each, which pg's types leave out.
  const results = (await client.query(sql)) as pg.QueryResult | pg.QueryResult[]
  return [results].flat().map(({ rows }) => rows)
}

it('versions.md has SQL that runs', async () => {
  const client = await connected()
  const results = []
  for (const sql of blocksOf('versions.md')) results.push(...(await rowsOf(client, sql)))
  expect(results).toEqual([
    [{ register_flow: expect.stringMatching(/^\(report,report,1,report,/) }],
    [
      expect.objectContaining({
        version: 1,
        flow_slug: 'report',
        is_newest: true,
        running_runs: '0',
        workers: '0',
      }),
    ],
  ])
})

it('security.md has rules by which a team shares runs, and users start a few at a time', async () => {
  const client = await connected()
  const [team, forget, quota, ...more] = blocksOf('security.md')
  expect(more).toEqual([])
  await client.query(`
    begin;
    select pgflow.create_flow('shared', start_role => 'authenticated'), pgflow.add_step('shared', 'a')`)
  onTestFinished(async () => void (await client.query('rollback')))
  await client.query(`${team};${quota}`)
  const [alice, bob, teamId] = [1, 2, 3].map((n) => `10000000-0000-4000-8000-00000000000${n}`)
  await client.query('insert into public.members values ($1, $3, true), ($2, $3, false)', [
    alice,
    bob,
    teamId,
  ])

  const as = async (user: string, call: string) => {
    const claims = JSON.stringify({ role: 'authenticated', sub: user })
    await client.query(
      `savepoint before; select set_config('request.jwt.claims', '${claims}', true); set local role authenticated`,
    )
    const answer = await client
      .query(`select pgflow_public.${call} as answer`)
      .catch(({ code }) => code as string)
    if (typeof answer === 'string') await client.query('rollback to before')
    await client.query('reset role')
    return typeof answer === 'string' ? answer : answer.rows[0].answer
  }
  const start = `start_flow('shared', '1', group_id => '${teamId}')`
  const { run_id } = await as(alice!, start)
  expect(await as(bob!, `list_runs(group_id => '${teamId}')`)).toMatchObject([{ run_id, owner_id: alice }])
  expect(await as(bob!, `cancel_run('${run_id}')`)).toBe('PT403')
  expect(await as(bob!, start)).toBe('PT403')
  expect(await as(alice!, `start_flows('shared', '[1, 2, 3, 4, 5]')`)).toBe('PT403')
  expect(await as(alice!, `start_flows('shared', '[1, 2, 3, 4]')`)).toHaveLength(4)

  await client.query(`set local role postgres; ${forget}`)
  await client.query(
    `insert into auth.users (id) values ('${alice}'); delete from auth.users where id = '${alice}'`,
  )
  expect((await client.query('select from pgflow.runs')).rows).toHaveLength(0)
})

it('sql.md has SQL that runs and does what the page says', async () => {
  const client = await connected()
  const [define, start, trigger, poll, settle, waits, children, look, upkeep, ...more] = blocksOf('sql.md')
  expect(more).toEqual([])

  expect(await rowsOf(client, define!)).toHaveLength(4)
  const [[run]] = (await rowsOf(client, start!)) as [[{ run_id: string; status: string }]]
  expect(run.status).toBe('started')
  const ofRun = (sql: string) => sql.replaceAll('<run_id>', run.run_id)

  const task = { run_id: run.run_id, step_slug: 'chunks', task_index: 0, input: { run: { path: 'a.md' } } }
  expect(await rowsOf(client, poll!)).toEqual([[task]])
  expect(await rowsOf(client, ofRun(settle!))).toEqual([
    [{ status: 'completed' }],
    [{ status: 'queued', attempts_count: 1 }],
  ])
  const sleeping = await rowsOf(client, waits!)
  expect(sleeping.at(-1)).toEqual([{ settled: 0, next_due_at: expect.any(Date) }])
  await client.query(`delete from pgflow.runs where flow_slug = 'publish'`)
  expect((await rowsOf(client, ofRun(children!))).at(-1)).toEqual([])
  const [steps, events, cancelled, retried] = await rowsOf(client, ofRun(look!))
  expect(steps).toContainEqual({
    step_slug: 'chunks',
    status: 'completed',
    error: null,
    output: ['one', 'two'],
  })
  expect(events![0]).toMatchObject({ event: { seq: 1, type: 'run:started' } })
  expect(cancelled).toEqual([{ status: 'cancelled', error: 'the document was deleted' }])
  expect(retried).toEqual([{ status: 'started' }])

  // pg_cron is not here: what it would run is.
  const [, job] = /\$\$(.*)\$\$/.exec(upkeep!)!
  expect(await rowsOf(client, job!)).toEqual([
    [{ maintain: expect.objectContaining({ runs: 0, left: false }) }],
  ])

  await client.query(trigger!)
  const user = '10000000-0000-4000-8000-000000000001'
  await client.query(`
    begin;
    set local role authenticated;
    set local request.jwt.claims = '{"role": "authenticated", "sub": "${user}"}';
    insert into public.documents (path) values ('b.md');
    commit`)
  const started = await client.query('select input, owner_id from pgflow.runs where run_id <> $1', [
    run.run_id,
  ])
  expect(started.rows).toEqual([{ input: { path: 'b.md' }, owner_id: user }])
})

it('waiting.md has SQL that completes a wait, by a trigger and by hand', async () => {
  const client = await connected()
  await client.query(`
    begin;
    select pgflow.create_flow('bill'), pgflow.add_step('bill', 'paid', step_type => 'wait')`)
  onTestFinished(async () => void (await client.query('rollback')))
  const start = async () => {
    const { rows } = await client.query(`select run_id from pgflow.start_flow('bill', '{}')`)
    return rows[0].run_id as string
  }
  const output = async (runId: string) =>
    (await client.query('select output from pgflow.runs where run_id = $1', [runId])).rows[0].output
  const [trigger, hand, ...more] = blocksOf('waiting.md')
  expect(more).toEqual([])

  await client.query(trigger!)
  const byTrigger = await start()
  await client.query('insert into public.invoices values ($1)', [byTrigger])
  await client.query(`update public.invoices set paid_at = '2030-01-31 00:00+00'`)
  expect(await output(byTrigger)).toEqual({ paid: { paid_at: expect.stringContaining('2030-01-31') } })

  const byHand = await start()
  const [waiting] = await rowsOf(client, hand!.replaceAll('<run_id>', byHand))
  expect(waiting).toMatchObject([{ step_slug: 'paid', flow_slug: 'bill', due_at: null }])
  expect(await output(byHand)).toEqual({ paid: { paid_at: '2030-01-31' } })
})

it('operations.md has SQL that runs, and finds what the page says', async () => {
  const client = await connected()
  await client.query(`
    begin;
    select pgflow.create_flow('import_csv', max_attempts => 1), pgflow.add_step('import_csv', 'store')`)
  onTestFinished(async () => void (await client.query('rollback')))
  const start = async () => {
    const { rows } = await client.query(`select run_id from pgflow.start_flow('import_csv', '{}')`)
    return rows[0].run_id as string
  }
  const failed = await start()
  const running = await start()
  await client.query(`select pgflow.fail_task($1, 'store', 0, 'Error: the rate limit is exceeded')`, [failed])

  const [find, bulk, queues, workers, ...changes] = blocksOf('operations.md')
  const [errors, old, tasks] = await rowsOf(client, find!.replace('<run_id>', failed))
  expect(errors).toMatchObject([{ flow_slug: 'import_csv', count: '1' }])
  expect(old).toEqual([])
  expect(tasks).toMatchObject([{ error_message: 'Error: the rate limit is exceeded' }])
  const [backlog] = await rowsOf(client, queues!)
  expect(backlog).toContainEqual(
    expect.objectContaining({ flow_slug: 'import_csv', status: 'queued', count: '1' }),
  )
  const [, versions] = await rowsOf(client, workers!)
  expect(versions).toContainEqual(
    expect.objectContaining({ alias: 'import_csv', running_runs: '1', workers: '0' }),
  )
  // The one that was retried is running again.
  expect(await rowsOf(client, bulk!)).toEqual([[{ count: '1' }], [{ count: '2' }]])
  const { rows } = await client.query('select distinct error from pgflow.runs where run_id in ($1, $2)', [
    failed,
    running,
  ])
  expect(rows).toEqual([{ error: 'started by mistake' }])
  for (const sql of changes) await rowsOf(client, sql)
  expect(
    (await client.query('select start_role, opt_timeout, max_input_bytes from pgflow.flows')).rows,
  ).toContainEqual({
    start_role: 'service_role',
    opt_timeout: 120,
    max_input_bytes: 5_000_000,
  })
})

it('sql-steps.md has functions that write rows, a job that calls them, and a role that may do less', async () => {
  const client = await connected()
  await client.query('begin')
  onTestFinished(async () => void (await client.query('rollback')))
  const [save, errors, cleanup, cron, role, ...more] = blocksOf('sql-steps.md')
  expect(more).toEqual([])
  const [, job = ''] = /\$\$(.*)\$\$/.exec(cron!)!
  await client.query(`${save};${cleanup}`)
  for (const code of codeOf(readFileSync(path('sql-steps.md'), 'utf8'), 'ts')) {
    for (const flow of Object.values(await imported(code))) await client.query(compile(flow as AnyFlow))
  }
  const embed = async (documentId: unknown) => {
    const input = JSON.stringify({ documentId, chunks: ['one', 'two'] })
    const { rows } = await client.query(`select run_id from pgflow.start_flow('embed_document', $1)`, [input])
    await client.query(`select pgflow.complete_task($1, 'embeddings', 0, '[[1, 0.5], [2, 3]]')`, [
      rows[0].run_id,
    ])
    expect((await rowsOf(client, job)).at(-1)).toEqual([{ tick: expect.stringMatching(/^\(1,/) }])
    const run = 'select status, output from pgflow.runs where run_id = $1'
    return (await client.query(run, [rows[0].run_id])).rows[0]
  }
  expect(await embed(1)).toEqual({ status: 'completed', output: { saved: { rows: 2 } } })
  expect((await client.query('select * from public.embeddings')).rows).toContainEqual({
    ...{ document_id: '1', chunk: 1, content: 'one', embedding: [1, 0.5] },
  })

  expect(await embed('x')).toMatchObject({ status: 'started' })
  expect(await rowsOf(client, errors!)).toEqual([
    [
      {
        ...{ step_slug: 'saved', code: '22P02', detail: null, hint: null },
        error_message: 'step "saved" failed: invalid input syntax for type bigint: "x"',
      },
    ],
  ])

  await client.query(`select pgflow.start_flow('cleanup', '{}')`)
  expect((await rowsOf(client, job)).at(-1)).toEqual([{ tick: expect.stringMatching(/^\(2,/) }])
  expect((await client.query('select deleted from public.reports')).rows).toEqual([{ deleted: '0' }])

  await client.query(role!)
  expect(await embed(2)).toMatchObject({ status: 'completed' })
  await client.query('alter table public.embeddings enable row level security')
  expect(await embed(3)).toMatchObject({ status: 'started' })
})

it('limits.md has flows with limits, SQL that sees what waits, and SQL that changes a limit', async () => {
  const client = await connected()
  await client.query('begin')
  onTestFinished(async () => void (await client.query('rollback')))
  const modules = await Promise.all(codeOf(readFileSync(path('limits.md'), 'utf8'), 'ts').map(imported))
  const flows: AnyFlow[] = modules.flatMap(Object.values)
  for (const flow of flows) await client.query(compile(flow))
  const pages = JSON.stringify({ pages: Array(60).fill('a page') })
  await client.query(`select pgflow.start_flow('summarize', $1)`, [pages])
  await client.query('select pgflow.tick()')

  const [look, set, reset, ...more] = blocksOf('limits.md')
  expect(more).toEqual([])
  const [now, waiting, uses] = await rowsOf(client, look!)
  expect(now).toMatchObject([
    { limit_slug: 'model', value: '', running: '50', running_limit: 50, waiting: '10' },
  ])
  expect(waiting).toHaveLength(10)
  expect(waiting![0]).toMatchObject({ flow_slug: 'summarize', step_slug: 'parts', slot_keys: ['model:'] })
  const limits = (rows: unknown) => (rows as { limit_slug: string }[]).map(({ limit_slug }) => limit_slug)
  expect(limits(uses)).toEqual(['backfill', 'import', 'model', 'model', 'vectors'])
  const model = async () =>
    (
      await client.query(
        `select running, rate_count, rate_period, made_by from pgflow.limits where limit_slug = 'model'`,
      )
    ).rows[0]
  await rowsOf(client, set!)
  expect(await model()).toEqual({ running: 10, rate_count: 500, rate_period: 60, made_by: 'sql' })
  for (const flow of flows) await client.query(compile(flow))
  expect(await model()).toMatchObject({ running: 10, made_by: 'sql' })
  await rowsOf(client, reset!)
  for (const flow of flows) await client.query(compile(flow))
  expect(await model()).toEqual({ running: 50, rate_count: 3000, rate_period: 60, made_by: 'flow' })
})

it('undo.md has SQL that undoes runs, and finds them', async () => {
  const client = await connected()
  const [define, find, cancel, ...more] = blocksOf('undo.md')
  expect(more).toEqual([])
  await client.query(define!)
  const [[run]] = (await rowsOf(client, `select run_id from pgflow.start_flow('order', '{"item": 7}')`)) as [
    [{ run_id: string }],
  ]
  await client.query(`select pgflow.complete_task('${run.run_id}', 'pay', 0, '{"id": 1}')`)
  expect(await rowsOf(client, cancel!)).toEqual([[{ run_id: run.run_id, status: 'cancelled' }]])
  await client.query('select pgflow.tick()')
  expect(await rowsOf(client, find!)).toEqual([
    [
      {
        ...{ run_id: run.run_id, status: 'cancelled', error: 'out of stock' },
        ...{ undo_run_id: expect.any(String), undo_status: 'started', undo_error: null },
      },
    ],
  ])
  const [[undo]] = (await rowsOf(client, 'select input from pgflow.runs where undoes is not null')) as [
    [object],
  ]
  const json = /^```json\n(.*?)^```$/ms.exec(readFileSync(path('undo.md'), 'utf8'))![1]!
  expect(undo).toEqual({ input: { ...JSON.parse(json), error: 'out of stock' } })
})

it('agents-and-loops.md has flows with loops, and SQL that takes turns and sees them', async () => {
  const client = await connected()
  await client.query('begin')
  onTestFinished(async () => void (await client.query('rollback')))
  const modules = await Promise.all(
    codeOf(readFileSync(path('agents-and-loops.md'), 'utf8'), 'ts').map(imported),
  )
  const flows: AnyFlow[] = modules.flatMap(Object.values)
  expect(flows.map(({ slug }) => slug)).toEqual(['write_article', 'transcribe', 'agent'])
  for (const flow of flows) await client.query(compile(flow))
  const run_id = '0199c0de-0000-7000-8000-000000000001'
  await client.query(`select pgflow.start_flow('write_article', '{"topic": "loops"}', run_id => $1)`, [
    run_id,
  ])
  await client.query(`select pgflow.complete_task($1, 'draft', 0, '{"topic": "loops", "text": "a"}')`, [
    run_id,
  ])

  const [look, turns, ...more] = blocksOf('agents-and-loops.md')
  expect(more).toEqual([])
  expect(await rowsOf(client, look!)).toMatchObject([
    [
      { turn: 0, status: 'completed', state: { topic: 'loops' }, next_state: { topic: 'loops', text: 'a' } },
      { turn: 1, status: 'queued', state: { topic: 'loops', text: 'a' }, next_state: null },
    ],
  ])
  expect((await rowsOf(client, turns!)).at(-1)).toEqual([{ status: 'completed', output: { up: 3 } }])
})

it('schedules.md has SQL that runs', async () => {
  const client = await connected()
  await client.query(`
    begin;
    set local timezone = 'UTC';
    select pgflow.create_flow('report'), pgflow.add_step('report', 'a')`)
  onTestFinished(async () => void (await client.query('rollback')))
  const [made, times, job, ...more] = blocksOf('schedules.md')
  expect(more).toEqual([])
  const [schedules, , , runs, rows] = await rowsOf(client, made!)
  expect(schedules).toEqual([{ schedule_slug: 'weekly_report', next_at: expect.any(Date) }])
  expect(rows).toMatchObject([
    { alias: 'report', paused_at: null, last_run_id: (runs as { run_id: string }[])[0]!.run_id },
  ])
  expect((await rowsOf(client, times!))[0]).toHaveLength(3)
  expect(await rowsOf(client, /\$\$(.*)\$\$/.exec(job!)![1]!)).toHaveLength(1)
})

it('sql.md has the signature of each function that is meant for users', async () => {
  const client = await connected()
  const shown = [...readFileSync(path('sql.md'), 'utf8').matchAll(/^```text\n(pgflow\w*\..*?)\n```$/gms)]
  expect(shown.map(([, signature]) => signature).sort()).toEqual((await signaturesOf(client)).sort())
})
