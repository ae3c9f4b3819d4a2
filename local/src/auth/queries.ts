import { randomBytes } from 'node:crypto'
import type { Pool } from 'pg'

/** A user, as GoTrue answers it. */
export interface User {
  id: string
  aud: string
  role: string
  email: string
  phone: string
  last_sign_in_at: string
  app_metadata: Record<string, unknown>
  user_metadata: Record<string, unknown>
  identities: never[]
  created_at: string
  updated_at: string
  is_anonymous: boolean
}

const USER = `
  id, aud, role, coalesce(email, '') as email, coalesce(phone, '') as phone, last_sign_in_at,
  raw_app_meta_data as app_metadata, raw_user_meta_data as user_metadata, '{}'::text[] as identities,
  created_at, updated_at, is_anonymous`

export async function insertUser(pool: Pool, metadata: unknown): Promise<User> {
  const { rows } = await pool.query<User>(
    `insert into auth.users (
       id, aud, role, raw_app_meta_data, raw_user_meta_data, is_anonymous, last_sign_in_at, created_at, updated_at
     )
     values (gen_random_uuid(), 'authenticated', 'authenticated', '{}', $1, true, now(), now(), now())
     returning ${USER}`,
    [JSON.stringify(metadata)],
  )
  return rows[0]!
}

export async function findUser(pool: Pool, id: string): Promise<User | undefined> {
  const { rows } = await pool.query<User>(`select ${USER} from auth.users where id::text = $1`, [id])
  return rows[0]
}

const newToken = () => randomBytes(9).toString('base64url')

export async function insertSession(
  pool: Pool,
  userId: string,
): Promise<{ session_id: string; refresh_token: string }> {
  const { rows } = await pool.query(
    `with session as (
       insert into auth.sessions (id, user_id, created_at, updated_at)
       values (gen_random_uuid(), $1, now(), now())
       returning id
     )
     insert into auth.refresh_tokens (token, session_id, created_at)
     select $2, id, now() from session
     returning session_id, token as refresh_token`,
    [userId, newToken()],
  )
  return rows[0]
}

/**
 * Replaces a refresh token by a new one. For ten seconds it may be used again, by another tab or after a lost answer;
 * later there is no `refresh_token` in the result.
 *
 * @returns undefined for an unknown token
 */
export async function renewRefreshToken(
  pool: Pool,
  token: string,
): Promise<{ session_id: string; user_id: string; refresh_token: string | null } | undefined> {
  const { rows } = await pool.query(
    `with used as (
       update auth.refresh_tokens as t
       set used_at = coalesce(t.used_at, now())
       from auth.sessions as s
       where s.id = t.session_id and t.token = $1
       returning s.id as session_id, s.user_id, t.used_at > now() - interval '10 seconds' as is_valid
     ),
     renewed as (
       insert into auth.refresh_tokens (token, session_id, created_at)
       select $2, session_id, now() from used where is_valid
       returning token
     )
     select session_id, user_id, (select token from renewed) as refresh_token from used`,
    [token, newToken()],
  )
  return rows[0]
}

export async function deleteSession(pool: Pool, id: string): Promise<void> {
  await pool.query('delete from auth.sessions where id::text = $1', [id])
}
