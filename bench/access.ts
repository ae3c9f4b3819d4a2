/**
 * What rights cost where one user has many runs: lists and reads by row level security, for their owner, for a member of
 * their group, and for somebody who may see none of them. Prints the plan of the owner's list.
 *
 *   npm run bench access           RUNS=100000
 */
import { startLocalSupabase } from '@pgflow/local'
import type { TransactionSql } from 'postgres'
import { fillAccess, group, member, owner, stranger } from './access/fill.ts'
import { connect, migrations } from './lib/connect.ts'
import { spread, table } from './measure.ts'

const { RUNS = '100000' } = process.env
const ROUNDS = 9
await using stack = await startLocalSupabase({ migrations: [migrations], fsync: false })
const sql = connect(stack.dbUrl, 1)
const admin = connect(stack.adminDbUrl, 1)
await fillAccess(admin, Number(RUNS))
await admin.end()

/** Calls as a signed-in user does. */
function as<Answer>(user: string, call: (tx: TransactionSql) => Promise<Answer>): Promise<Answer> {
  return sql.begin(async (tx) => {
    await tx`select set_config('request.jwt.claims', ${JSON.stringify({ sub: user, role: 'authenticated' })}, true)`
    await tx.unsafe('set local role authenticated')
    return call(tx)
  }) as Promise<Answer>
}

const list = (args: string) => `select jsonb_array_length(pgflow_public.list_runs(${args})) as n`
const rows = `select count(*)::int as n from (
  select from pgflow.runs order by started_at desc limit 50
) newest`
const calls: [name: string, user: string, call: string][] = [
  ['the owner lists a page', owner, list('')],
  ['the owner lists 1,000', owner, list('quantity => 1000')],
  ['the owner lists what has failed, of which there is nothing', owner, list(`status => 'failed'`)],
  ['the owner lists by metadata that no run has', owner, list(`metadata => '{"n": -1}'`)],
  ['a member lists a page of the group', member, list(`group_id => '${group}'`)],
  ['a member lists 1,000 of the group', member, list(`group_id => '${group}', quantity => 1000`)],
  ['a stranger asks for the group', stranger, list(`group_id => '${group}'`)],
  ['a stranger asks for the owner', stranger, list(`owner_id => '${owner}'`)],
  ['the owner reads the newest rows', owner, rows],
  ['the owner counts all rows', owner, 'select count(*)::int as n from pgflow.runs'],
]

const found: string[][] = []
for (const [name, user, call] of calls) {
  const times: number[] = []
  let n: number | undefined
  for (let round = 0; round <= ROUNDS; round++) {
    await as(user, async (tx) => {
      const start = performance.now()
      const [row] = await tx.unsafe<{ n: number }[]>(call)
      n = row?.n
      if (round > 0) times.push(performance.now() - start)
    })
  }
  found.push([name, String(n), spread(times)])
}
table([`with ${RUNS} runs of one owner`, 'rows', 'ms'], found)

const plan = await as(owner, (tx) =>
  tx.unsafe<{ 'QUERY PLAN': string }[]>(
    `explain (analyze, costs off, timing off) select run_id from pgflow.runs
     where owner_id = (select pgflow.current_user_id()) order by started_at desc limit 50`,
  ),
)
console.log(`\n${plan.map((row) => row['QUERY PLAN']).join('\n')}`)
await sql.end()
