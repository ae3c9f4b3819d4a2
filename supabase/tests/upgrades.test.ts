import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { currentVersion, installSql, uninstallSql, upgradeSql } from '../../sdk/src/cli/migration-sql.ts'

const read = (path: string) => readFileSync(fileURLToPath(new URL(path, import.meta.url)), 'utf8')
const catalogQuery = read('testing/catalog.sql')

let stack: LocalSupabase
let admin: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({ fsync: false })
  admin = postgres(stack.adminDbUrl, { max: 1, onnotice: () => undefined })
  // A project lets the role postgres create policies on realtime.messages.
  await admin`grant supabase_realtime_admin to postgres`
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => undefined })
  await sql`create extension pgmq`
  await sql.end()
})

afterAll(async () => {
  await admin?.end()
  await stack?.stop()
})

/** Works in a transaction as the role postgres, which is rolled back. */
async function inTransaction<Result>(work: (sql: Sql) => Promise<Result>): Promise<Result> {
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => undefined })
  try {
    await sql`begin`
    return await work(sql)
  } finally {
    await sql.end({ timeout: 0 })
  }
}

/** What the database holds, by the names of the objects. */
async function catalog(sql: Sql): Promise<Record<string, string>> {
  const rows = await sql.unsafe<{ name: string; definition: string }[]>(catalogQuery)
  expect(new Set(rows.map(({ name }) => name)).size).toBe(rows.length)
  return Object.fromEntries(rows.map(({ name, definition }) => [name, definition]))
}

/** What a fresh database holds after some SQL. */
async function catalogAfter(...statements: string[]): Promise<Record<string, string>> {
  return inTransaction(async (sql) => {
    for (const statement of statements) await sql.unsafe(statement)
    return catalog(sql)
  })
}

/** How the version was installed, as it was released. */
function installed(version: number): string {
  return read(`versions/${version}.sql`)
}

test('A catalog sees what differs', async () => {
  const changes = [
    'alter table pgflow.runs alter column depth set default 1',
    'alter table pgflow.runs add check (depth < 7)',
    'comment on table pgflow.runs is null',
    'grant select on pgflow.runs to anon',
    'alter function pgflow.now() set jit = off',
    'alter view pgflow.step_options reset (security_invoker)',
    'alter policy own_runs on pgflow.runs using (false)',
    'alter table pgflow.runs disable trigger "~plans"',
    'drop index pgflow.runs_by_owner',
    'alter table pgflow.runs set (fillfactor = 60)',
    'alter type pgflow.message add attribute n int',
  ]
  await inTransaction(async (sql) => {
    await sql.unsafe(await installSql())
    const before = await catalog(sql)
    for (const change of changes) {
      await sql.unsafe(`savepoint before; ${change}`)
      expect(await catalog(sql), change).not.toEqual(before)
      await sql`rollback to before`
    }
  })
})

/** Versions that `npm run freeze` has kept as they were released. */
const frozen = readdirSync(new URL('versions', import.meta.url)).map((name) => Number.parseInt(name, 10))

describe('A released version', () => {
  test('is kept, whatever it was', () => {
    const released = Array.from({ length: currentVersion - 1 }, (_, index) => index + 1)
    expect(frozen).toEqual(expect.arrayContaining(released))
  })

  test('does not change: count schema_version up', async () => {
    if (!frozen.includes(currentVersion)) return
    expect(await catalogAfter(await installSql())).toEqual(await catalogAfter(installed(currentVersion)))
  })
})

describe('An upgrade leaves what a fresh install has', () => {
  test.each(frozen)('from version %i', async (version) => {
    const fresh = await catalogAfter(await installSql())
    const upgraded = await catalogAfter(installed(version), await upgradeSql(version))
    expect(upgraded).toEqual(fresh)
    const twice = await catalogAfter(installed(version), await upgradeSql(version), await upgradeSql(version))
    expect(twice).toEqual(fresh)
  })

  test('from the current version, whose replaceable parts run again', async () => {
    const fresh = await catalogAfter(await installSql())
    expect(await catalogAfter(await installSql(), await upgradeSql(currentVersion))).toEqual(fresh)
  })
})

describe('An upgrade keeps', () => {
  test('the rules that a project has replaced, its grants and its runs', () =>
    inTransaction(async (sql) => {
      const rule = `create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
        returns boolean language sql stable set search_path = pg_catalog, pg_temp as 'select true'`
      await sql.unsafe(installed(1))
      await sql.unsafe(`${rule}; grant select on pgflow.runs to authenticated;
        grant execute on function pgflow.prune_runs to service_role;
        select pgflow.create_flow('f'), pgflow.add_step('f', 'a'); select pgflow.start_flow('f', '1')`)
      await sql.unsafe(await upgradeSql(1))
      const [kept] = await sql`
        select pgflow.schema_version() as version, pgflow.can_access_run(null, null, null, 'view') as rule,
               has_table_privilege('authenticated', 'pgflow.runs', 'select') as may_read,
               has_function_privilege('service_role', 'pgflow.prune_runs(interval, int)', 'execute') as may_prune,
               has_function_privilege('anon', 'pgflow_worker.hand_back(jsonb)', 'execute') as is_open,
               (select count(*)::int from pgflow.runs) as runs`
      expect(kept).toEqual({
        ...{ version: currentVersion, rule: true, may_read: true, may_prune: true, is_open: false, runs: 1 },
      })
    }))
})

