import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { LocalSupabaseError } from './errors.ts'

export interface MigrateOptions {
  folder: string
  /** The superuser's connection. */
  admin: pg.ClientConfig
  /** The connection of `postgres`, who owns what the migrations create. */
  owner: pg.ClientConfig
}

interface Migration {
  file: string
  version: string
  name: string
}

/**
 * Applies the files of a folder that were not applied before, in order of their names, each in a transaction.
 * Like the Supabase CLI it takes `<digits>_<name>.sql` and remembers in `supabase_migrations.schema_migrations`.
 *
 * @returns the names of the files that it applied
 */
export async function migrate({ folder, admin, owner }: MigrateOptions): Promise<string[]> {
  const migrations = await readMigrations(folder)
  return withClient(admin, (superuser) =>
    withClient(owner, async (client) => {
      await client.query(HISTORY)
      await superuser.query(BORROW_POLICIES)
      try {
        return await applyPending(client, folder, migrations)
      } finally {
        await superuser.query(RETURN_POLICIES)
      }
    }),
  )
}

const HISTORY = `
  create schema if not exists supabase_migrations;
  create table if not exists supabase_migrations.schema_migrations (
    version text primary key, statements text[], name text
  )`

/**
 * On the platform an extension (supautils, `policy_grants`) lets `postgres` create policies on `realtime.messages`,
 * which it does not own. Here it may act as the owner while migrations run. Without CREATE on the schema, so that a
 * migration that creates something there fails, as it would on the platform.
 */
const BORROW_POLICIES = `
  revoke create on schema realtime from supabase_realtime_admin;
  grant supabase_realtime_admin to postgres`
const RETURN_POLICIES = `
  revoke supabase_realtime_admin from postgres;
  grant create on schema realtime to supabase_realtime_admin with grant option`

async function readMigrations(folder: string): Promise<Migration[]> {
  const files = await readdir(folder).catch((cause) => {
    throw new LocalSupabaseError(`There is no folder of migrations at ${folder}.`, { cause })
  })
  const matches = files.sort().map((file) => /^(\d+)_(.*)\.sql$/.exec(file))
  return matches.flatMap((match) => (match ? [{ file: match[0], version: match[1]!, name: match[2]! }] : []))
}

async function applyPending(client: pg.Client, folder: string, migrations: Migration[]): Promise<string[]> {
  const { rows } = await client.query<{ version: string }>(
    'select version from supabase_migrations.schema_migrations',
  )
  const done = new Set(rows.map(({ version }) => version))
  const pending = migrations.filter(({ version }) => !done.has(version))
  for (const migration of pending) await apply(client, folder, migration)
  return pending.map(({ file }) => file)
}

async function apply(client: pg.Client, folder: string, { file, version, name }: Migration): Promise<void> {
  const sql = await readFile(join(folder, file), 'utf8')
  await client.query('begin')
  try {
    await client.query(sql)
    await client.query('insert into supabase_migrations.schema_migrations values ($1, $2, $3)', [
      version,
      [sql],
      name,
    ])
    await client.query('commit')
  } catch (cause) {
    await client.query('rollback')
    throw new LocalSupabaseError(`The migration ${file} failed${describe(cause, sql)}`, { cause })
  }
  await client.query('reset all')
}

/** Line, message, detail, hint and context of a database error, as far as there are any. */
function describe(error: unknown, sql: string): string {
  const { message, detail, hint, where, position } = error as Partial<pg.DatabaseError>
  const line = position ? ` in line ${sql.slice(0, Number(position)).split('\n').length}` : ''
  return [`${line}: ${message}`, detail, hint, where].filter(Boolean).join('\n')
}

async function withClient<T>(config: pg.ClientConfig, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(config)
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}
