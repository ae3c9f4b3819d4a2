import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { compile, Flow } from '../flow/index.ts'
import { schemaVersion } from '../shared/schema-version.ts'
import { startWorker } from '../worker/index.ts'
import { migrations, startTestDatabase, type TestDatabase } from '../worker/testing/database.ts'
import { doctorCommand, examine, type Finding } from './doctor.ts'
import { limits } from './doctor-checks.ts'
import { encryptionOf, keysIn } from './doctor-connection.ts'
import { runsCommand } from './runs.ts'
import { said } from './testing/command.ts'
import { pgflow } from './testing/pgflow.ts'

let db: TestDatabase
let admin: Sql

beforeAll(async () => {
  db = await startTestDatabase()
  admin = postgres(db.adminUrl, { max: 1, onnotice: () => {} })
  await db.sql.unsafe(compile(new Flow<string>({ slug: 'greet' }).step('text', ({ run }) => run)))
})
afterAll(async () => {
  await admin.end()
  await db[Symbol.asyncDispose]()
})

const doctor = (environment = {}, url = db.url) => said(doctorCommand, ['--db', url], { environment })

/** What the check of this title says, with these limits. */
async function finding(title: string, bounds = {}): Promise<Finding> {
  const sql = postgres(db.url, { max: 1, onnotice: () => {} })
  try {
    const found = await examine(sql, { environment: {} }, { ...limits, ...bounds })
    return found.find((one) => one.title === title)!
  } finally {
    await sql.end({ timeout: 1 })
  }
}

async function claimed(): Promise<string> {
  const run_id = await db.startRun('greet', 'Ada')
  await db.sql`select * from pgflow.poll_for_tasks('greet', 60, 10)`
  return run_id
}

/** Starts a run that waits until then. */
async function startWaiting(until: string): Promise<void> {
  await db.sql`select pgflow.create_flow('wait'), pgflow.add_step('wait', 'a', step_type => 'wait', timeout => 3600)`
  await db.sql`select pgflow.start_flow('wait', '1')`
  await db.sql`update pgflow.step_tasks set due_at = now() + ${until}::interval where status = 'waiting'`
}

const endAll = () => db.sql`select pgflow.cancel_run(run_id) from pgflow.runs where status = 'started'`

