import type { Sql } from 'postgres'
import type { placeOf } from '../worker/database-url.ts'
import { explain } from '../worker/faults.ts'
import { Notifier } from '../worker/time.ts'
import type { Finding } from './doctor.ts'
import { type Environment, firstIn, projectUrlIn } from './environment.ts'

/** Seconds for a notification. */
const patience = 2

/** Whether the connection is encrypted, as the URL and its host say. */
export function encryptionOf(place: ReturnType<typeof placeOf>, ssl: unknown): Finding {
  const title = 'the connection is encrypted where it leaves this machine'
  if (place === 'machine') return { state: 'ok', title, problem: 'this machine' }
  if (ssl) {
    const isVerified =
      typeof ssl === 'object' && (ssl as { rejectUnauthorized?: boolean }).rejectUnauthorized === true
    return { state: 'ok', title, problem: isVerified ? 'TLS, verified' : 'TLS, certificate not verified' }
  }
  return {
    state: place === 'internet' ? 'fix' : 'note',
    title,
    problem: 'it is not',
    advice: 'remove sslmode=disable from the URL',
  }
}

/** Whether LISTEN has an effect: a transaction pooler accepts it without any. */
export async function notificationsOf(sql: Sql): Promise<Finding> {
  const title = 'workers are notified of new tasks over this connection'
  const channel = `pgflow_doctor_${crypto.randomUUID().slice(0, 8)}`
  const arrived = new Notifier()
  const listening = await sql.listen(channel, () => arrived.notify())
  await sql`select pg_notify(${channel}, '')`
  const works = await arrived.wait(patience)
  // A transaction pooler may do this in any session.
  void listening.unlisten().catch(() => {})
  if (works) return { state: 'ok', title }
  return {
    state: 'note',
    title,
    problem: 'this is a transaction pooler, through which they poll once a second',
    advice: 'for workers, use the session pooler (port 5432 of the same host) or the direct connection',
  }
}

type KeyKind = 'secret' | 'service_role' | 'publishable' | 'anon' | 'unknown'

/** What kind of key a variable holds; the key itself is never shown. */
export function kindOf(key: string): KeyKind {
  if (key.startsWith('sb_secret_')) return 'secret'
  if (key.startsWith('sb_publishable_')) return 'publishable'
  try {
    const { role } = JSON.parse(Buffer.from(key.split('.')[1] ?? '', 'base64url').toString()) as {
      role?: unknown
    }
    return role === 'service_role' || role === 'anon' ? role : 'unknown'
  } catch {
    return 'unknown'
  }
}

/** The keys of the environment, each of the kind that its name says; nothing where there are none. */
export function keysIn(environment: Environment): Finding[] {
  const title = 'the keys of the environment are what their names say'
  const keys = Object.entries(environment).flatMap(([name, value = '']) => {
    if (!/SUPABASE.*_KEYS?$/.test(name) || value === '') return []
    return valuesIn(value).map((key) => ({ name, kind: kindOf(key) }))
  })
  if (keys.length === 0) return []
  const isPublic = (name: string) =>
    /^(NEXT_PUBLIC|VITE|PUBLIC|EXPO_PUBLIC|NUXT_PUBLIC|REACT_APP)_/.test(name)
  const isSecret = (kind: KeyKind) => kind === 'secret' || kind === 'service_role'
  const shipped = keys.find(({ name, kind }) => isPublic(name) && isSecret(kind))
  if (shipped !== undefined) {
    return [
      {
        state: 'fix',
        title,
        problem: `${shipped.name} holds a ${shipped.kind} key, which bundlers put into pages`,
        advice:
          'use a publishable key there, and replace the secret one in the dashboard (Settings > API Keys)',
      },
    ]
  }
  const wrong = keys.find(
    ({ name, kind }) => /SECRET|SERVICE/.test(name) && (kind === 'publishable' || kind === 'anon'),
  )
  if (wrong !== undefined) {
    return [
      {
        state: 'fix',
        title,
        problem: `${wrong.name} holds a ${wrong.kind} key`,
        advice: 'take the secret key from the dashboard (Settings > API Keys): a worker needs it',
      },
    ]
  }
  const found = keys.map(({ name, kind }) => `${name} ${kind}`).join(', ')
  if (!keys.some(({ kind }) => kind === 'anon' || kind === 'service_role'))
    return [{ state: 'ok', title, problem: found }]
  return [
    {
      state: 'note',
      title,
      problem: `${found} (anon and service_role are the older kind)`,
      advice: 'replace them by publishable and secret keys of the dashboard when you can',
    },
  ]
}

