import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import pg from 'pg'

const folder = fileURLToPath(new URL('../', import.meta.url))

/** The pgTAP files. */
export const files = readdirSync(folder).filter((name) => name.endsWith('.test.sql'))

/**
 * Prepares a server for pgTAP files, as a superuser. They are all rolled back: what autovacuum would say of their tables, or not,
 * depends on when it looks, and would decide between plans that take milliseconds and minutes.
 */
export async function withoutAutovacuum(adminUrl: string): Promise<void> {
  const client = new pg.Client(adminUrl)
  await client.connect()
  try {
    await client.query('alter system set autovacuum = off')
    await client.query('select pg_reload_conf()')
  } finally {
    await client.end()
  }
}

/** Runs a pgTAP file as `supabase test db` does and returns its TAP lines. */
export async function tapOf(dbUrl: string, file: string): Promise<string[]> {
  const client = new pg.Client(dbUrl)
  await client.connect()
  try {
    await client.query('set search_path = public, extensions')
    const results = await client.query({ text: readFileSync(folder + file, 'utf8'), rowMode: 'array' })
    return [results]
      .flat()
      .flatMap((result) => result.rows as unknown[][])
      .flatMap(([value]) => String(value).split('\n'))
      .filter((line) => /^(ok|not ok|1\.\.|#)/.test(line.trimStart()))
  } finally {
    await client.end()
  }
}

/** What is wrong with the lines of a file; empty where all tests have passed. */
export function failuresIn(lines: string[]): string[] {
  const planned = lines.flatMap((line) => /^1\.\.(\d+)/.exec(line)?.[1] ?? [])
  const passed = lines.filter((line) => line.startsWith('ok'))
  const others = lines.filter((line) => !line.startsWith('ok') && !line.startsWith('1..'))
  return passed.length === Number(planned[0])
    ? others
    : [...others, `${passed.length} of ${planned[0]} passed`]
}
