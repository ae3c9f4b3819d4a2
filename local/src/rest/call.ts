import { type ClientBase, escapeIdentifier, escapeLiteral } from 'pg'
import type { Claims } from '../tokens.ts'
import { type DatabaseFunction, takesWholeBody } from './functions.ts'

/** What the database gets to know about the request. */
export interface RequestContext {
  role: string
  claims: Claims
  schema: string
  method: string
  path: string
  headers: Record<string, unknown>
  readOnly: boolean
}

/** Opens a transaction in which the request's role, claims and time limits hold. */
export async function begin(client: ClientBase, context: RequestContext): Promise<void> {
  const searchPath = [...new Set([context.schema, 'public', 'extensions'])].map(escapeIdentifier).join(', ')
  const settings = {
    search_path: searchPath,
    role: context.role,
    'request.jwt.claims': JSON.stringify({ ...context.claims, role: context.role }),
    'request.method': context.method,
    'request.path': context.path,
    'request.headers': JSON.stringify(context.headers),
  }
  const setConfig = Object.entries(settings).map(
    ([name, value]) => `set_config('${name}', ${literal(value)}, true)`,
  )
  await client.query(`
    begin ${context.readOnly ? 'read only' : 'read write'};
    select set_config(split_part(setting, '=', 1), split_part(setting, '=', 2), true)
      from pg_catalog.pg_roles, unnest(rolconfig) as setting
      where rolname = ${literal(context.role)} and split_part(setting, '=', 1) like '%\\_timeout';
    select ${setConfig.join(', ')}`)
}

/** A literal without NUL characters, which the protocol cannot carry. */
const literal = (value: string) => escapeLiteral(value.replaceAll('\0', ''))

export interface Call {
  schema: string
  name: string
  function: DatabaseFunction
  /** The names of the arguments given. */
  keys: string[]
  /** JSON text: an object of the arguments, or the only argument. */
  payload: string
}

export interface CallResult {
  /** JSON text; undefined for a function that returns nothing. */
  body: string | undefined
  rows: number
}

/** Calls the function; values in both directions stay the text that they are. */
export async function call(client: ClientBase, { function: target, ...request }: Call): Promise<CallResult> {
  const { arguments_, source } = argumentsSql(target, request.keys)
  const invocation = `${escapeIdentifier(request.schema)}.${escapeIdentifier(request.name)}(${arguments_})`
  const values = source || takesWholeBody(target) ? [request.payload] : []
  const { rows } = await client.query(callSql(target, invocation, source), values)
  const { body, count } = rows[0]
  return { body: target.isVoid ? undefined : body, rows: Number(count) }
}

function argumentsSql({ parameters, ...target }: DatabaseFunction, keys: string[]) {
  if (takesWholeBody({ parameters, ...target }))
    return { arguments_: `$1::${parameters[0]!.type}`, source: '' }
  const given = parameters.filter(({ name }) => keys.includes(name))
  if (given.length === 0) return { arguments_: '', source: '' }
  const columns = given.map(({ name, type }) => `${escapeIdentifier(name)} ${type}`)
  const named = given.map(({ name, variadic }) => {
    const column = escapeIdentifier(name)
    return `${variadic ? 'variadic ' : ''}${column} := given.${column}`
  })
  return { arguments_: named.join(', '), source: `json_to_record($1::json) as given(${columns.join(', ')})` }
}

function callSql(target: DatabaseFunction, invocation: string, source: string): string {
  if (target.isVoid) return `select count(${invocation}::text)${source && ` from ${source}`}`
  const from = source && `${source}, `
  const rows = target.isComposite
    ? `select result.* from ${from}lateral ${invocation} as result`
    : `select ${invocation} as value${source && ` from ${source}`}`
  const item = target.isComposite ? 'result' : 'result.value'
  const body = target.isSet ? `coalesce(json_agg(${item}), '[]')` : `coalesce(json_agg(${item}) -> 0, 'null')`
  return `select ${body}::text as body, count(*) as count from (${rows}) as result`
}
