import type { Contender } from '../contenders/contender.ts'
import { drained, type Entry, inTurn, withEntries } from '../lib/arena.ts'
import { connect } from '../lib/connect.ts'
import { Report } from '../lib/report.ts'
import { fill } from '../plans/fill.ts'
import type { Scenario } from './scenario.ts'

const STEPS = 3
const FLOWS = 1000

/** What fills a server before the measurement. */
const CONDITIONS: Record<string, (entry: Entry, size: number) => Promise<void>> = {
  empty: async () => undefined,
  'finished runs': async ({ stack }, size) => {
    const sql = connect(stack.adminDbUrl, 1)
    await fill(sql, size)
    await sql.end()
  },
  'tasks that are not due': async ({ stack }, size) => {
    const sql = connect(stack.dbUrl, 1)
    for (let started = 0; started < size; started += 10_000) {
      await sql`
        select count(*) from pgflow.start_flows(
          'chain', (select jsonb_agg(n) from generate_series(1, ${Math.min(10_000, size - started)}::int) n),
          delay => 1000000)`
    }
    await sql.end()
  },
  flows: async ({ stack }) => {
    const sql = connect(stack.dbUrl, 1)
    for (let n = 0; n < FLOWS; n++) {
      await sql`select pgflow.create_flow(${`flow_${n}`})`
      await sql`select pgflow.add_step(${`flow_${n}`}, 'a')`
    }
    await sql.end()
  },
}

/** The throughput beside many finished runs, tasks that are not due, and other flows, each on a server of its own. */
export const growth: Scenario = {
  about: 'throughput beside a million finished runs, a million tasks that are not due, and 1,000 other flows',
  isSlow: true,
  fits: ({ name }) => name === 'ours, defaults',
  async measure(contenders, { rounds = 4, runs = 1000, size = 1_000_000 }) {
    const report = new Report(
      'growth',
      {
        steps: { title: 'steps/s', better: 'higher' },
        postgres: { title: 'CPU of Postgres a step, ms', better: 'lower', digits: 2 },
        wal: { title: 'WAL a step, bytes', better: 'lower' },
        checkpoint: { title: 'WAL a step after a checkpoint, bytes', better: 'lower' },
      },
      { runs, rounds, size },
    )
    const conditions = Object.keys(CONDITIONS)
    const copies = contenders.flatMap((contender) => conditions.map(() => contender))
    await withEntries(copies, async (entries) => {
      const conditionOf = (entry: Entry) => conditions[entries.indexOf(entry) % conditions.length] ?? ''
      for (const entry of entries) {
        await CONDITIONS[conditionOf(entry)]?.(entry, size)
        await entry.admin`vacuum (analyze)`
        await entry.admin`checkpoint`
      }
      await inTurn(entries, rounds, async (entry, round) => {
        const { seconds, postgres, wal } = await drained(entry, runs, 1)
        await entry.admin`checkpoint`
        const afterCheckpoint = await drained(entry, runs, 1)
        if (round === 0) return
        report.add(nameOf(entry.contender, conditionOf(entry)), {
          steps: (runs * STEPS) / seconds,
          postgres: postgres / (runs * STEPS),
          wal: wal / (runs * STEPS),
          checkpoint: afterCheckpoint.wal / (runs * STEPS),
        })
      })
    })
    return [report]
  },
}

const nameOf = ({ name }: Contender, condition: string) => `${name}; ${condition}`