describe('An upgrade refuses', () => {
  const refusal = (work: Promise<unknown>) =>
    work.then(
      () => undefined,
      ({ code, message, detail, hint }) => ({ code, message, detail, hint }),
    )

  test('a version that there is not', async () => {
    await expect(upgradeSql(0)).rejects.toThrow('There is no upgrade from version 0')
    await expect(upgradeSql(currentVersion + 1)).rejects.toThrow(RangeError)
  })

  test('a database without pgflow', () =>
    inTransaction(async (sql) => {
      expect(await refusal(sql.unsafe(await upgradeSql(1)))).toMatchObject({
        ...{ code: 'PT404', hint: 'To install it, run: npx pgflow init' },
      })
    }))

  test('a newer version', () =>
    inTransaction(async (sql) => {
      await sql.unsafe(`${await installSql()};
        create or replace function pgflow.schema_version() returns int language sql as 'select 99'`)
      expect(await refusal(sql.unsafe(await upgradeSql(1)))).toMatchObject({
        ...{ code: 'PT409', message: expect.stringContaining('this database has version 99') },
      })
    }))

  test('to run outside a transaction', async () => {
    const [first, ...others] = (await upgradeSql(1)).split(/(?<=;\n)\n/)
    await admin.unsafe(first!)
    expect(await refusal(admin.unsafe(others.join('\n')))).toMatchObject({
      ...{ code: 'PT400', hint: expect.stringContaining('--single-transaction') },
    })
  })
})

describe('An install refuses', () => {
  test('a database that has pgflow', () =>
    inTransaction(async (sql) => {
      await sql.unsafe(await installSql())
      await expect(sql.unsafe(await installSql())).rejects.toMatchObject({
        ...{ code: 'PT409', message: expect.stringMatching(/already installed .+ version 5/) },
        ...{ hint: expect.stringContaining('npx pgflow upgrade') },
      })
    }))

  test('a database whose schema pgflow is that of other software', () =>
    inTransaction(async (sql) => {
      await sql.unsafe('create schema pgflow; create table pgflow.step_states (run_id uuid)')
      await expect(sql.unsafe(await installSql())).rejects.toMatchObject({
        ...{ code: 'PT409', message: expect.stringContaining('a schema "pgflow" already') },
        ...{ detail: expect.stringContaining('@pgflow/core') },
        ...{ hint: expect.stringContaining('docs/moving-from-pgflow-core.md') },
      })
    }))
})

describe('An uninstall', () => {
  /** What stands for pg_cron, which is not there. */
  const cron = `
    create schema cron;
    create table cron.job (jobid bigint, command text);
    create function cron.unschedule(job_id bigint) returns boolean language sql as
      'delete from cron.job where jobid = job_id returning true';
    insert into cron.job values (1, 'select pgflow.maintain()'), (2, 'call vacuum_pgflow()'), (3, $$ select pgflow_public.list_runs() $$)`
  const runs = `
    select pgflow.create_flow('f'), pgflow.add_step('f', 'a'); select pgflow.create_flow('Lost'), pgflow.add_step('Lost', 'a');
    select count(*) from pgflow.start_flows('f', '[1, 2, 3]'); select count(*) from pgflow.claim_tasks('{f}', 2, null);
    drop table pgmq.a_f`
  const leftQueues = (sql: Sql) => sql`select queue_name from pgmq.meta`.values()

  test.each([
    ['with all its parts', '', true],
    [
      'without the version',
      'drop function pgflow.schema_version cascade; drop schema pgflow_worker cascade',
      true,
    ],
    // Nothing says then which queues were its own.
    ['without its tables', 'drop schema pgflow cascade', false],
    ['without pgmq', 'drop extension pgmq cascade; drop schema if exists pgmq cascade', false],
  ])('%s leaves what was there before the install', (_, damage, isAll) =>
    inTransaction(async (sql) => {
      await sql.unsafe(cron)
      const before = await catalog(sql)
      await sql.unsafe(`${await installSql()};${runs};${damage}`)
      await sql.unsafe(await uninstallSql())
      const after = await catalog(sql)
      if (isAll) expect(after).toEqual(before)
      if (isAll) expect(await leftQueues(sql)).toEqual([])
      expect(Object.keys(after).filter((name) => /pgflow/.test(name))).toEqual([])
      expect(await sql`select jobid::int from cron.job`.values()).toEqual([[2]])
      await sql.unsafe(await installSql())
    }),
  )

  test('of a database without pgflow changes nothing, and so does a second one', async () => {
    expect(await catalogAfter(await uninstallSql())).toEqual(await catalogAfter())
    expect(await catalogAfter(await installSql(), await uninstallSql(), await uninstallSql())).toEqual(
      await catalogAfter(),
    )
  })

  test('leaves the schema of other software alone', () =>
    inTransaction(async (sql) => {
      await sql.unsafe('create schema pgflow; create table pgflow.step_states (run_id uuid)')
      await expect(sql.unsafe(await uninstallSql())).rejects.toMatchObject({ code: 'PT409' })
    }))
})
