import type { IncomingMessage } from 'node:http'
import type { Pool } from 'pg'
import { HttpError, json, type Reply, readBody } from '../http.ts'
import { bearerOf } from '../identity.ts'
import { type Claims, signToken, verifyToken } from '../tokens.ts'
import {
  deleteSession,
  findUser,
  insertSession,
  insertUser,
  renewRefreshToken,
  type User,
} from './queries.ts'

export interface AuthOptions {
  /** Connections as the superuser. */
  pool: Pool
  jwtSecret: string
  /** What tokens name as their issuer. */
  issuer: string
}

/** Of an access token, in seconds. */
const LIFETIME = 3600

/** Answers `/auth/v1/…`: anonymous sign-in, and what a session then needs. */
export async function answerAuth(request: IncomingMessage, url: URL, options: AuthOptions): Promise<Reply> {
  const route = `${request.method} ${url.pathname.replace('/auth/v1', '')}`
  const grant = url.searchParams.get('grant_type')
  if (route === 'POST /signup') return signUp(request, options)
  if (route === 'POST /token' && grant === 'refresh_token') return refresh(request, options)
  if (route === 'GET /user') return json(200, await currentUser(request, options))
  if (route === 'POST /logout') return logOut(request, options)
  throw unsupported(grant ? `${route}?grant_type=${grant}` : route)
}

/** Not a 5xx: supabase-js takes those for passing failures, and tries again. */
const unsupported = (what: string) =>
  authError(404, 'not_supported', `The local stack signs users in anonymously only: it has no ${what}.`)

const authError = (status: number, errorCode: string, message: string) =>
  new HttpError(status, { code: status, error_code: errorCode, msg: message })

async function signUp(request: IncomingMessage, options: AuthOptions): Promise<Reply> {
  const { email, phone, data } = await readObject(request)
  if (email || phone) throw unsupported('sign-up with email or phone')
  const user = await insertUser(options.pool, data ?? {})
  return json(200, await startSession(user, options))
}

async function startSession(user: User, options: AuthOptions) {
  const { session_id, refresh_token } = await insertSession(options.pool, user.id)
  return sessionOf(user, session_id, refresh_token, options)
}

async function refresh(request: IncomingMessage, options: AuthOptions): Promise<Reply> {
  const { refresh_token: token } = await readObject(request)
  const renewal = await renewRefreshToken(options.pool, String(token ?? ''))
  if (!renewal) {
    throw authError(400, 'refresh_token_not_found', 'Invalid Refresh Token: Refresh Token Not Found')
  }
  if (!renewal.refresh_token) {
    throw authError(400, 'refresh_token_already_used', 'Invalid Refresh Token: Already Used')
  }
  const user = await findUser(options.pool, renewal.user_id)
  return json(200, await sessionOf(user!, renewal.session_id, renewal.refresh_token, options))
}

async function currentUser(request: IncomingMessage, options: AuthOptions): Promise<User> {
  const { sub } = await verifiedClaims(request, options)
  const user = await findUser(options.pool, sub ?? '')
  if (!user) throw authError(403, 'user_not_found', 'User from sub claim in JWT does not exist')
  return user
}

async function logOut(request: IncomingMessage, options: AuthOptions): Promise<Reply> {
  const { session_id } = await verifiedClaims(request, options)
  await deleteSession(options.pool, String(session_id ?? ''))
  return { status: 204 }
}

async function verifiedClaims(request: IncomingMessage, { jwtSecret }: AuthOptions): Promise<Claims> {
  const token = bearerOf(request)
  if (!token) throw authError(401, 'no_authorization', 'This endpoint requires a Bearer token')
  return verifyToken(jwtSecret, token).catch((error: Error) => {
    throw authError(403, 'bad_jwt', `invalid JWT: ${error.message}`)
  })
}

/** A session, as GoTrue answers it. */
async function sessionOf(user: User, sessionId: string, refreshToken: string, options: AuthOptions) {
  const now = Math.floor(Date.now() / 1000)
  const { id, role, email, phone, app_metadata, user_metadata, is_anonymous } = user
  const accessToken = await signToken(options.jwtSecret, {
    iss: options.issuer,
    sub: id,
    iat: now,
    exp: now + LIFETIME,
    role,
    email,
    phone,
    app_metadata,
    user_metadata,
    aal: 'aal1',
    amr: [{ method: 'anonymous', timestamp: now }],
    session_id: sessionId,
    is_anonymous,
  })
  return {
    access_token: accessToken,
    token_type: 'bearer',
    expires_in: LIFETIME,
    expires_at: now + LIFETIME,
    refresh_token: refreshToken,
    user,
  }
}

async function readObject(request: IncomingMessage): Promise<Record<string, unknown>> {
  const text = await readBody(request)
  try {
    const body: unknown = JSON.parse(text || '{}')
    if (typeof body === 'object' && body !== null) return body as Record<string, unknown>
  } catch {
    // answered below
  }
  throw authError(400, 'bad_json', 'Could not parse request body as JSON')
}
