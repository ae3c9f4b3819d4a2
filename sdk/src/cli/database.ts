import postgres, { type Sql } from 'postgres'
import { schemaProblem } from '../shared/schema-version.ts'
import { explain, sqlState } from '../worker/faults.ts'
import { knownToBePostgres } from '../worker/postgres.ts'
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
  const sql = open(url ?? io.databaseUrl ?? local)
  try {
    await knownToBePostgres(sql, sql`select 1`)
    return await work(sql)
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw new CommandError(said(error), { cause: error })
  } finally {
    await sql.end({ timeout: 1 })
  }
}

function said(error: unknown): string {
  const state = sqlState(error)
  if (state === undefined)
    return `the database cannot be reached: ${explain(error)}. Name another with --db <url>`
  return state.startsWith('PT') ? explain(error) : `the database says: ${explain(error)}`
}

function open(url: string): Sql {
  try {
    return postgres(url, { max: 1, prepare: false, connect_timeout: 10, onnotice: () => {} })
  } catch (cause) {
    // Without the URL, which holds a password.
    throw new CommandError(
      '--db is not the URL of a database: postgresql://user:password@host:port/database',
      {
        cause,
      },
    )
  }
}