describe('pgflow doctor', () => {
  it('has a line for each check, and a note for what would help', async () => {
    const { out, error } = await doctor()
    expect(out.map((line) => line.slice(0, 60).trimEnd())).toMatchInlineSnapshot(`
      [
        "ok    the migrations fit this package: version 5",
        "ok    the connection is encrypted where it leaves this machi",
        "ok    workers are notified of new tasks over this connection",
        "ok    the database exposes pgflow_public",
        "ok    clients may listen to their runs",
        "ok    events are broadcast",
        "ok    pgmq is installed",
        "ok    each flow has its queue",
        "ok    each open task has its message",
        "ok    each open run has an open task",
        "ok    each flow with open runs has a worker",
        "ok    something ticks",
        "ok    tasks are admitted where slots are free",
        "ok    tasks of workers that died are claimed again",
        "ok    workers that have not stopped are alive",
        "ok    no transaction is open for long",
        "ok    no unused replication slot holds old rows back",
        "ok    no prepared transaction holds old rows back",
        "ok    schedules are started on time",
        "note  upkeep is scheduled: pg_cron is not installed: finishe",
        "ok    upkeep runs",
        "ok    archives are pruned",
        "ok    inputs are validated against their schemas",
        "ok    Edge Functions can be woken",
      ]
    `)
    expect(error).toBeUndefined()
  })

  it('fails with what does not work', async () => {
    const run_id = await db.startRun('greet', 'Joan')
    const { code, out, errors } = await pgflow('doctor', '--db', db.url)
    expect(out).toContain(
      'fix   each flow with open runs has a worker: none for greet (1 open) – start one: pgflow worker',
    )
    expect(errors).toMatch(/^pgflow doctor: 1 of \d+ checks failed\n$/)
    expect(code).toBe(1)
    await db.sql`select pgflow.cancel_run(${run_id})`
  })

  it('stops where the migrations are older', async () => {
    const version = (n: number) =>
      db.sql.unsafe(`create or replace function pgflow.schema_version() returns int language sql immutable
        set search_path = pg_catalog, pg_temp as 'select ${n}'`)
    await version(0)
    onTestFinished(() => version(schemaVersion).then(() => {}))
    const words = `This database has version 0 of the migrations of pgflow, and this package needs version ${schemaVersion}.`
    const { out, error } = await doctor()
    expect(out).toEqual([expect.stringContaining(`fix   the migrations fit this package: ${words}`)])
    expect(error).toBe('1 of 1 checks failed')
    expect((await said(runsCommand, ['list', '--db', db.url])).error).toContain(words)
  })

  it('tells a database without pgflow from one whose schema pgflow is other software', async () => {
    const elsewhere = db.adminUrl.replace(/\/[^/]*$/, '/elsewhere')
    await admin`create database elsewhere template template0`
    expect((await doctor({}, elsewhere)).out).toEqual([
      expect.stringMatching(/^fix {3}the migrations fit .* has no migrations .*npx pgflow init/),
    ])
    const sql = postgres(elsewhere, { max: 1 })
    await sql`create schema pgflow`
    await sql.end()
    expect((await doctor({}, elsewhere)).out).toEqual([
      expect.stringMatching(/^fix .*other software.*docs\/moving-from-pgflow-core\.md/),
    ])
  })

  it('knows a transaction pooler', async () => {
    expect(await finding('workers are notified of new tasks over this connection')).toMatchObject({
      state: 'ok',
    })
    const { out } = await doctor({}, db.poolerUrl)
    expect(out).toContainEqual(
      expect.stringMatching(/^note {2}workers are notified .*this is a transaction pooler.*port 5432/),
    )
  })

  it('says whether a connection to elsewhere is encrypted', () => {
    expect(encryptionOf('machine', false).state).toBe('ok')
    expect(encryptionOf('network', false).state).toBe('note')
    expect(encryptionOf('internet', false)).toMatchObject({
      state: 'fix',
      advice: 'remove sslmode=disable from the URL',
    })
    expect(encryptionOf('internet', { rejectUnauthorized: false }).problem).toBe(
      'TLS, certificate not verified',
    )
    expect(encryptionOf('internet', { rejectUnauthorized: true }).problem).toBe('TLS, verified')
  })

  it('knows the kinds of keys, and does not show them', () => {
    const jwt = (role: string) => `h.${Buffer.from(JSON.stringify({ role })).toString('base64url')}.s`
    const state = (environment: Record<string, string>) => keysIn(environment)[0]
    expect(keysIn({ PATH: '/bin' })).toEqual([])
    expect(
      state({ SUPABASE_SECRET_KEY: 'sb_secret_x', VITE_SUPABASE_PUBLISHABLE_KEY: 'sb_publishable_y' })?.state,
    ).toBe('ok')
    expect(state({ SUPABASE_SECRET_KEYS: '{"default":"sb_secret_x"}' })?.state).toBe('ok')
    expect(state({ SUPABASE_SERVICE_ROLE_KEY: jwt('service_role') })?.state).toBe('note')
    expect(state({ SUPABASE_SECRET_KEY: 'sb_publishable_x' })).toMatchObject({
      state: 'fix',
      problem: 'SUPABASE_SECRET_KEY holds a publishable key',
    })
    expect(state({ SUPABASE_SERVICE_ROLE_KEY: jwt('anon') })?.state).toBe('fix')
    expect(state({ NEXT_PUBLIC_SUPABASE_KEY: 'sb_secret_x' })?.problem).toMatch(
      /which bundlers put into pages/,
    )
    expect(JSON.stringify(state({ NEXT_PUBLIC_SUPABASE_KEY: 'sb_secret_hidden' }))).not.toContain('hidden')
  })

  it('asks the API of the same project whether the schema is exposed', async () => {
    const { url, secretKey } = db.stack
    const environment = { SUPABASE_URL: url, SUPABASE_SECRET_KEY: secretKey }
    const { out } = await doctor(environment)
    expect(out).toContain(`ok    clients reach pgflow_public at ${url}`)
    expect(out).toContain(`ok    workers with a secret key reach pgflow_worker at ${url}`)
    const apart = await startLocalSupabase({
      schemas: ['public', 'pgflow_public'],
      migrations: [migrations],
      fsync: false,
    })
    onTestFinished(() => apart.stop())
    const narrow = await doctor(
      { SUPABASE_URL: apart.url, SUPABASE_SECRET_KEY: apart.secretKey },
      apart.dbUrl,
    )
    expect(narrow.out).toContainEqual(
      expect.stringMatching(/^note {2}workers with a secret key reach .*not exposed – .* add pgflow_worker/),
    )
    expect((await doctor({ ...environment, SUPABASE_SECRET_KEY: 'sb_secret_wrong' })).out).toContainEqual(
      expect.stringMatching(/^fix {3}clients reach .* – check SUPABASE_URL and the key$/),
    )
    const server = createServer((_, response) =>
      response.writeHead(406).end('{"code":"PGRST106","message":"x"}'),
    ).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const closed = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    expect((await doctor({ ...environment, SUPABASE_URL: closed })).out).toContainEqual(
      expect.stringMatching(/^fix {3}clients reach .*the schema is not exposed – add pgflow_public/),
    )
    const other = { ...environment, SUPABASE_URL: 'https://abcdefghijklmnopqrst.supabase.co' }
    expect((await doctor(other)).out.join()).not.toContain('clients reach')
  })

  it('A port that is not Postgres is named within seconds', async () => {
    const server = createServer((_, response) => response.end()).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const { error } = await doctor({}, `postgresql://me:secret@127.0.0.1:${port}/postgres`)
    expect(error).toContain(
      `the database cannot be reached: 127.0.0.1:${port} is not Postgres: it answered "HTTP/1.1 400`,
    )
  })
})

