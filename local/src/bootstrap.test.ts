import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LocalSupabase, startLocalSupabase } from './stack.ts'
import { sql } from './testing/sql.ts'

let stack: LocalSupabase
let folder: string

const FIRST = `
  create extension if not exists pgmq;
  select pgmq.create('jobs');
  create table public.notes (id int primary key, owner_id uuid references auth.users (id));
  create policy reads on realtime.messages for select to authenticated using (realtime.topic() = 'open');
  create function public.announce(topic text) returns void language sql security definer set search_path = '' as $$
    insert into realtime.messages (topic, event, payload, private, extension)
    values (announce.topic, 'said', '{}', true, 'broadcast')
  $$;
  create function public.insert_as_caller() returns void language sql as $$
    insert into realtime.messages (topic, event, payload, private, extension)
    values ('open', 'said', '{}', true, 'broadcast')
  $$;`

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'migrations-'))
  await writeFile(join(folder, '20260101000000_first.sql'), FIRST)
  stack = await startLocalSupabase({ migrations: [folder], fsync: false })
})
afterAll(async () => {
  await stack?.stop()
  await rm(folder, { recursive: true })
})

const asOwner = (text: string) => sql(stack.dbUrl, text)
/** Runs statements as another role, in a transaction that is rolled back. */
const as = (role: string, text: string) => sql(stack.adminDbUrl, `begin; set local role ${role}; ${text}`)

async function code(result: Promise<unknown>): Promise<string | undefined> {
  const error = await result.catch((error: unknown) => error)
  return error instanceof pg.DatabaseError ? error.code : undefined
}

describe('the role postgres', () => {
  test('is what it is on the platform: not a superuser', async () => {
    const [role] = await asOwner(`
      select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication from pg_roles
      where rolname = current_user`)
    expect(role).toEqual({
      rolsuper: false,
      rolbypassrls: true,
      rolcreaterole: true,
      rolcreatedb: true,
      rolreplication: true,
    })
  })

  test('is no member of the owner of realtime.messages once migrations have run', async () => {
    const [row] = await asOwner(
      `select pg_has_role('postgres', 'supabase_realtime_admin', 'member') as is_member`,
    )
    expect(row).toEqual({ is_member: false })
    const policy = 'create policy another on realtime.messages for select using (true)'
    expect(await code(asOwner(policy))).toBe('42501')
    expect(await code(asOwner('alter table realtime.messages add column extra text'))).toBe('42501')
    expect(await code(asOwner('create table realtime.extra ()'))).toBe('42501')
  })

  test('inserts into realtime.messages', async () => {
    await asOwner(`insert into realtime.messages (topic, event, payload, private, extension)
      values ('direct', 'said', '{}', true, 'broadcast')`)
    expect(await asOwner(`select count(*)::int from realtime.messages where topic = 'direct'`)).toEqual([
      { count: 1 },
    ])
  })

  test('owns and uses pgmq', async () => {
    const rows = await asOwner(`
      select
        (select extowner::regrole::text from pg_extension where extname = 'pgmq') as owner,
        pgmq.send('jobs', '{"n": 1}') as id`)
    expect(rows).toEqual([{ owner: 'postgres', id: '1' }])
    expect(await asOwner(`select message from pgmq.read('jobs', 30, 1)`)).toEqual([{ message: { n: 1 } }])
    expect(await asOwner(`select pgmq.archive('jobs', 1)`)).toEqual([{ archive: true }])
  })

  test('creates pgTAP', async () => {
    await asOwner('create extension pgtap with schema extensions')
    expect(await asOwner('select extensions.plan(1)')).toEqual([{ plan: '1..1' }])
  })
})

describe('row level security of realtime.messages', () => {
  test('is passed by a definer function of postgres, whoever calls it', async () => {
    const insert = `select public.announce('open'); select count(*)::int from realtime.messages where topic = 'open'`
    expect(await as('service_role', insert)).toEqual([{ count: 1 }])
    const read = `select public.announce('open'); set local realtime.topic = 'open'; select count(*)::int from realtime.messages`
    expect(await as('authenticated', `${read} where topic = 'open'`)).toEqual([{ count: 1 }])
  })

  test('refuses what a client inserts', async () => {
    for (const role of ['anon', 'authenticated']) {
      expect(await code(as(role, 'select public.insert_as_caller()'))).toBe('42501')
    }
    expect(await code(as('service_role', 'select public.insert_as_caller()'))).toBeUndefined()
  })

  test('shows rows to whom a policy lets see them', async () => {
    const read = `select public.announce('hidden'); set local realtime.topic = 'closed'; select * from realtime.messages`
    expect(await as('authenticated', read)).toEqual([])
    expect(await as('anon', read)).toEqual([])
  })
})

