import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { type LocalSupabase, startLocalSupabase } from '../stack.ts'
import { sql } from '../testing/sql.ts'

let stack: LocalSupabase
let anon: SupabaseClient<any, any, any>
let service: SupabaseClient<any, any, any>

beforeAll(async () => {
  stack = await startLocalSupabase({ schemas: ['public', 'api'], fsync: false })
  await sql(stack.dbUrl, FIXTURES)
  anon = clientWith(stack.publishableKey)
  service = clientWith(stack.secretKey)
})
afterAll(() => stack?.stop())

const FIXTURES = `
  create schema api;
  grant usage on schema api to anon, authenticated, service_role;
  create function api.where_am_i() returns text language sql stable as $$ select current_setting('search_path') $$;

  create table items (id int primary key, name text not null);
  insert into items values (1, 'one'), (2, 'two');

  create function add(a int, b int default 10) returns int language sql immutable as $$ select a + b $$;
  create function echo(value jsonb) returns jsonb language sql immutable as $$ select value $$;
  create function echo_json(value json) returns json language sql immutable as $$ select value $$;
  create function whole(jsonb) returns jsonb language sql immutable as $$ select $1 $$;
  create function optional(value jsonb default '"missing"') returns text language sql immutable
    as $$ select coalesce(value::text, 'SQL NULL') $$;
  create function total(variadic numbers int[]) returns bigint language sql immutable
    as $$ select sum(n) from unnest(numbers) as n $$;
  create function overloaded(a int) returns text language sql as $$ select 'a' $$;
  create function overloaded(a int, b int) returns text language sql as $$ select 'a and b' $$;
  create function ambiguous(a int) returns text language sql as $$ select 'int' $$;
  create function ambiguous(a text) returns text language sql as $$ select 'text' $$;
  create function list_items() returns setof items language sql stable as $$ select * from items order by id $$;
  create function one_column() returns table (id int) language sql stable as $$ select id from items order by id $$;
  create function names() returns setof text language sql stable as $$ select name from items order by id $$;
  create function get_item(id int) returns items language sql stable
    as $$ select * from items where items.id = get_item.id $$;
  create function out_values(out x int, out y text) language sql stable as $$ select 1, 'one' $$;
  create function add_item(id int, name text) returns void language sql
    as $$ insert into items values (id, name) $$;
  create function nothing() returns int language sql as $$ select null::int $$;
  create function whoami() returns jsonb language sql stable as $$
    select jsonb_build_object(
      'current_user', current_user, 'role', auth.role(), 'uid', auth.uid(), 'claims', auth.jwt(),
      'method', current_setting('request.method'), 'path', current_setting('request.path'),
      'header', current_setting('request.headers')::json ->> 'x-test',
      'timeout', current_setting('statement_timeout'), 'read_only', current_setting('transaction_read_only')
    )
  $$;
  create function raise_error(code text) returns void language plpgsql as $$
    begin raise exception 'what' using errcode = code, detail = 'why', hint = 'how'; end
  $$;
  create function raise_response() returns void language plpgsql as $$
    begin
      raise sqlstate 'PGRST' using
        message = '{"code": "TEA", "message": "short and stout"}',
        detail = '{"status": 418, "headers": {"x-pot": "tea"}}';
    end
  $$;
  create function loop_forever() returns void language plpgsql as $$ begin loop end loop; end $$;
  create function forbidden() returns int language sql as $$ select 1 $$;
  revoke execute on function forbidden from public, anon, authenticated;
`

function clientWith(key: string, token?: string): SupabaseClient<any, any, any> {
  return createClient(stack.url, key, {
    realtime: { transport: WebSocket as any },
    auth: { persistSession: false },
    ...(token && { accessToken: async () => token }),
  })
}

