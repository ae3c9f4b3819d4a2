import type { Sql } from 'postgres'
import { schemaProblem } from '../shared/schema-version.ts'
import { placeOf } from '../worker/database-url.ts'
import { schemaVersion } from '../worker/queries.ts'
import { parsed } from './arguments.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { withAnyDatabase } from './database.ts'
import { type Check, checks, type Limits, limits } from './doctor-checks.ts'
import { apiOf, encryptionOf, keysIn, notificationsOf } from './doctor-connection.ts'

const usage = 'doctor [--db <url>]'

/** Says what of pgflow is not as it should be in a database, and what to do. */
export const doctorCommand: Command = {
  usage,
  summary: 'Checks a database, the connection and the keys: what is missing or stuck, and what to do.',
  async run(args, io) {
    const { values } = parsed(usage, args, { db: { type: 'string' } }, {})
    const findings = await withAnyDatabase(values.db, io, (sql) => examine(sql, io))
    for (const finding of findings) io.out(lineOf(finding))
    const wrong = findings.filter(({ state }) => state === 'fix').length
    if (wrong > 0) throw new CommandError(`${wrong} of ${findings.length} checks failed`)
  },
}

export interface Finding {
  /** `note`: pgflow works without it. */
  readonly state: 'ok' | 'note' | 'fix'
  readonly title: string
  /** What was found. */
  readonly problem?: string | undefined
  /** What to do. */
  readonly advice?: string | undefined
}

/** All findings; only the first, if the schema does not fit. */
export async function examine(sql: Sql, { environment }: Pick<Io, 'environment'>, bounds: Limits = limits) {
  const schema = await schemaOf(sql)
  if (schema.state === 'fix') return [schema]
  const { host, ssl } = sql.options
  const place = placeOf(host[0] ?? '')
  const findings: Finding[] = [
    schema,
    encryptionOf(place, ssl),
    await notificationsOf(sql),
    ...keysIn(environment),
    ...(await apiOf(sql, environment)),
  ]
  for (const check of checks) findings.push(await look(sql, check, bounds))
  return findings
}

export function lineOf({ state, title, problem, advice }: Finding): string {
  if (state === 'ok') return `ok    ${title}${problem ? `: ${problem}` : ''}`
  return `${state.padEnd(4)}  ${[`${title}: ${problem}`, ...(advice ? [advice] : [])].join(' – ')}`
}

async function schemaOf(sql: Sql): Promise<Finding> {
  const title = 'the migrations fit this package'
  const found = await schemaVersion(sql)
  const problem = schemaProblem(found)
  if (problem === undefined) return { state: 'ok', title, problem: `version ${found}` }
  const [other] = await sql`select to_regnamespace('pgflow') is not null as is_there`
  if (found === undefined && other?.is_there) {
    const words = 'the schema pgflow of this database belongs to other software, such as @pgflow/core'
    return { state: 'fix', title, problem: words, advice: 'docs/moving-from-pgflow-core.md says how to move' }
  }
  return { state: 'fix', title, problem }
}

async function look(sql: Sql, check: Check, bounds: Limits): Promise<Finding> {
  const { title, advice, isOptional = false } = check
  const problem = await check.problem(sql, bounds)
  if (problem === undefined) return { state: 'ok', title }
  return { state: isOptional ? 'note' : 'fix', title, problem, advice }
}
