import type { Input } from '../contenders/contender.ts'
import { type Entry, ended, inTurn, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import { percentile } from '../measure.ts'
import type { Scenario } from './scenario.ts'

/** How long to wait between runs, so that the worker is idle; varied, so that no poll is met at the same time. */
const PAUSE_MS = 60

/** Milliseconds of each of some runs, one after the other. */
export async function timesOf(
  entry: Entry,
  runs: number,
  input: Input,
  run: (input: Input) => Promise<unknown>,
) {
  const times: number[] = []
  for (let n = 0; n < runs; n++) {
    await new Promise((done) => setTimeout(done, PAUSE_MS + (n % 7) * 10))
    const began = performance.now()
    await run(input)
    times.push(performance.now() - began)
  }
  await ended(entry, 5)
  return times
}

/** One run at a time on an idle worker: from the start to the end, which a query every 2 ms notices. */
export const latency: Scenario = {
  about:
    'one run at a time on an idle worker: from the call that starts it to its end, and to the result that its client awaits',
  fits: ({ name }) => !/by SQL|pgmq|broadcast|graphile.*batches/.test(name),
  async measure(contenders, { rounds = 3, runs = 30 }) {
    const report = new Report(
      'latency',
      {
        p50: { title: 'to the end, p50, ms', better: 'lower' },
        p95: { title: 'to the end, p95, ms', better: 'lower' },
        awaited50: { title: 'to the awaited result, p50, ms', better: 'lower' },
        awaited95: { title: 'to the awaited result, p95, ms', better: 'lower' },
      },
      { runs, rounds },
    )
    await withEntries(contenders, (entries) =>
      inTurn(entries, rounds, async (entry, round) => {
        const [worker] = await entry.processes(1)
        await worker?.go()
        const { starter } = entry
        const times = await timesOf(entry, runs, { n: 1 }, async (input) => {
          await starter.start(input)
          await ended(entry, 2)
        })
        const awaited =
          starter.result &&
          (await timesOf(
            entry,
            Math.ceil(runs / 4),
            { n: 1 },
            (input) => starter.result?.(input) as Promise<unknown>,
          ))
        await worker?.stop()
        if (round === 0) return
        report.add(entry.contender.name, {
          p50: percentile(times, 50),
          p95: percentile(times, 95),
          ...(awaited && { awaited50: percentile(awaited, 50), awaited95: percentile(awaited, 95) }),
        })
      }),
    )
    return [report]
  },
}