/** The raw answer, for what supabase-js hides. */
function post(fn: string, body: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${stack.url}/rest/v1/rpc/${fn}`, {
    method: 'POST',
    body,
    headers: { apikey: stack.publishableKey, 'content-type': 'application/json', ...headers },
  })
}

describe('arguments', () => {
  test('go by name, and may be left out where they have defaults', async () => {
    expect(await anon.rpc('add', { a: 1, b: 2 })).toMatchObject({ data: 3, status: 200, error: null })
    expect((await anon.rpc('add', { a: 1 })).data).toBe(11)
    expect((await anon.rpc('add', { a: 1 }, { get: true })).data).toBe(11)
  })

  test('select the overload', async () => {
    expect((await anon.rpc('overloaded', { a: 1 })).data).toBe('a')
    expect((await anon.rpc('overloaded', { a: 1, b: 2 })).data).toBe('a and b')
  })

  test('that fit several functions are refused', async () => {
    const { status, error } = await anon.rpc('ambiguous', { a: 1 })
    expect(status).toBe(300)
    expect(error!.code).toBe('PGRST203')
  })

  test('may be variadic', async () => {
    expect((await anon.rpc('total', { numbers: [1, 2, 3] })).data).toBe(6)
  })

  test.each(['echo', 'echo_json'])('pass %s unharmed', async (fn) => {
    const value = '{"big":9007199254740993,"list":[null,false,0,""],"text":"ä\\n\\"🎈","exact":1.10}'
    const text = await (await post(fn, `{"value":${value}}`)).text()
    expect(text.replaceAll(' ', '')).toBe(value)
  })

  test('fill a single unnamed parameter with the whole body, whatever JSON it is', async () => {
    for (const body of ['[1,2]', '{"a":1}', '"text"', '7', 'null', 'false']) {
      expect(JSON.parse(await (await post('whole', body)).text())).toEqual(JSON.parse(body))
    }
  })

  test('tell null from missing', async () => {
    expect((await anon.rpc('optional', { value: null })).data).toBe('SQL NULL')
    expect((await anon.rpc('optional')).data).toBe('"missing"')
  })

  test('of the wrong type are the database’s error', async () => {
    expect(await anon.rpc('add', { a: 'x' })).toMatchObject({ status: 400, error: { code: '22P02' } })
  })
})

describe('results', () => {
  test('are scalars, rows, or arrays of them', async () => {
    const items = [
      { id: 1, name: 'one' },
      { id: 2, name: 'two' },
    ]
    expect((await anon.rpc('list_items')).data).toEqual(items)
    expect((await anon.rpc('get_item', { id: 2 })).data).toEqual(items[1])
    expect((await anon.rpc('one_column')).data).toEqual([{ id: 1 }, { id: 2 }])
    expect((await anon.rpc('names')).data).toEqual(['one', 'two'])
    expect((await anon.rpc('out_values')).data).toEqual({ x: 1, y: 'one' })
    expect((await anon.rpc('nothing')).data).toBeNull()
  })

  test('are no content for a function that returns nothing', async () => {
    expect(await anon.rpc('add_item', { id: 3, name: 'three' })).toMatchObject({ status: 204, data: null })
    expect((await anon.rpc('list_items')).data).toHaveLength(3)
    await sql(stack.dbUrl, 'delete from items where id = 3')
  })

  test('are one object where the caller asks for one', async () => {
    expect(await anon.rpc('list_items').single()).toMatchObject({ status: 406, error: { code: 'PGRST116' } })
    expect((await anon.rpc('get_item', { id: 1 }).single()).data).toEqual({ id: 1, name: 'one' })
    await sql(
      stack.dbUrl,
      'create function first() returns setof items language sql as $$ select * from items limit 1 $$',
    )
    expect((await anon.rpc('first').single()).data).toEqual({ id: 1, name: 'one' })
  })
})

describe('the transaction', () => {
  test('knows who asks, and what', async () => {
    const { data } = await anon.rpc('whoami').setHeader('x-test', 'yes')
    expect(data).toEqual({
      current_user: 'anon',
      role: 'anon',
      uid: null,
      claims: { role: 'anon' },
      method: 'POST',
      path: '/rpc/whoami',
      header: 'yes',
      timeout: '3s',
      read_only: 'on',
    })
  })

  test('has the role of the key, or of the user’s token', async () => {
    const sub = crypto.randomUUID()
    const user = clientWith(stack.publishableKey, await stack.signToken({ sub }))
    const roles = async (client: typeof anon) => (await client.rpc('whoami')).data
    expect(await roles(service)).toMatchObject({ current_user: 'service_role', timeout: '8s' })
    expect(await roles(clientWith(stack.anonKey))).toMatchObject({ current_user: 'anon' })
    expect(await roles(clientWith(stack.serviceRoleKey))).toMatchObject({ current_user: 'service_role' })
    expect(await roles(user)).toMatchObject({ current_user: 'authenticated', uid: sub, timeout: '8s' })
  })

  test('is in the schema that the request names', async () => {
    expect((await anon.schema('api').rpc('where_am_i')).data).toBe('"api", "public", "extensions"')
    expect((await anon.schema('api').rpc('where_am_i', {}, { get: true })).status).toBe(200)
    expect(await anon.schema('auth').rpc('uid')).toMatchObject({ status: 406, error: { code: 'PGRST106' } })
  })

  test('of a GET cannot write', async () => {
    const { status, error } = await anon.rpc('add_item', { id: 9, name: 'nine' }, { get: true })
    expect(status).toBe(405)
    expect(error!.code).toBe('25006')
  })

  test('leaves nothing on the connection', async () => {
    const tokens = await Promise.all([1, 2, 3].map(() => stack.signToken({ sub: crypto.randomUUID() })))
    await Promise.all(tokens.map((token) => clientWith(stack.publishableKey, token).rpc('whoami')))
    const all = await Promise.all(Array.from({ length: 20 }, () => anon.rpc('whoami')))
    expect(all.every(({ data }) => data.uid === null && data.current_user === 'anon')).toBe(true)
  })
})

describe('errors', () => {
  test('of unknown functions name what was looked for', async () => {
    expect(await anon.rpc('ad', { a: 1, z: 2 })).toMatchObject({
      status: 404,
      error: { code: 'PGRST202', message: 'Could not find the function public.ad(a, z) in the schema cache' },
    })
    const { error } = await anon.rpc('add', { z: 2 })
    expect(error!.hint).toBe('Perhaps you meant to call the function public.add(a, b)')
  })

  test.each([
    ['P0001', 400],
    ['22023', 400],
    ['23505', 409],
    ['23503', 409],
    ['40001', 500],
    ['42501', 401],
    ['53300', 503],
    ['57014', 500],
    ['PT402', 402],
    ['PF001', 400],
    ['XX000', 500],
  ])('raised as %s have status %i', async (code, status) => {
    const answer = await anon.rpc('raise_error', { code })
    expect(answer.status).toBe(status)
    expect(answer.error).toMatchObject({ code, message: 'what', details: 'why', hint: 'how' })
  })

  test('may be a whole response', async () => {
    const answer = await post('raise_response', '{}')
    expect([answer.status, answer.headers.get('x-pot')]).toEqual([418, 'tea'])
    expect(await answer.json()).toEqual({
      code: 'TEA',
      message: 'short and stout',
      details: null,
      hint: null,
    })
  })

  test('of privileges ask a stranger to sign in, and refuse a user', async () => {
    const user = clientWith(stack.publishableKey, await stack.signToken({ sub: crypto.randomUUID() }))
    expect(await anon.rpc('forbidden')).toMatchObject({ status: 401, error: { code: '42501' } })
    expect(await user.rpc('forbidden')).toMatchObject({ status: 403, error: { code: '42501' } })
    expect((await service.rpc('forbidden')).data).toBe(1)
  })

  test('end what takes too long', async () => {
    await sql(stack.adminDbUrl, `alter role anon set statement_timeout = '100ms'`)
    expect(await anon.rpc('loop_forever')).toMatchObject({ status: 500, error: { code: '57014' } })
    await sql(stack.adminDbUrl, `alter role anon set statement_timeout = '3s'`)
  })

  test('of the body are told apart from those of the function', async () => {
    for (const body of ['{', '{"a":1,}', 'nonsense']) {
      const answer = await post('add', body)
      expect(answer.status).toBe(400)
      expect(await answer.json()).toMatchObject({ code: 'PGRST102', message: 'Empty or invalid json' })
    }
    expect(await (await post('echo', '{"value":"\\u0000"}')).json()).toMatchObject({ code: '22P05' })
  })

  test('of size come as an answer', async () => {
    const answer = await post('echo', `{"value":"${'x'.repeat(100 * 1024 * 1024)}"}`)
    expect(answer.status).toBe(413)
    expect(await answer.json()).toMatchObject({ message: 'The request body exceeds 100 MB.' })
  })

  test('of tables say that there are only functions', async () => {
    expect(await anon.from('items').select()).toMatchObject({
      status: 501,
      error: { message: 'The local stack serves functions only, not tables.' },
    })
    expect(await anon.rpc('list_items').limit(1)).toMatchObject({ status: 501 })
  })

  test('never show a stack trace, whatever the path', async () => {
    for (const path of [
      '/',
      '/rest/v1',
      '/rest/v1/',
      '/rest/v1/rpc/%zz',
      '/rest/v1/rpc/a%00b',
      '/storage/v1',
      '//',
    ]) {
      const answer = await fetch(`${stack.url}${path}`, { headers: { apikey: stack.anonKey } })
      expect([400, 404, 501]).toContain(answer.status)
      expect(await answer.text()).not.toMatch(/\.ts:|node_modules/)
    }
  })
})

describe('tokens', () => {
  const refusals: [string, () => Promise<string>, string, string][] = [
    [
      'expired',
      () => stack.signToken({ exp: Math.floor(Date.now() / 1000) - 60 }),
      'PGRST303',
      'JWT expired',
    ],
    ['malformed', async () => 'nonsense', 'PGRST301', 'The token provided is not a valid JWT'],
    ['foreign', async () => FOREIGN, 'PGRST301', 'No suitable key or wrong key type'],
  ]
  const FOREIGN =
    'eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'

  test.each(refusals)('that are %s are refused', async (_, token, code, message) => {
    const answer = await post('whoami', '{}', { authorization: `Bearer ${await token()}` })
    expect(answer.status).toBe(401)
    expect(await answer.json()).toEqual({ code, message, details: null, hint: null })
    expect(answer.headers.get('www-authenticate')).toBe(
      `Bearer error="invalid_token", error_description="${message}"`,
    )
  })

  test('with an unknown role are refused', async () => {
    const client = clientWith(stack.publishableKey, await stack.signToken({ role: 'nobody_knows' }))
    expect(await client.rpc('whoami')).toMatchObject({ status: 401, error: { code: '22023' } })
  })

  test('with a role that is not for requests are refused', async () => {
    const client = clientWith(stack.publishableKey, await stack.signToken({ role: 'supabase_admin' }))
    expect(await client.rpc('whoami')).toMatchObject({ status: 403, error: { code: '42501' } })
  })

  test('are not asked for, but a key is', async () => {
    const none = await fetch(`${stack.url}/rest/v1/rpc/whoami`, { method: 'POST' })
    expect([none.status, (await none.json()).message]).toEqual([401, 'No API key found in request'])
    const wrong = await post('whoami', '{}', { apikey: 'sb_secret_guess' })
    expect([wrong.status, (await wrong.json()).message]).toEqual([401, 'Invalid API key'])
  })
})

describe('browsers', () => {
  test('may call from any origin', async () => {
    const answer = await fetch(`${stack.url}/rest/v1/rpc/whoami`, {
      method: 'OPTIONS',
      headers: { 'access-control-request-headers': 'apikey,content-profile,x-client-info' },
    })
    expect(answer.status).toBe(204)
    expect(answer.headers.get('access-control-allow-origin')).toBe('*')
    expect(answer.headers.get('access-control-allow-headers')).toBe('apikey,content-profile,x-client-info')
    expect((await post('whoami', '{}')).headers.get('access-control-allow-origin')).toBe('*')
  })
})

describe('a database that is away', () => {
  test('is a 503, and comes back', async () => {
    await stack.postgres.kill()
    expect(await anon.rpc('add', { a: 1 })).toMatchObject({ status: 503, error: { code: 'PGRST001' } })
    await stack.postgres.start()
    expect((await anon.rpc('add', { a: 1 })).data).toBe(11)
  })
})
