/**
 * The plan of every hot statement with many finished runs in the tables, beside the same with none: each must use an
 * index condition on every table that grows, and read no more for it than a taller tree costs.
 *
 *   npm run bench plans            FINISHED=1000000
 */
import { fileURLToPath } from 'node:url'
import { startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { table } from './measure.ts'
import { type Plan, statementsOf } from './plans/explain.ts'
import { fill } from './plans/fill.ts'
import { exercise } from './plans/exercise.ts'

const finished = Number(process.env.FINISHED ?? 1_000_000)
const migrations = fileURLToPath(new URL('../supabase/migrations', import.meta.url))

await using stack = await startLocalSupabase({ migrations: [migrations], fsync: false })

/** What all calls do, in a session of its own: plans are made anew, with the tables as they are. */
async function explain(): Promise<Map<string, ReturnType<typeof statementsOf> extends Map<string, infer S> ? S : never>> {
  const plans: Plan[] = []
  const sql: Sql = postgres(stack.adminDbUrl, {
    max: 1,
    onnotice: ({ message }) => {
      const json = /plan:\s*(\{[\s\S]*\})/.exec(message ?? '')?.[1]
      if (json) plans.push(JSON.parse(json))
    },
  })
  await exercise(sql) // the first calls of a session read catalogs, too
  await sql.unsafe(`
    load 'auto_explain';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_level = notice;
    set auto_explain.log_format = json;
    set auto_explain.log_analyze = on;
    set auto_explain.log_buffers = on;
    set auto_explain.log_timing = off;
    set auto_explain.log_nested_statements = on`)
  await exercise(sql)
  await sql.end()
  return statementsOf(plans)
}
