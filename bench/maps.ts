/**
 * A map from its start to its join, with one worker's connection: how long 1,000 and 10,000 items take, and what an
 * item costs more among the many.
 *
 *   npm run bench maps             ROUNDS=5 BATCH=100
 */
import { fileURLToPath } from 'node:url'
import { startLocalSupabase } from '@pgflow/local'
import postgres from 'postgres'
import { measure, median, spread, table } from './measure.ts'
import { drain } from './worker.ts'

const { ROUNDS = '5', BATCH = '100' } = process.env
const SIZES = [1_000, 10_000]

const migrations = fileURLToPath(new URL('../supabase/migrations', import.meta.url))
await using stack = await startLocalSupabase({ migrations: [migrations] })
const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => undefined })
await sql`select pgflow.create_flow('fan', broadcast => 'always')`
await sql`select pgflow.add_step('fan', 'each', step_type => 'map'), pgflow.add_step('fan', 'join', array['each'])`

async function fan(size: number): Promise<number> {
  const { seconds } = await measure(sql, async () => {
    await sql`select pgflow.start_flow('fan', (select jsonb_agg(n) from generate_series(1, ${size}::int) n))`
    await drain(sql, 'fan', Number(BATCH))
  })
  return seconds
}

const times = SIZES.map(() => [] as number[])
for (let round = 0; round <= Number(ROUNDS); round++) {
  for (const [index, size] of SIZES.entries()) {
    const seconds = await fan(size)
    if (round > 0) times[index]?.push(seconds)
  }
}
await sql.end()

const perItem = SIZES.map((size, index) => (median(times[index] ?? []) / size) * 1e6)
table(
  ['items', 'seconds, start to join', 'µs an item', 'against the first'],
  SIZES.map((size, index) => [
    size.toLocaleString('en'),
    spread(times[index] ?? [], 2),
    (perItem[index] ?? Number.NaN).toFixed(0),
    ((perItem[index] ?? Number.NaN) / (perItem[0] ?? Number.NaN)).toFixed(2),
  ]),
)
