import postgres, { type Sql } from 'postgres'
import { schemaProblem } from '../shared/schema-version.ts'
import { ConnectionProblem, firstAnswer } from '../worker/connection-problem.ts'
import { DatabaseUrlError, databaseTarget } from '../worker/database-url.ts'
import { explain, sqlState } from '../worker/faults.ts'
import { schemaVersion } from '../worker/queries.ts'
import { CommandError, type Io } from './command.ts'

/** That of `supabase start`. */
const local = 'postgresql://postgres:postgres@127.0.0.1:54322/postgres'

/**
 * Works on the database that `--db` names, else the environment's `DATABASE_URL`, else the one of `supabase start`.
 *
 * @throws CommandError if it cannot be reached, has no migrations of pgflow or older ones, or refuses what is asked
 */
export function withDatabase<Result>(
  url: string | undefined,
  io: Io,
  work: (sql: Sql) => Promise<Result>,
): Promise<Result> {
  return withAnyDatabase(url, io, async (sql) => {
    const problem = schemaProblem(await schemaVersion(sql))
    if (problem !== undefined) throw new CommandError(problem)
    return work(sql)
  })
}

/** As `withDatabase`, whatever migrations it has. */
export async function withAnyDatabase<Result>(
  url: string | undefined,
  io: Io,
  work: (sql: Sql) => Promise<Result>,
): Promise<Result> {
  const { DATABASE_URL } = io.environment
  const sql = url
    ? open(url, '--db')
    : DATABASE_URL
      ? open(DATABASE_URL, 'DATABASE_URL')
      : open(local, '--db')
  try {
    await firstAnswer(sql, sql`select 1`)
    return await work(sql)
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw new CommandError(problemOf(error), { cause: error })
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** What the database, or the way to it, has against a call, in words. */
export function problemOf(error: unknown): string {
  if (error instanceof ConnectionProblem)
    return `the database cannot be reached: ${error.message}. Name another with --db <url>`
  const state = sqlState(error)
  if (state === undefined)
    return `the database cannot be reached: ${explain(error)}. Name another with --db <url>`
  return state.startsWith('PT') ? explain(error) : `the database says: ${explain(error)}`
}

function open(url: string, option: string): Sql {
  try {
    const target = databaseTarget(url, option, 'the dashboard shows it under Connect')
    return postgres(target.url, {
      ...target.options,
      max: 1,
      prepare: false,
      connect_timeout: 10,
      onnotice: () => {},
      connection: { application_name: 'pgflow' },
    })
  } catch (cause) {
    if (!(cause instanceof DatabaseUrlError)) throw cause
    // Its message is without the URL, which holds a password.
    throw new CommandError(cause.message, { cause })
  }
}
