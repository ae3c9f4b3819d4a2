import type { ClientBase } from 'pg'
import { restError } from './errors.ts'

export interface Parameter {
  name: string
  /** Qualified and quoted. */
  type: string
  required: boolean
  variadic: boolean
  /** Of type json or jsonb. */
  isJson: boolean
}

/** A function of the database, as far as a call has to know it. */
export interface DatabaseFunction {
  parameters: Parameter[]
  isVolatile: boolean
  isSet: boolean
  isVoid: boolean
  /** Its rows have named columns. */
  isComposite: boolean
}

/** The functions of a name, overloads included. */
export async function findFunctions(
  client: ClientBase,
  schema: string,
  name: string,
): Promise<DatabaseFunction[]> {
  const { rows } = await client.query({ name: 'find_functions', text: FIND, values: [schema, name] })
  return rows
}

const FIND = `
  select
    coalesce(inputs.parameters, '[]') as parameters,
    p.provolatile = 'v' as "isVolatile",
    p.proretset as "isSet",
    p.prorettype = 'void'::regtype as "isVoid",
    result.typtype = 'c' or coalesce(p.proargmodes::text[] && '{t,b,o}', false) as "isComposite"
  from pg_proc p
  join pg_type result on result.oid = p.prorettype
  cross join lateral (
    select json_agg(
      json_build_object(
        'name', coalesce(input.name, ''),
        'type', format('%I.%I', t.typnamespace::regnamespace::text, t.typname),
        'required', input.position <= p.pronargs - p.pronargdefaults,
        'variadic', input.mode = 'v',
        'isJson', t.oid in ('json'::regtype, 'jsonb'::regtype)
      ) order by input.position
    ) as parameters
    from (
      select a.name, a.type, a.mode, row_number() over (order by a.position) as position
      from rows from (
        unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])),
        unnest(p.proargnames),
        unnest(p.proargmodes)
      ) with ordinality as a (type, name, mode, position)
      where a.type is not null and coalesce(a.mode, 'i') in ('i', 'b', 'v')
    ) input
    join pg_type t on t.oid = input.type
  ) inputs
  where p.pronamespace = (select oid from pg_namespace where nspname = $1)
    and p.proname = $2
    and p.prokind = 'f'
    and p.prorettype <> 'trigger'::regtype`

export interface Wanted {
  schema: string
  name: string
  /** The names of the arguments given. */
  keys: string[]
  /** Whether a function that takes the whole body as its only, unnamed parameter will do. */
  wholeBody: boolean
}

/**
 * The one function that takes these arguments, by PostgREST's rules.
 *
 * @throws {HttpError} PGRST202 where there is none, PGRST203 where there are several
 */
export function chooseFunction(functions: DatabaseFunction[], wanted: Wanted): DatabaseFunction {
  const byName = functions.filter((candidate) => takes(candidate, wanted.keys))
  const unnamed = functions.filter((candidate) => wanted.wholeBody && takesWholeBody(candidate))
  const [chosen, ...others] = byName.length > 0 ? byName : unnamed
  if (!chosen) throw notFound(functions, wanted)
  if (others.length > 0) throw ambiguous([chosen, ...others], wanted)
  return chosen
}

function takes({ parameters }: DatabaseFunction, keys: string[]): boolean {
  const names = new Set(parameters.map(({ name }) => name))
  const missing = parameters.filter(({ name, required }) => required && !keys.includes(name))
  return missing.length === 0 && keys.every((key) => names.has(key))
}

/** Whether its only parameter has no name and takes any JSON. */
export function takesWholeBody({ parameters }: DatabaseFunction): boolean {
  const [first] = parameters
  return parameters.length === 1 && first?.name === '' && first.isJson
}

function notFound(functions: DatabaseFunction[], { schema, name, keys, wholeBody }: Wanted) {
  const list = keys.toSorted().join(', ')
  const named = keys.length > 0 ? `(${list})` : ' without parameters'
  const detail =
    keys.length > 0 ? ` with parameter${keys.length > 1 ? 's' : ''} ${list}` : ' without parameters'
  const orBody = wholeBody ? ' or with a single unnamed json/jsonb parameter' : ''
  const other = functions[0] && signature(functions[0], schema, name, ({ name }) => name)
  return restError(
    404,
    'PGRST202',
    `Could not find the function ${schema}.${name}${named} in the schema cache`,
    {
      details: `Searched for the function ${schema}.${name}${detail}${orBody}, but no matches were found in the schema cache.`,
      hint: other ? `Perhaps you meant to call the function ${other}` : null,
    },
  )
}

function ambiguous(functions: DatabaseFunction[], { schema, name }: Wanted) {
  const describe = (candidate: DatabaseFunction) =>
    signature(candidate, schema, name, ({ name, type }) => `${name} => ${type.replace(/^pg_catalog\./, '')}`)
  const list = functions.map(describe).join(', ')
  return restError(300, 'PGRST203', `Could not choose the best candidate function between: ${list}`, {
    hint: 'Try renaming the parameters or the function itself in the database so function overloading can be resolved',
  })
}

function signature(
  { parameters }: DatabaseFunction,
  schema: string,
  name: string,
  show: (parameter: Parameter) => string,
): string {
  return `${schema}.${name}(${parameters.map(show).join(', ')})`
}
