/**
 * How fast `pgflow.maintain` deletes finished runs and archived messages, and for how long a call of it runs at most.
 *
 *   npm run bench retention            FINISHED=20000
 */
import { startLocalSupabase } from '@pgflow/local'
import { createChain, startRuns } from './lib/chain.ts'
import { connect, migrations } from './lib/connect.ts'
import { drain } from './lib/drain.ts'
import { spread } from './measure.ts'

const { FINISHED = '20000' } = process.env
await using stack = await startLocalSupabase({ migrations: [migrations] })
const sql = connect(stack.dbUrl, 1)
await createChain(sql)
const started = performance.now()
for (let run = 0; run < Number(FINISHED); run += 500) {
  await startRuns(sql, 'chain', 500)
  await drain(sql, 'chain', 100)
}
const runsPerSecond = Number(FINISHED) / ((performance.now() - started) / 1000)

const calls: number[] = []
let deleted = 0
for (let isLeft = true; isLeft; ) {
  const before = performance.now()
  const [row] = await sql`select pgflow.maintain(keep_runs => '0', keep_archive => '0') as done`
  calls.push((performance.now() - before) / 1000)
  deleted += row?.done.runs
  isLeft = row?.done.left
}
const seconds = calls.reduce((sum, call) => sum + call, 0)
console.log(`runs started and drained a second: ${Math.round(runsPerSecond)}`)
console.log(
  `runs deleted a second: ${Math.round(deleted / seconds)}, a call: ${spread(calls, 2)} s, ${calls.length} calls`,
)
await sql.end()