/** Provokes what a check finds; then its advice, or what is given instead, mends it. */
interface Case {
  readonly title: string
  readonly problem: RegExp
  readonly limits?: object
  provoke(): Promise<unknown>
  /** Without it, the advice is run as SQL. */
  mend?(finding: Finding): Promise<unknown>
}

const cron = `
  create schema cron;
  create table cron.job (jobid bigint generated always as identity, command text, active boolean default true);
  create table cron.job_run_details (jobid bigint, status text, return_message text, start_time timestamptz default now());
  create function cron.schedule(name text, schedule text, command text) returns bigint language sql as
    $$ insert into cron.job (command) values (command) returning jobid $$;
  grant usage on schema cron to postgres;
  grant all on all tables in schema cron to postgres`

const cases: Case[] = [
  {
    title: 'the database exposes pgflow_public',
    problem: /^pgrst\.db_schemas=public, graphql_public$/,
    provoke: () => admin`alter role authenticator set pgrst.db_schemas = 'public, graphql_public'`,
    mend: () => admin`alter role authenticator set pgrst.db_schemas = 'public, pgflow_public'`,
  },
  {
    title: 'clients may listen to their runs',
    problem: /has no policy of pgflow/,
    provoke: () => admin`drop policy pgflow_run_channels on realtime.messages`,
    mend: ({ advice }) => admin.unsafe(advice!),
  },
  {
    title: 'events are broadcast',
    problem: /^there is no Realtime here$/,
    provoke: () => admin`alter table realtime.messages rename to gone`,
    mend: () => admin`alter table realtime.gone rename to messages`,
  },
  {
    title: 'pgmq is installed',
    problem: /^it is not$/,
    provoke: () => admin`update pg_extension set extname = 'gone' where extname = 'pgmq'`,
    mend: () => admin`update pg_extension set extname = 'pgmq' where extname = 'gone'`,
  },
  {
    title: 'each flow has its queue',
    problem: /^no tables for greet: /,
    provoke: () => db.sql`select pgmq.drop_queue('greet')`,
  },
  {
    title: 'each open task has its message',
    problem: /^1 have none/,
    provoke: async () => {
      await db.startRun('greet', 'Ada')
      await db.sql`select pgmq.purge_queue('greet')`
    },
  },
  {
    title: 'each open run has an open task',
    problem: /^1 have none and cannot go on, such as [0-9a-f-]{36}$/,
    provoke: async () => {
      const run_id = await db.startRun('greet', 'Ada')
      await db.sql`delete from pgflow.step_tasks where run_id = ${run_id}`
    },
    mend: ({ advice }) => db.sql.unsafe(advice!.replace(/^[^:]*: /, '')),
  },
  {
    title: 'something ticks',
    problem: /^something is due at 20.*, and there is neither a living worker nor a job of pg_cron$/,
    provoke: () => startWaiting('1 hour'),
    mend: () => endAll(),
  },
  {
    title: 'something ticks',
    problem: /^2 waits, sleeps, deadlines and looks at limits are due since 20.*: nothing settles them$/,
    provoke: async () => {
      await startWaiting('-2 minutes')
      await db.sql`insert into pgflow.alarms (due_at, kind, slot_key) values (now() - interval '2 minutes', 'slot', 'x:')`
    },
    mend: ({ advice }) => db.sql.unsafe(/\$\$(.*)\$\$/.exec(advice!)![1]!),
  },
  {
    title: 'tasks are admitted where slots are free',
    problem: /^1 wait for a slot since 20.* though slots are free, such as one of run [0-9a-f-]{36}$/,
    provoke: async () => {
      await db.sql`select pgflow.register_flow(${db.sql.json({
        flow_slug: 'limited',
        limits: [{ running: 1 }],
        steps: [{ step_slug: 'a' }],
      })})`
      await db.sql`select pgflow.start_flow('limited', '1')`
      await db.sql`delete from pgflow.alarms`
      await db.sql`update pgflow.step_tasks set queued_at = now() - interval '2 hours' where waits_for = 'slot'`
    },
    mend: async ({ advice }) => {
      await db.sql.unsafe(advice!)
      await db.sql`select pgflow.tick()`
    },
  },
  {
    title: 'tasks of workers that died are claimed again',
    problem: /^the leases of 1 are over$/,
    provoke: async () => {
      await claimed()
      await db.sql`update pgmq.q_greet set vt = now() - interval '2 minutes'`
    },
    mend: async () => {
      const flow = new Flow<string>({ slug: 'greet' }).step('text', ({ run }) => run)
      const [open] = await db.sql`select run_id from pgflow.runs where status = 'started'`
      const worker = await startWorker({ connection: db.url, flows: [flow] })
      await db.runEnded(open!.run_id)
      await worker.stop()
    },
  },
  {
    title: 'workers that have not stopped are alive',
    problem: /^1 were last heard from 20.* or before, such as "lost"$/,
    provoke: () => db.sql`
      insert into pgflow.workers (worker_id, name, flow_slugs, started_at, last_heartbeat_at)
      values (gen_random_uuid(), 'lost', '{greet}', now() - interval '2 days', now() - interval '2 days')`,
    mend: () => db.sql`select pgflow.maintain()`,
  },
  {
    title: 'no transaction is open for long',
    problem: /^pid \d+ \(forgotten, idle in transaction\) since /,
    limits: { openTransaction: '0 seconds' },
    provoke: async () => {
      const sql = postgres(db.url, { max: 1, connection: { application_name: 'forgotten' } })
      const began = new Promise<void>((resolve) => {
        sql
          .begin(async (transaction) => {
            await transaction`select 1`
            resolve()
            await new Promise(() => {})
          })
          .catch(() => {})
      })
      await began
    },
    mend: ({ problem }) => db.sql`select pg_terminate_backend(${Number(/\d+/.exec(problem!)![0])}, 5000)`,
  },
  {
    title: 'no unused replication slot holds old rows back',
    problem: /^forgotten \(/,
    provoke: () => admin`select pg_create_physical_replication_slot('forgotten', true)`,
    mend: ({ advice }) => admin.unsafe(/select .*?\)/.exec(advice!.replace('<slot>', 'forgotten'))![0]),
  },
  {
    title: 'archives are pruned',
    problem: /^archives with old messages take \d\.\d MB$/,
    provoke: async () => {
      await db.sql`select pgmq.send('greet', '{}')`
      await db.sql`select pgmq.archive('greet', msg_id) from pgmq.q_greet`
      await db.sql`update pgmq.a_greet set archived_at = now() - interval '9 days'`
    },
    mend: () => db.sql`select pgflow.maintain()`,
  },
  {
    title: 'schedules are started on time',
    problem: /^nothing looks for what is due: no job of pg_cron calls pgflow.maintain, and no worker runs$/,
    provoke: () => db.sql`select pgflow.schedule('nightly', 'greet', '0 3 * * *', '"Ada"')`,
    mend: async () => {
      const flows = [new Flow<string>({ slug: 'greet' }).step('text', ({ run }) => run)]
      const worker = await startWorker({ connection: db.url, flows, log: false })
      onTestFinished(async () => {
        await worker.stop()
        await db.sql`select pgflow.unschedule('nightly')`
      })
    },
  },
  {
    title: 'upkeep is scheduled',
    problem: /^finished runs and archives grow$/,
    provoke: () => admin.unsafe(cron),
    mend: ({ advice }) => admin.unsafe(advice!.replace(/, after create extension pg_cron$/, '')),
  },
  {
    title: 'upkeep runs',
    problem: /^the job 1 failed the last time: no such function$/,
    provoke: () => admin`
      insert into cron.job_run_details (jobid, status, return_message, start_time)
      values (1, 'succeeded', '1 row', now() - interval '1 minute'), (1, 'failed', 'no such function', now())`,
    mend: () =>
      admin`insert into cron.job_run_details (jobid, status, return_message) values (1, 'succeeded', '1 row')`,
  },
  {
    title: 'schedules are started on time',
    problem: /^1 are due, such as "late", the first since 20/,
    provoke: async () => {
      await db.sql`select pgflow.schedule('late', 'greet', '0 3 * * *', '"Ada"')`
      await db.sql`update pgflow.schedules set next_at = now() - interval '1 hour', due_at = now() - interval '1 hour'`
    },
    mend: () => db.sql`select pgflow.maintain()`,
  },
  {
    title: 'Edge Functions can be woken',
    problem: /^pgflow\.wake_worker is scheduled, but the extension pg_net, .* is missing$/,
    provoke: () => admin`select cron.schedule('w', '10 seconds', 'select pgflow.wake_worker()')`,
    mend: () => admin`update cron.job set active = false where command like '%wake_worker%'`,
  },
  {
    title: 'inputs are validated against their schemas',
    problem: /pg_jsonschema is not installed/,
    provoke: () => db.sql`update pgflow.flows set input_schema = '{}'`,
    mend: () => db.sql`update pgflow.flows set input_schema = null`,
  },
]

