import type { Sql } from 'postgres'
import { codeOf, explain, sqlState } from './faults.ts'
import { answersWithTls, portProblem } from './probe.ts'
import { sleep } from './time.ts'

/** Seconds in which a database answers, if nothing is wrong. */
const soon = 2

/** A database that cannot be used: the message is one sentence or two, the cause is the error. */
export class ConnectionProblem extends Error {
  override readonly name = 'ConnectionProblem'
}

export interface Target {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly database: string
  readonly ssl: unknown
}

/**
 * The answer to a first query. The driver waits for a port that is not Postgres: where there is no answer for some seconds,
 * the port is looked at.
 *
 * @throws ConnectionProblem saying why there is no connection; what the query throws is thrown as it is
 */
export async function firstAnswer<Answer>(sql: Sql, answer: Promise<Answer>): Promise<Answer> {
  const { host, port, path, ...rest } = sql.options
  const target = { ...rest, host: host[0] ?? '', port: Number(port[0]) }
  const looking = new AbortController()
  const problem = sleep(soon, looking.signal).then(async () => {
    if (looking.signal.aborted || path) return answer
    const words = await portProblem(target.host, target.port)
    if (words !== undefined) throw new ConnectionProblem(words)
    return answer
  })
  try {
    return await Promise.race([answer, problem])
  } catch (error) {
    const words = error instanceof ConnectionProblem ? undefined : await connectionWords(error, target)
    throw words === undefined ? error : new ConnectionProblem(words, { cause: error })
  } finally {
    looking.abort()
  }
}

/** Where the dashboard shows the URLs. */
const dashboard = 'The dashboard shows the URL under Connect > Session pooler'

const unreachable = [
  'ENETUNREACH',
  'EHOSTUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'EADDRNOTAVAIL',
  'CONNECT_TIMEOUT',
]

const untrusted = [
  ...['SELF_SIGNED_CERT_IN_CHAIN', 'DEPTH_ZERO_SELF_SIGNED_CERT', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
  ...[
    'UNABLE_TO_GET_ISSUER_CERT',
    'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
    'CERT_HAS_EXPIRED',
    'ERR_TLS_CERT_ALTNAME_INVALID',
  ],
]

/** Why there is no connection, and what to do; `undefined` where the error says that itself. */
export async function connectionWords(error: unknown, target: Target): Promise<string | undefined> {
  if (sqlState(error) !== undefined) return refusal(error, target)
  const code = codeOf(error) ?? ''
  const { host, port } = target
  if (unreachable.includes(code)) return absence(code, host, port)
  if (code === 'ECONNREFUSED') return refused(host, port)
  if (untrusted.includes(code)) {
    return `the TLS certificate of ${host} cannot be verified (${explain(error)}). Download the certificate of the project (dashboard: Database > Settings > SSL) and name it in the URL: ?sslmode=verify-full&sslrootcert=prod-ca-2021.crt`
  }
  if (target.ssl && target.ssl !== 'prefer' && (await answersWithTls(host, port)) === false) {
    return `${host}:${port} does not support TLS. Add ?sslmode=disable to the URL only if the network in between is trusted`
  }
  return undefined
}

function absence(code: string, host: string, port: number): string {
  const ref = /^db\.([a-z0-9]+)\.supabase\.(?:co|com|in|red|green)$/.exec(host)?.[1]
  if (ref !== undefined) {
    return `${host} cannot be reached (${code}). The direct host of a project has an IPv6 address only: where a network has none, use the session pooler, postgresql://postgres.${ref}:password@….pooler.supabase.com:5432/postgres. ${dashboard}. If that fails too, check in the dashboard whether the project is paused`
  }
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return `the host ${host} is not found (${code}). Check the host in the URL, and the network`
  }
  return `${host}:${port} cannot be reached (${code}). Check the URL, the firewall, and in the dashboard the network restrictions of the project and whether it is paused`
}

function refused(host: string, port: number): string {
  const start = port === 54322 ? ': supabase start' : ''
  return `${host}:${port} refuses connections (ECONNREFUSED). Check the URL, and whether the database runs${start}`
}

/** What a server or a pooler says that refuses a connection. */
function refusal(error: unknown, { host, user, database, ssl }: Target): string | undefined {
  const { message } = error as Error
  if (/tenant|no such (tenant|project)|ENOIDENTIFIER/i.test(message)) {
    const advice = user.includes('.')
      ? 'Copy the URL from the dashboard (Connect), since its host cannot be guessed from the region, and check whether the project is paused'
      : `The user of a pooler is ${user}.<project ref>`
    return `the pooler at ${host} knows no project for the user "${user}" (${message}). ${advice}. ${dashboard}`
  }
  const state = sqlState(error)
  if (state === '28P01' || /wrong password|password authentication failed/i.test(message)) {
    return `the password of the user "${user}" is wrong. Check the URL: special characters of the password are written as encodeURIComponent does. In the dashboard it can be reset: Database > Settings`
  }
  if (state === '3D000')
    return `there is no database "${database}" at ${host}: that of a Supabase project is "postgres"`
  if (!ssl && /no encryption|SSL.*(required|off)|ssl.*required/i.test(message)) {
    return `${host} refuses connections without TLS: remove sslmode=disable from the URL (${message})`
  }
  if (state === '28000') return `${host} refuses the user "${user}": ${message}`
  if (state === '53300' || /max client|max clients|EMAXCONN/i.test(message)) {
    return `${host} has no connection left (${message}). Close others, or use the transaction pooler (port 6543)`
  }
  return state === '57P03'
    ? `the database at ${host} is starting or stopping (${message}). Try again in a moment`
    : undefined
}