describe('realtime.send', () => {
  const sent = async (payload: string) => {
    const text = `begin; select realtime.send(${payload}, 'event', 'topic', true);
      select id, payload, realtime.topic() as topic from realtime.messages where topic = 'topic'`
    return (await asOwner(text))[0]
  }

  test('adds the id of the row to the payload, unless it has one', async () => {
    const row = await sent(`'{"a": 1}'`)
    expect(row).toMatchObject({ payload: { a: 1, id: row.id }, topic: 'topic' })
    expect((await sent(`'{"id": 7}'`)).payload).toEqual({ id: 7 })
  })

  test('warns and goes on when it cannot', async () => {
    const client = new pg.Client(stack.dbUrl)
    await client.connect()
    const warnings: unknown[] = []
    client.on('notice', ({ message }) => warnings.push(message))
    await client.query(`select realtime.send('[1]', 'event', 'topic')`)
    await client.query(`select realtime.send('7', 'event', 'topic')`)
    await client.query(`select realtime.send(null, 'event', 'null payload')`)
    await client.end()
    expect(warnings).toEqual([
      'WarnSendingBroadcastMessage: path element at position 1 is not an integer: "id"',
      'WarnSendingBroadcastMessage: cannot set path in scalar',
    ])
    expect(await asOwner(`select payload from realtime.messages where topic = 'null payload'`)).toEqual([
      { payload: null },
    ])
  })
})

test('broadcast_changes sends the row before and after', async () => {
  await asOwner(`
    create table rows (n int);
    create function tell() returns trigger language plpgsql as $$
      begin
        perform realtime.broadcast_changes('changes', tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
        return null;
      end
    $$;
    create trigger tell after update on rows for each row execute function tell();
    insert into rows values (1);
    update rows set n = 2`)
  const [row] = await asOwner(`select event, payload from realtime.messages where topic = 'changes'`)
  expect(row).toMatchObject({
    event: 'UPDATE',
    payload: { operation: 'UPDATE', table: 'rows', schema: 'public', record: { n: 2 }, old_record: { n: 1 } },
  })
})

test('messages have partitions from yesterday to three days from now, with the grants of the platform', async () => {
  const rows = await asOwner(`
    select c.relname, c.relowner::regrole::text as owner, c.relrowsecurity,
      has_table_privilege('authenticated', c.oid, 'insert') as for_users,
      has_table_privilege('postgres', c.oid, 'insert') as for_postgres
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'realtime.messages'::regclass order by 1`)
  const expected = [-1, 0, 1, 2, 3].map((days) => {
    const day = new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10)
    return {
      relname: `messages_${day.replaceAll('-', '_')}`,
      owner: 'supabase_realtime_admin',
      relrowsecurity: false,
      for_users: false,
      for_postgres: true,
    }
  })
  expect(rows).toEqual(expected)
})

test('who a request comes from is read from its claims', async () => {
  const claims = `select set_config('request.jwt.claims', '{"sub": "7ad6f0a8-6a9b-4d8e-8d5c-000000000001", "role": "authenticated", "email": "a@b.c"}', true);`
  const read = 'select auth.uid() as uid, auth.role() as role, auth.email() as email, auth.jwt() as jwt'
  const [row] = await as('authenticated', `${claims} ${read}`)
  expect(row).toMatchObject({ role: 'authenticated', email: 'a@b.c', jwt: { email: 'a@b.c' } })
  expect(row.uid).toBe('7ad6f0a8-6a9b-4d8e-8d5c-000000000001')
  expect(await as('anon', read)).toEqual([{ uid: null, role: null, email: null, jwt: null }])
})

test('what postgres creates in public is granted to the API roles', async () => {
  for (const role of ['anon', 'authenticated', 'service_role']) {
    expect(await as(role, 'select count(*)::int from public.notes')).toEqual([{ count: 0 }])
    expect(await code(as(role, 'select * from auth.users'))).toBe('42501')
  }
})

describe('migrate', () => {
  test('names file and line of what failed, keeps nothing of it, and can be tried again', async () => {
    const next = join(folder, '20260102000000_next.sql')
    await writeFile(next, 'create table half ();\ncreate table nonsense (;')
    await expect(stack.migrate(folder)).rejects.toThrow(
      'The migration 20260102000000_next.sql failed in line 2: syntax error at or near ";"',
    )
    expect(await asOwner(`select to_regclass('public.half') as half`)).toEqual([{ half: null }])
    await writeFile(next, 'create table whole ();')
    expect(await stack.migrate(folder)).toEqual(['20260102000000_next.sql'])
    expect(await stack.migrate(folder)).toEqual([])
    const history = await asOwner(
      'select version, name from supabase_migrations.schema_migrations order by 1',
    )
    expect(history).toEqual([
      { version: '20260101000000', name: 'first' },
      { version: '20260102000000', name: 'next' },
    ])
  })

  test('fails where the platform would: nothing may be created in the schema realtime', async () => {
    const other = await mkdtemp(join(tmpdir(), 'migrations-'))
    await writeFile(
      join(other, '20260103000000_bad.sql'),
      'create function realtime.f() returns int return 1;',
    )
    await expect(stack.migrate(other)).rejects.toThrow('permission denied for schema realtime')
    await rm(other, { recursive: true })
    await expect(stack.migrate(other)).rejects.toThrow(`There is no folder of migrations at ${other}.`)
  })
})
