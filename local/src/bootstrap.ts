import { readdir, readFile } from 'node:fs/promises'
import pg from 'pg'
import type { Postgres } from './postgres.ts'

const FOLDER = new URL('../sql/', import.meta.url)

/** Makes a Supabase project of a new database, in one transaction; leaves an old one as it is. */
export async function bootstrap(postgres: Postgres, password: string): Promise<void> {
  const client = new pg.Client(postgres.admin)
  await client.connect()
  try {
    if (!(await isBootstrapped(client))) await client.query(await bootstrapSql(client, password))
    // Yesterday to three days from now, as Realtime keeps them.
    await client.query(`select realtime_local.create_partitions((now() at time zone 'utc')::date - 1, 5)`)
  } finally {
    await client.end()
  }
}

async function isBootstrapped(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query(`select to_regclass('realtime.messages') is not null as done`)
  return rows[0].done
}

async function bootstrapSql(client: pg.Client, password: string): Promise<string> {
  const names = (await readdir(FOLDER)).filter((name) => name.endsWith('.sql')).sort()
  const files = await Promise.all(names.map((name) => readFile(new URL(name, FOLDER), 'utf8')))
  const { rows } = await client.query(
    `select current_setting('server_version_num')::int >= 160000 as grants_say`,
  )
  // Before version 16 the role alone says whether it inherits.
  const roles = (sql: string) => (rows[0].grants_say ? sql : sql.replaceAll(' with inherit false', ''))
  const literal = pg.escapeLiteral(password)
  const passwords = ['postgres', 'authenticator'].map((role) => `alter role ${role} password ${literal};`)
  return ['begin;', ...files.map(roles), ...passwords, 'commit;'].join('\n')
}
