import type pg from 'pg'

/**
 * The functions that are meant for users, as the SQL reference shows them: those that have a comment.
 *
 * @returns for example `pgflow.cancel_run(run_id uuid, reason text default null) returns pgflow.runs`
 */
export async function signaturesOf(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string; args: string; result: string }>(`
    select format('%s.%s', n.nspname, p.proname) as name, pg_get_function_arguments(p.oid) as args,
      pg_get_function_result(p.oid) as result
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker') and obj_description(p.oid) is not null
    order by n.nspname, p.proname, p.pronargs`)
  return rows.map(({ name, args, result }) => signatureOf(name, shortened(args), shortened(result)))
}

function signatureOf(name: string, args: string, result: string): string {
  const line = `${name}(${args}) returns ${result}`
  if (line.length <= 110) return line
  const lines = args.split(/, (?=[a-z_]+ )/).map((arg) => `  ${arg}`)
  return `${name}(\n${lines.join(',\n')}\n) returns ${result}`
}

/** The names of types and the form of defaults as people write them. */
function shortened(text: string): string {
  return text
    .replaceAll(/::[a-z_. ]+(\[\])?/g, '')
    .replaceAll(' DEFAULT ', ' default ')
    .replaceAll('default NULL', 'default null')
    .replaceAll('integer', 'int')
    .replaceAll('timestamp with time zone', 'timestamptz')
    .replaceAll("'00:00:01'", "'1 second'")
    .replaceAll('SETOF', 'setof')
    .replaceAll('TABLE', 'table')
    .replaceAll('OUT ', 'out ')
}
