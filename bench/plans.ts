/**
 * Every statement that the engine runs, with many finished runs in the tables and with none: each must reach what it
 * needs through an index condition, and look at no more pages for it than a taller tree costs. Ends with an error where
 * one does not.
 *
 *   npm run bench plans            FINISHED=1000000
 */
import { startLocalSupabase } from '@pgflow/local'
import postgres from 'postgres'
import { startRuns } from './lib/chain.ts'
import { connect, migrations } from './lib/connect.ts'
import { drain } from './lib/drain.ts'
import { measure, median, spread, table } from './measure.ts'
import { exercise, prepare } from './plans/exercise.ts'
import { type Explained, type Statement, statementsOf } from './plans/explain.ts'
import { fill } from './plans/fill.ts'

const { FINISHED = '1000000' } = process.env
/** How many more pages a row may cost: a tree of a million rows is two levels taller, and a row may take three lookups. */
const MOST_GROWTH = 6

const ROUNDS = 5
await using stack = await startLocalSupabase({ migrations: [migrations], fsync: false })

/** What one session does after its first calls, which read catalogs too. */
async function explain(): Promise<Map<string, Statement>> {
  const explained: Explained[] = []
  const sql = postgres(stack.adminDbUrl, {
    max: 1,
    onnotice({ message }) {
      const plan = /plan:\s*(\{[\s\S]*\})/.exec(message ?? '')?.[1]
      if (plan) explained.push(JSON.parse(plan))
    },
  })
  await exercise(sql)
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
  return statementsOf(explained)
}

/** Steps a second of 500 runs of the chain, in a session of its own. */
async function throughput(): Promise<number[]> {
  const sql = connect(stack.dbUrl, 1)
  const rates: number[] = []
  for (let round = 0; round <= ROUNDS; round++) {
    await startRuns(sql, 'chain', 500)
    const { seconds } = await measure(sql, () => drain(sql, 'chain', 100))
    if (round > 0) rates.push(1500 / seconds)
  }
  await sql.end()
  return rates
}

const admin = connect(stack.adminDbUrl, 1)
const owner = connect(stack.dbUrl, 1)
await prepare(owner)
await owner.end()
const before = await explain()
const rateBefore = await throughput()
await fill(admin, Number(FINISHED))
const after = await explain()
const rateAfter = await throughput()
await admin.end()

const pagesPerRow = ({ pages, rows }: Statement) => pages / rows
// A call of a function is left out: what the function does is listed by itself.
const found = [...after]
  .filter(([, { rows }]) => rows > 0)
  .map(([text, now]) => {
    const then = before.get(text)
    const growth = then ? pagesPerRow(now) - pagesPerRow(then) : 0
    return { text, now, then, growth, isBad: now.scans.size > 0 || growth > MOST_GROWTH }
  })
table(
  [
    'statement',
    'calls',
    'pages a row, none',
    `pages a row, ${FINISHED} finished`,
    'growth',
    'scans without an index',
  ],
  found
    .sort((a, b) => b.growth - a.growth)
    .map(({ text, now, then, growth }) => [
      text.replaceAll('|', '\\|').slice(0, 90),
      String(now.calls),
      then ? pagesPerRow(then).toFixed(1) : '',
      pagesPerRow(now).toFixed(1),
      growth.toFixed(1),
      [...now.scans].join(', ') || 'none',
    ]),
)
console.log(
  `\nsteps/s with none: ${spread(rateBefore)}, with ${FINISHED}: ${spread(rateAfter)}, ` +
    `ratio ${(median(rateAfter) / median(rateBefore)).toFixed(2)}`,
)
const bad = found.filter(({ isBad }) => isBad)
console.log(`\n${found.length} statements, ${bad.length} that grow or scan a table.`)
process.exitCode = bad.length > 0 ? 1 : 0