/** `SUPABASE_SECRET_KEYS` is a JSON object of keys. */
function valuesIn(value: string): string[] {
  try {
    return Object.values(JSON.parse(value) as Record<string, unknown>).map(String)
  } catch {
    return [value]
  }
}

const publicKeys = [
  'NEXT_PUBLIC_SUPABASE_PUBLISHABLE_KEY',
  'VITE_SUPABASE_PUBLISHABLE_KEY',
  'SUPABASE_PUBLISHABLE_KEY',
]

const exposing =
  'to the exposed schemas: in the dashboard (Settings > Data API), or in [api].schemas of config.toml with supabase config push'

/** Whether clients and workers reach their functions, asked of the project's REST API if its URL and a key are known. */
export async function apiOf(sql: Sql, environment: Environment): Promise<Finding[]> {
  const url = projectUrlIn(environment)
  const secretKey = firstIn(environment, ['SUPABASE_SECRET_KEY', 'SUPABASE_SERVICE_ROLE_KEY'])
  const key = secretKey ?? firstIn(environment, [...publicKeys, 'SUPABASE_ANON_KEY'])
  if (url === undefined || key === undefined || !isSameProject(url, sql)) return []
  const clients = `clients reach pgflow_public at ${url}`
  const advice = 'check SUPABASE_URL and the key'
  try {
    const { ok, code, message } = await call(url, key, 'pgflow_public')
    if (code === 'PGRST106') {
      return [
        {
          state: 'fix',
          title: clients,
          problem: 'the schema is not exposed',
          advice: `add pgflow_public ${exposing}`,
        },
      ]
    }
    if (!ok) return [{ state: 'fix', title: clients, problem: message, advice }]
    const findings: Finding[] = [{ state: 'ok', title: clients }]
    return secretKey === undefined ? findings : [...findings, await workersAt(url, secretKey)]
  } catch (error) {
    return [{ state: 'fix', title: clients, problem: explain(error), advice }]
  }
}

async function workersAt(url: string, key: string): Promise<Finding> {
  const title = `workers with a secret key reach pgflow_worker at ${url}`
  const { code } = await call(url, key, 'pgflow_worker')
  if (code !== 'PGRST106') return { state: 'ok', title }
  const advice = `for these and for Edge Functions, add pgflow_worker ${exposing}; workers with the URL of the database need nothing`
  return { state: 'note', title, problem: 'the schema is not exposed', advice }
}

/** Calls `schema_version`, which only one of the schemas has: the answer tells an unknown schema from an unknown function. */
async function call(url: string, key: string, schema: string) {
  const response = await fetch(`${url.replace(/\/+$/, '')}/rest/v1/rpc/schema_version`, {
    method: 'POST',
    headers: {
      apikey: key,
      ...(!key.startsWith('sb_') && { authorization: `Bearer ${key}` }),
      'content-type': 'application/json',
      'content-profile': schema,
    },
    body: '{}',
    signal: AbortSignal.timeout(10_000),
  })
  const { code, message } = (await response.json().catch(() => ({}))) as { code?: string; message?: string }
  return { ok: response.ok, code, message: message ?? `HTTP status ${response.status}` }
}

/** The project of the environment may be another one than that of the database. */
function isSameProject(url: string, sql: Sql): boolean {
  const { host, user } = sql.options
  const ref = /^https?:\/\/([a-z0-9]{20})\./.exec(url)?.[1]
  const isLocal = /^https?:\/\/(127\.0\.0\.1|localhost)(:|\/|$)/.test(url)
  if (ref === undefined) return isLocal && ['127.0.0.1', 'localhost'].includes(host[0] ?? '')
  return [...host, user].some((part) => part.split('.').includes(ref))
}
