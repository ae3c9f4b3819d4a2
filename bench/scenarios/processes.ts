import { type Entry, ended, inTurn, startAll, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import type { Scenario } from './scenario.ts'

const STEPS = 3
const COUNTS = [1, 2, 4, 8]

/**
 * The throughput of several worker processes on one database, and how many sessions wait for a lock meanwhile. The workers
 * are idle when the runs are started with one call, where there is one; else the runs are started before the workers.
 */
export const processes: Scenario = {
  about: 'steps a second of 1, 2, 4 and 8 worker processes, and how many sessions wait for a lock meanwhile',
  fits: ({ name }) => /^ours, (defaults|tuned)$|core.*tuned|DBOS|openworkflow/.test(name),
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
          const workers = await entry.processes(count)
          const go = () => Promise.all(workers.map((worker) => worker.go()))
          if (entry.starter.startMany) {
            await go()
            await entry.starter.startMany(runs)
          } else {
            await startAll(entry, runs)
            await go()
          }
          const waits = sampleWaits(entry)
          const began = performance.now()
          await ended(entry, 20)
          found[`steps${count}`] = (runs * STEPS * 1000) / (performance.now() - began)
          found[`waits${count}`] = await waits.stop()
          await Promise.all(workers.map((worker) => worker.stop()))
        }
        if (round > 0) report.add(entry.contender.name, found)
      }),
    )
    return [report]
  },
}

/** Counts sessions that wait for a lock ten times a second; answers with the mean. */
function sampleWaits({ admin }: Entry): { stop(): Promise<number> } {
  const samples: number[] = []
  let isStopping = false
  const sampling = (async () => {
    while (!isStopping) {
      const [row] = await admin`
        select count(*)::int as waiting from pg_stat_activity where wait_event_type = 'Lock'`
      samples.push(row?.waiting)
      await new Promise((done) => setTimeout(done, 100))
    }
  })()
  return {
    async stop() {
      isStopping = true
      await sampling
      return samples.reduce((sum, sample) => sum + sample, 0) / samples.length
    },
  }
}
