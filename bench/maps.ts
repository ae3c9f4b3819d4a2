/**
 * A map from its start to its join, with one worker's connection: how long 1,000 and 10,000 items take, and what an
 * item costs more among the many. Then what one call does with a map of 100,000 items: PostgREST gives a call 8 s.
 *
 *   npm run bench maps             ROUNDS=5 BATCH=100
 */
import { startLocalSupabase } from '@pgflow/local'
import { connect, migrations } from './lib/connect.ts'
import { drain } from './lib/drain.ts'
import { measure, median, spread, table } from './measure.ts'

const { ROUNDS = '5', BATCH = '100' } = process.env
const SIZES = [1_000, 10_000]

await using stack = await startLocalSupabase({ migrations: [migrations] })
const sql = connect(stack.dbUrl, 1)
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

const LARGEST = 100_000
const calls = new Map<string, number[]>()
async function call(name: string, work: () => Promise<unknown>): Promise<void> {
  const { seconds } = await measure(sql, work)
  calls.set(name, [...(calls.get(name) ?? []), seconds])
}
for (let round = 0; round < Number(ROUNDS); round++) {
  let run = ''
  await call('start', async () => {
    const [started] = await sql`
      select run_id from pgflow.start_flow('fan', (select jsonb_agg(n) from generate_series(1, ${LARGEST}::int) n))`
    run = started?.run_id
  })
  await call('cancel', () => sql`select pgflow.cancel_run(${run})`)
  await call('retry', () => sql`select pgflow.retry_run(${run})`)
  await sql`select pgmq.purge_queue('fan')`
  await call('repair after a purge', () => sql`select pgflow.repair()`)
  await sql`select pgflow.cancel_run(${run})`
  await call('prune', () => sql`select pgflow.prune_runs('0')`)
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
console.log()
table(
  [`one call, ${LARGEST.toLocaleString('en')} items`, 'seconds'],
  [...calls].map(([name, seconds]) => [name, spread(seconds, 2)]),
)
