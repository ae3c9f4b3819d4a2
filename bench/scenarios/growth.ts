import { type Drained, drained, type Entry, inTurn, withEntries } from '../lib/arena.ts'
import { connect } from '../lib/connect.ts'
import { Report } from '../lib/report.ts'
import { fill, fillWaiting } from '../plans/fill.ts'
import type { Scenario } from './scenario.ts'

const STEPS = 3
const FLOWS = 1000
const STARTED_AT_ONCE = 10_000

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
    await sql`set synchronous_commit = off`
    for (let started = 0; started < size; started += STARTED_AT_ONCE) {
      await sql`
        select count(*) from pgflow.start_flows(
          'chain', (select jsonb_agg(n) from generate_series(1, ${Math.min(STARTED_AT_ONCE, size - started)}::int) n),
          delay => 1000000)`
    }
    await sql.end()
  },
  'waiting tasks': async ({ stack }, size) => {
    const sql = connect(stack.adminDbUrl, 1)
    await fillWaiting(sql, size / 10)
    await sql.end()
  },
  'other flows': async ({ stack }) => {
    const sql = connect(stack.dbUrl, 1)
    for (let n = 0; n < FLOWS; n += 50) {
      await sql`
        select pgflow.create_flow(slug), pgflow.add_step(slug, 'a')
        from generate_series(${n}::int, ${n + 49}::int) n, format('flow_%s', n) slug`
    }
    await sql.end()
  },
}

/** Throughput beside rows that are there already, each kind on a server of its own. */
export const growth: Scenario = {
  about:
    'throughput beside finished runs and tasks that are not due (100,000 each, --size), waiting tasks (a tenth), 1,000 other flows',
  isSlow: true,
  fits: ({ name }) => name === 'ours, defaults',
  async measure([ours], { rounds = 4, runs = 1000, size = 100_000 }) {
    const report = new Report(
      'growth',
      {
        steps: { title: 'steps/s', better: 'higher' },
        stepsRatio: { title: 'of empty', digits: 2 },
        postgres: { title: 'CPU of Postgres a step, ms', better: 'lower', digits: 2 },
        postgresRatio: { title: 'of empty', digits: 2 },
        wal: { title: 'WAL a step, bytes', better: 'lower' },
        checkpoint: { title: 'after a checkpoint', better: 'lower' },
        checkpointRatio: { title: 'of empty', digits: 2 },
      },
      { runs, rounds, size },
    )
    if (!ours) return []
    const conditions = Object.keys(CONDITIONS)
    await withEntries(Array(conditions.length).fill(ours), async (entries) => {
      const conditionOf = (entry: Entry) => conditions[entries.indexOf(entry)] ?? ''
      for (const entry of entries) {
        const began = performance.now()
        await CONDITIONS[conditionOf(entry)]?.(entry, size)
        await entry.admin`vacuum (analyze)`
        const seconds = ((performance.now() - began) / 1000).toFixed(0)
        process.stderr.write(`${conditionOf(entry)}: filled in ${seconds} s\n`)
      }
      const costs = new Map<string, Costs>()
      // Each round begins with another one: what the last one has left to the machine meets all of them.
      await inTurn(entries, rounds, async (_, round) => {
        const turn = costs.size
        const entry = entries[(round + turn) % entries.length] as Entry
        await entry.admin`checkpoint`
        const afterCheckpoint = await drained(entry, runs, 1)
        costs.set(conditionOf(entry), { afterCheckpoint, usual: await drained(entry, runs, 1) })
        if (costs.size < entries.length) return
        if (round > 0) addTo(report, costs, runs * STEPS)
        costs.clear()
      })
    })
    return [report]
  },
}

interface Costs {
  afterCheckpoint: Drained
  usual: Drained
}

/** What a round has cost, beside what it has cost where nothing was there before. */
function addTo(report: Report, costs: ReadonlyMap<string, Costs>, steps: number): void {
  const empty = costs.get('empty')
  if (!empty) return
  for (const [condition, { usual, afterCheckpoint }] of costs) {
    report.add(`ours, defaults; ${condition}`, {
      steps: steps / usual.seconds,
      stepsRatio: empty.usual.seconds / usual.seconds,
      postgres: usual.postgres / steps,
      postgresRatio: usual.postgres / empty.usual.postgres,
      wal: usual.wal / steps,
      checkpoint: afterCheckpoint.wal / steps,
      checkpointRatio: afterCheckpoint.wal / empty.afterCheckpoint.wal,
    })
  }
}
