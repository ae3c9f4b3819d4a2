import { fileURLToPath } from 'node:url'
import postgres, { type Sql } from 'postgres'

/** The chapters of the schema. */
export const migrations = fileURLToPath(new URL('../../supabase/migrations', import.meta.url))

/** A pool of connections that prints no notices. */
export function connect(url: string, max: number): Sql {
  return postgres(url, { max, onnotice: () => undefined })
}
