import { createClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { type LocalSupabase, startLocalSupabase } from '../stack.ts'
import { sql } from '../testing/sql.ts'

let stack: LocalSupabase

beforeAll(async () => {
  stack = await startLocalSupabase({ fsync: false })
  await sql(stack.dbUrl, 'create function me() returns uuid language sql stable as $$ select auth.uid() $$')
})
afterAll(() => stack?.stop())

const newClient = () =>
  createClient(stack.url, stack.publishableKey, {
    realtime: { transport: WebSocket as any },
    auth: { persistSession: false, autoRefreshToken: false },
  })

const count = async (table: string) =>
  (await sql(stack.dbUrl, `select count(*)::int as n from ${table}`))[0].n

describe('anonymous sign-in', () => {
  test('makes a user who then makes requests', async () => {
    const client = newClient()
    const { data, error } = await client.auth.signInAnonymously({ options: { data: { name: 'Ann' } } })
    expect(error).toBeNull()
    expect(data.user).toMatchObject({
      is_anonymous: true,
      role: 'authenticated',
      aud: 'authenticated',
      user_metadata: { name: 'Ann' },
    })
    expect(data.session!.expires_in).toBe(3600)
    expect((await client.rpc('me')).data).toBe(data.user!.id)
    const [row] = await sql(stack.dbUrl, 'select * from auth.users where id = $1', [data.user!.id])
    expect(row).toMatchObject({ is_anonymous: true, raw_user_meta_data: { name: 'Ann' } })
  })

  test('gives a token with the claims of the platform', async () => {
    const client = newClient()
    const { data } = await client.auth.signInAnonymously()
    const { data: found } = await client.auth.getClaims()
    expect(found!.claims).toMatchObject({
      iss: `${stack.url}/auth/v1`,
      sub: data.user!.id,
      role: 'authenticated',
      aud: 'authenticated',
      is_anonymous: true,
      aal: 'aal1',
      session_id: expect.any(String),
    })
  })

  test('makes another user each time', async () => {
    const before = await count('auth.users')
    const ids = await Promise.all(
      [1, 2].map(async () => (await newClient().auth.signInAnonymously()).data.user!.id),
    )
    expect(new Set(ids).size).toBe(2)
    expect(await count('auth.users')).toBe(before + 2)
  })
})

describe('a session', () => {
  test('is refreshed, with another token', async () => {
    const client = newClient()
    const first = (await client.auth.signInAnonymously()).data.session!
    const { data, error } = await client.auth.refreshSession()
    expect(error).toBeNull()
    expect(data.user!.id).toBe(first.user.id)
    expect(data.session!.refresh_token).not.toBe(first.refresh_token)
    expect((await client.rpc('me')).data).toBe(first.user.id)
  })

  test('is not refreshed by an unknown or an old token', async () => {
    const client = newClient()
    const { refresh_token } = (await client.auth.signInAnonymously()).data.session!
    const unknown = await client.auth.refreshSession({ refresh_token: 'unknown' })
    expect(unknown.error).toMatchObject({ status: 400, code: 'refresh_token_not_found' })
    await sql(
      stack.adminDbUrl,
      `update auth.refresh_tokens set used_at = now() - interval '11 s' where token = $1`,
      [refresh_token],
    )
    const old = await newClient().auth.refreshSession({ refresh_token })
    expect(old.error).toMatchObject({ status: 400, code: 'refresh_token_already_used' })
  })

  test('tells who it is, until the user is gone', async () => {
    const client = newClient()
    const { user } = (await client.auth.signInAnonymously()).data
    expect((await client.auth.getUser()).data.user).toMatchObject({ id: user!.id, is_anonymous: true })
    await sql(stack.dbUrl, 'delete from auth.users where id = $1', [user!.id])
    expect((await client.auth.getUser()).error).toMatchObject({ status: 403, code: 'user_not_found' })
  })

  test('ends with the sign-out', async () => {
    const client = newClient()
    await client.auth.signInAnonymously()
    const before = await count('auth.sessions')
    expect((await client.auth.signOut()).error).toBeNull()
    expect(await count('auth.sessions')).toBe(before - 1)
  })

  test('of a forged token is refused', async () => {
    const { error } = await newClient().auth.getUser('nonsense')
    expect(error).toMatchObject({ status: 403, code: 'bad_jwt' })
  })
})

test('other ways to sign in say what there is', async () => {
  const client = newClient()
  const signUp = await client.auth.signUp({ email: 'a@example.com', password: 'secret' })
  expect(signUp.error).toMatchObject({ status: 404, code: 'not_supported' })
  const password = await client.auth.signInWithPassword({ email: 'a@example.com', password: 'secret' })
  expect(password.error!.message).toContain('signs users in anonymously only')
})
