import { ended, inTurn, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import { median } from '../measure.ts'
import { timesOf } from './latency.ts'
import type { Scenario } from './scenario.ts'

const SIZES = [
  { name: '1 KB', bytes: 1_000, runs: 10 },
  { name: '100 KB', bytes: 100_000, runs: 10 },
  { name: '5 MB', bytes: 5_000_000, runs: 2 },
]

/** One run at a time on an idle worker, each of whose steps returns a text. */
export const payloads: Scenario = {
  about: 'one run at a time on an idle worker, each of whose three steps returns 1 KB, 100 KB, 5 MB',
  fits: ({ name, isAnySize = true }) => isAnySize && !/broadcast|graphile.*batches/.test(name),
  async measure(contenders, { rounds = 3 }) {
    const figures = SIZES.map(({ name }) => [name, { title: `${name}, ms a run`, better: 'lower' as const }])
    const report = new Report('payloads', Object.fromEntries(figures), { rounds })
    await withEntries(contenders, (entries) =>
      inTurn(entries, rounds, async (entry, round) => {
        const [worker] = await entry.processes(1)
        await worker?.go()
        const found: Record<string, number> = {}
        for (const { name, bytes, runs } of SIZES) {
          const times = await timesOf(entry, runs, { bytes }, async (input) => {
            await entry.starter.start(input)
            await ended(entry, 2)
          })
          found[name] = median(times)
        }
        await worker?.stop()
        if (round > 0) report.add(entry.contender.name, found)
      }),
    )
    return [report]
  },
}
