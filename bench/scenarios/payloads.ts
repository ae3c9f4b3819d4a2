import { ended, inTurn, usageOf, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import { cpuOf, median } from '../measure.ts'
import { timesOf } from './latency.ts'
import type { Scenario } from './scenario.ts'

const SIZES = [
  { name: '1 KB', bytes: 1_000, runs: 10 },
  { name: '100 KB', bytes: 100_000, runs: 10 },
  { name: '5 MB', bytes: 5_000_000, runs: 3 },
]

/** One run at a time on an idle worker, each of whose steps returns a text that does not compress. */
export const payloads: Scenario = {
  about: 'one run at a time on an idle worker, each of whose three steps returns 1 KB, 100 KB, 5 MB',
  fits: ({ name, isAnySize = true }) => isAnySize && !/broadcast|graphile.*batches/.test(name),
  async measure(contenders, { rounds = 3 }) {
    const largest = SIZES.at(-1)?.name
    const figures = SIZES.map(({ name }) => [name, { title: `${name}, ms a run`, better: 'lower' as const }])
    const report = new Report(
      'payloads',
      {
        ...Object.fromEntries(figures),
        postgres: { title: `${largest}, CPU of Postgres, ms`, better: 'lower' },
        worker: { title: `${largest}, CPU of the worker, ms`, better: 'lower' },
        wal: { title: `${largest}, MB of log`, better: 'lower' },
      },
      { rounds },
    )
    await withEntries(contenders, (entries) =>
      inTurn(entries, rounds, async (entry, round) => {
        const [worker] = await entry.processes(1)
        await worker?.go()
        const found: Record<string, number> = {}
        for (const { name, bytes, runs } of SIZES) {
          const before = await usageOf(entry)
          const cpu = cpuOf(worker?.pid ?? 0)
          const times = await timesOf(entry, runs, { bytes }, async (input) => {
            await entry.starter.start(input)
            await ended(entry, 2)
          })
          const after = await usageOf(entry)
          found[name] = median(times)
          // Those of the last size, which is the largest.
          found.postgres = (after.cpu - before.cpu) / runs
          found.worker = (cpuOf(worker?.pid ?? 0) - cpu) / runs
          found.wal = (after.wal - before.wal) / runs / 1e6
        }
        await worker?.stop()
        if (round > 0) report.add(entry.contender.name, found)
      }),
    )
    return [report]
  },
}
