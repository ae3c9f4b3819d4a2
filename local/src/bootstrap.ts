import { readdir, readFile } from 'node:fs/promises'
import pg from 'pg'
import type { DatabaseAddress, Postgres } from './postgres.ts'
import type { Template } from './template.ts'

const FOLDER = new URL('../sql/', import.meta.url)
/** The roles that get the password, beside the superuser. */
const LOGINS = ['postgres', 'authenticator']

/** The SQL that makes a Supabase project of a database. */
export async function bootstrapFiles(): Promise<string[]> {
  const names = (await readdir(FOLDER)).filter((name) => name.endsWith('.sql')).sort()
  return Promise.all(names.map((name) => readFile(new URL(name, FOLDER), 'utf8')))
}

/**
 * Makes a Supabase project of a new database, in one transaction; leaves an old one as it is. One that was copied from a
 * template gets passwords of its own; else the template, if one is passed, is made of it.
 */
export async function bootstrap(postgres: Postgres, password: string, template?: Template): Promise<void> {
  const copied = template?.password
  await connected({ ...postgres.admin, password: copied ?? password }, async (client) => {
    if (copied !== undefined) await client.query(passwordsSql(['supabase_admin', ...LOGINS], password))
    else if (!(await isBootstrapped(client))) await client.query(await bootstrapSql(client, password))
    if (template === undefined || copied !== undefined) await createPartitions(client)
  })
  if (template === undefined || copied !== undefined) return
  await postgres.withDataAtRest((data) => template.save(data, password))
  await connected(postgres.admin, createPartitions)
}

async function connected(
  address: DatabaseAddress,
  work: (client: pg.Client) => Promise<void>,
): Promise<void> {
  const client = new pg.Client(address)
  await client.connect()
  try {
    await work(client)
  } finally {
    await client.end()
  }
}

/** Yesterday to three days from now, as Realtime keeps them. */
async function createPartitions(client: pg.Client): Promise<void> {
  await client.query(`select realtime_local.create_partitions((now() at time zone 'utc')::date - 1, 5)`)
}

async function isBootstrapped(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query(`select to_regclass('realtime.messages') is not null as done`)
  return rows[0].done
}

async function bootstrapSql(client: pg.Client, password: string): Promise<string> {
  const files = await bootstrapFiles()
  const { rows } = await client.query(
    `select current_setting('server_version_num')::int >= 160000 as grants_say`,
  )
  // Before version 16 the role alone says whether it inherits.
  const roles = (sql: string) => (rows[0].grants_say ? sql : sql.replaceAll(' with inherit false', ''))
  return ['begin;', ...files.map(roles), passwordsSql(LOGINS, password), 'commit;'].join('\n')
}

function passwordsSql(roles: readonly string[], password: string): string {
  return roles.map((role) => `alter role ${role} password ${pg.escapeLiteral(password)};`).join('\n')
}
