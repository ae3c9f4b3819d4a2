import type { IncomingMessage } from 'node:http'
import type { Pool, PoolClient } from 'pg'
import { type HttpError, type Reply, readBody } from '../http.ts'
import { type Credentials, identify } from '../identity.ts'
import type { Claims } from '../tokens.ts'
import { begin, type CallResult, call } from './call.ts'
import { restError, toRestError } from './errors.ts'
import { chooseFunction, type DatabaseFunction, findFunctions } from './functions.ts'

export interface RestOptions {
  /** Connections as `authenticator`. */
  pool: Pool
  credentials: Credentials
  /** The exposed schemas. */
  schemas: string[]
}

/** Seconds past its expiry that PostgREST accepts a token, for clocks that differ. */
const LEEWAY = 30
const OBJECT = 'application/vnd.pgrst.object+json'

/** Answers `/rest/v1/rpc/<name>`. */
export async function callRpc(
  request: IncomingMessage,
  url: URL,
  name: string,
  apiKey: string,
  { pool, credentials, schemas }: RestOptions,
): Promise<Reply> {
  let role = 'anon'
  try {
    const claims = await identify(request, apiKey, credentials, { required: [], leeway: LEEWAY })
    role = claims.role ?? 'anon'
    const invocation = await readInvocation(request, url, name, schemas)
    const run = (client: PoolClient) => execute(client, invocation, { role, claims, request })
    return await withClient(pool, run)
  } catch (error) {
    throw toRestError(error, role)
  }
}

/** What the request asks for. */
interface Invocation {
  schema: string
  name: string
  keys: string[]
  payload: string
  /** Whether the payload may be the function's only argument. */
  wholeBody: boolean
  readOnly: boolean
  /** Whether the caller wants an object instead of an array of one. */
  single: boolean
}

async function readInvocation(
  request: IncomingMessage,
  url: URL,
  name: string,
  schemas: string[],
): Promise<Invocation> {
  const common = { name, single: wantsObject(request) }
  if (request.method === 'POST') {
    const schema = exposedSchema(request.headers['content-profile'], schemas)
    rejectModifiers(url, [...url.searchParams.keys()])
    const payload = (await readBody(request)) || '{}'
    return { ...common, schema, payload, keys: keysOf(payload), wholeBody: true, readOnly: false }
  }
  if (request.method === 'GET' || request.method === 'HEAD') {
    const schema = exposedSchema(request.headers['accept-profile'], schemas)
    const given = queryArguments(url)
    const payload = JSON.stringify(given)
    return { ...common, schema, payload, keys: Object.keys(given), wholeBody: false, readOnly: true }
  }
  throw restError(405, 'PGRST101', `Cannot use the ${request.method} method on RPC`)
}

function exposedSchema(profile: string | string[] | undefined, schemas: string[]): string {
  const schema = profile?.toString() ?? schemas[0] ?? ''
  if (schemas.includes(schema)) return schema
  const hint = `Only the following schemas are exposed: ${schemas.join(', ')}`
  throw restError(406, 'PGRST106', `Invalid schema: ${schema}`, { hint })
}

function wantsObject({ headers: { accept = '*/*' } }: IncomingMessage): boolean {
  if (accept.includes(OBJECT)) return true
  if (/application\/json|application\/\*|\*\/\*/.test(accept)) return false
  throw restError(406, 'PGRST107', `None of these media types are available: ${accept}`)
}

/** The names of the arguments in a body; a body that is not an object names none. */
function keysOf(payload: string): string[] {
  try {
    const body: unknown = JSON.parse(payload)
    return typeof body === 'object' && body !== null && !Array.isArray(body) ? Object.keys(body) : []
  } catch {
    throw restError(400, 'PGRST102', 'Empty or invalid json')
  }
}

/** Arguments in the query of the URL, each a text that the database reads as the parameter's type. */
function queryArguments(url: URL): Record<string, string> {
  const entries = [...url.searchParams].filter(([key]) => key !== 'apikey')
  rejectModifiers(
    url,
    entries.map(([key]) => key).filter((key) => MODIFIERS.includes(key)),
  )
  return Object.fromEntries(entries.filter(([key]) => key !== 'select'))
}

const MODIFIERS = ['select', 'order', 'limit', 'offset', 'and', 'or', 'columns']

/** The stack gives results as they are: it neither selects columns, nor filters, nor sorts. */
function rejectModifiers(url: URL, keys: string[]): void {
  const unsupported = keys.filter((key) => key !== 'apikey')
  if (unsupported.every((key) => key === 'select' && url.searchParams.get(key) === '*')) return
  throw restError(
    501,
    'PGRST100',
    `The local stack does not support ${unsupported.join(', ')} on functions`,
    {
      hint: 'Let the function take arguments for it, or filter in the client.',
    },
  )
}

interface Caller {
  role: string
  claims: Claims
  request: IncomingMessage
}

async function execute(client: PoolClient, invocation: Invocation, caller: Caller): Promise<Reply> {
  const { schema, name, keys, payload, single } = invocation
  const target = chooseFunction(await findFunctions(client, schema, name), invocation)
  const { role, claims, request } = caller
  await begin(client, {
    role,
    claims,
    schema,
    method: request.method!,
    path: `/rpc/${name}`,
    headers: request.headers,
    readOnly: invocation.readOnly || !target.isVolatile,
  })
  const result = await call(client, { schema, name, function: target, keys, payload })
  if (single && target.isSet && result.rows !== 1) throw notOneRow(result.rows)
  await client.query('commit')
  return replyOf(result, target, single)
}

function notOneRow(rows: number): HttpError {
  const details = `The result contains ${rows} rows`
  return restError(406, 'PGRST116', 'Cannot coerce the result to a single JSON object', { details })
}

function replyOf({ body, rows }: CallResult, { isSet }: DatabaseFunction, single: boolean): Reply {
  if (body === undefined) return { status: 204 }
  const range = { 'content-range': rows === 0 ? '*/*' : `0-${rows - 1}/*` }
  if (!single) return { status: 200, headers: range, body }
  const headers = { ...range, 'content-type': `${OBJECT}; charset=utf-8` }
  return { status: 200, headers, body: isSet ? body.slice(1, -1) : body }
}

/** Lends a connection, which goes back without a transaction, or not at all. */
async function withClient(pool: Pool, use: (client: PoolClient) => Promise<Reply>): Promise<Reply> {
  const client = await pool.connect()
  let broken = false
  try {
    return await use(client)
  } catch (error) {
    broken = await client.query('rollback').then(
      () => false,
      () => true,
    )
    throw error
  } finally {
    client.release(broken)
  }
}
