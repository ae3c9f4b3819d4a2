import { drained, type Entry, inTurn, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import type { Scenario } from './scenario.ts'

const STEPS = 3
const COUNTS = [1, 2, 4, 8]

/** The throughput of several worker processes on one database, and how many sessions wait for a lock meanwhile. */
export const processes: Scenario = {
  about: 'steps a second of 1, 2, 4 and 8 worker processes, and how many sessions wait for a lock meanwhile',
  fits: ({ name }) => /^ours, (defaults|one exchange)$|core.*tuned|DBOS|openworkflow/.test(name),
  async measure(contenders, { rounds = 3, runs = 1000 }) {
    const figures = COUNTS.flatMap((count) => [
      [`steps${count}`, { title: `${count}: steps/s`, better: 'higher' as const }],
      [`waits${count}`, { title: `${count}: waiting for a lock`, better: 'lower' as const, digits: 1 }],
    ])
    const report = new Report('processes', Object.fromEntries(figures), { runs, rounds })
    await withEntries(contenders, (entries) =>
      inTurn(entries, rounds, async (entry, round) => {
        const found: Record<string, number> = {}
        for (const count of COUNTS) {
          const waits: number[] = []
          const { seconds } = await drained(entry, runs, count, () => sampleWaits(entry, waits))
          found[`steps${count}`] = (runs * STEPS) / seconds
          found[`waits${count}`] = waits.reduce((sum, sample) => sum + sample, 0) / waits.length
        }
        if (round > 0) report.add(entry.contender.name, found)
      }),
    )
    return [report]
  },
}

/** Counts sessions that wait for a lock ten times a second, until it is stopped. */
function sampleWaits({ admin }: Entry, samples: number[]): () => Promise<void> {
  let isStopping = false
  const sampling = (async () => {
    while (!isStopping) {
      const [row] = await admin`
        select count(*)::int as waiting from pg_stat_activity where wait_event_type = 'Lock'`
      samples.push(row?.waiting)
      await new Promise((done) => setTimeout(done, 100))
    }
  })()
  return () => {
    isStopping = true
    return sampling
  }
}