describe('pgflow doctor finds, and its advice mends', () => {
  it.each(cases)('$title', async ({ title, problem, limits: bounds, provoke, mend }) => {
    expect(await finding(title)).toMatchObject(
      title === 'upkeep is scheduled' ? { state: 'note' } : { state: 'ok' },
    )
    await provoke()
    const found = await finding(title, bounds)
    expect(found.problem).toMatch(problem)
    expect(found.advice).toBeTruthy()
    await (mend === undefined ? db.sql.unsafe(found.advice!) : mend(found))
    expect(await finding(title, bounds)).toMatchObject({ state: 'ok' })
    await endAll()
  })

  it('prepared transactions', async () => {
    const title = 'no prepared transaction holds old rows back'
    await admin`alter system set max_prepared_transactions = 2`
    await db.stack.postgres.restart()
    const sql = postgres(db.url, { max: 1 })
    onTestFinished(() => sql.end())
    await sql.unsafe(`begin; create table public.t (n int); prepare transaction 'forgotten'`)
    const found = await finding(title, { openTransaction: '0 seconds' })
    expect(found.problem).toMatch(/^forgotten since 20/)
    await sql.unsafe(found.advice!.replace('<name>', 'forgotten').replace(/, or .*/, ''))
    expect((await finding(title, { openTransaction: '0 seconds' })).state).toBe('ok')
  })
})
