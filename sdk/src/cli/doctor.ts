import type { Sql } from 'postgres'
import { schemaProblem } from '../shared/schema-version.ts'
import { schemaVersion } from '../worker/queries.ts'
import { parsed } from './arguments.ts'
import { type Command, CommandError } from './command.ts'
import { withAnyDatabase } from './database.ts'

const usage = 'doctor [--db <url>]'

/** Says what of pgflow is not as it should be in a database, and what to do. */
export const doctorCommand: Command = {
  usage,
  summary: 'Looks at a database: what is missing, what does not run, and what to do.',
  async run(args, io) {
    const { values } = parsed(usage, args, { db: { type: 'string' } }, {})
    const findings = await withAnyDatabase(values.db, io, examine)
    for (const { state, title, advice } of findings) {
      io.out(`${state.padEnd(4)}  ${title}${state === 'ok' ? '' : `: ${advice}`}`)
    }
    const wrong = findings.filter(({ state }) => state === 'fix').length
    if (wrong > 0) throw new CommandError(`${wrong} of ${findings.length} checks failed`)
  },
}

interface Check {
  readonly title: string
  /** One boolean, `ok`. */
  readonly sql: string
  /** A table without which it fails. */
  readonly needs?: string
  readonly advice: string
  /** Whether everything works without it. @default false */
  readonly isOptional?: boolean
}

interface Finding extends Pick<Check, 'title' | 'advice'> {
  readonly state: 'ok' | 'fix' | 'note'
}

async function examine(sql: Sql): Promise<Finding[]> {
  const problem = schemaProblem(await schemaVersion(sql))
  const title = 'the migrations fit this package'
  if (problem !== undefined) return [{ title, state: 'fix', advice: problem }]
  const findings: Finding[] = [{ title, state: 'ok', advice: '' }]
  for (const check of checks) findings.push(await look(sql, check))
  return findings
}

async function look(sql: Sql, check: Check): Promise<Finding> {
  const { needs = 'pg_class' } = check
  const [found] = await sql`select to_regclass(${needs}) is not null as ok`
  const [row] = found?.ok ? await sql.unsafe<{ ok: boolean }[]>(check.sql) : []
  const { title, advice } = check
  return { title, advice, state: row?.ok ? 'ok' : check.isOptional ? 'note' : 'fix' }
}

const checks: readonly Check[] = [
  {
    title: 'clients reach pgflow_public',
    // Where PostgREST is set up from outside, the database cannot know.
    sql: `
      select coalesce(bool_or(setting ~ '[=, ]pgflow_public(,|$| )'), true) as ok
      from pg_db_role_setting, unnest(setconfig) setting
      where setting like 'pgrst.db_schemas=%'`,
    advice: 'add pgflow_public to the exposed schemas, in the API settings or in config.toml',
  },
  {
    title: 'clients may listen to their runs',
    sql: `
      select to_regclass('realtime.messages') is null or exists (
        select from pg_policies where schemaname = 'realtime' and policyname = 'pgflow_run_channels'
      ) as ok`,
    advice: 'the policy pgflow_run_channels on realtime.messages is missing: create it as the migrations do',
  },
  {
    title: 'events are broadcast',
    sql: `select to_regclass('realtime.messages') is not null as ok`,
    advice: 'there is no Realtime here, so that clients poll',
    isOptional: true,
  },
  {
    title: 'each flow has its queue',
    sql: `select not exists (select from pgflow.flows where to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null) as ok`,
    advice: 'a queue was dropped, or a backup was restored without it: select pgflow.repair()',
  },
  {
    title: 'each flow with runs that go on has a worker',
    sql: `select not exists (select from pgflow.flow_versions where running_runs > 0 and workers = 0) as ok`,
    advice: 'start one; the view pgflow.flow_versions shows for which flow',
  },
  {
    title: 'upkeep is scheduled',
    needs: 'cron.job',
    sql: `select exists (select from cron.job where command like '%pgflow.maintain%' and active) as ok`,
    advice:
      "finished runs and archives grow: select cron.schedule('pgflow', '10 seconds', $$ select pgflow.maintain(keep_runs => '30 days') $$)",
    isOptional: true,
  },
  {
    title: 'inputs are held against their schemas',
    sql: `
      select not exists (select from pgflow.flows where input_schema is not null)
          or exists (select from pg_extension where extname = 'pg_jsonschema') as ok`,
    advice: 'the database does not look at them: create extension pg_jsonschema with schema extensions',
    isOptional: true,
  },
]
