import { drained, inTurn, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import type { Scenario } from './scenario.ts'

const STEPS = 3

/** Runs are started, then drained by one worker process. */
export const throughput: Scenario = {
  about: '1,000 runs of a chain of three steps, started and then drained by one worker process',
  async measure(contenders, { rounds = 4, runs = 1000 }) {
    const report = new Report(
      'throughput',
      {
        steps: { title: 'steps/s', better: 'higher' },
        wal: { title: 'WAL a step, bytes', better: 'lower' },
        postgres: { title: 'CPU of Postgres a step, ms', better: 'lower', digits: 2 },
        worker: { title: 'CPU of the worker a step, ms', better: 'lower', digits: 2 },
      },
      { runs, rounds },
    )
    report.chart = { figure: 'steps', title: 'Steps a second of a chain of three steps, one worker process' }
    await withEntries(contenders, (entries) =>
      inTurn(entries, rounds, async (entry, round) => {
        const { seconds, wal, postgres, workers } = await drained(entry, runs, 1)
        const steps = runs * STEPS
        if (round === 0) return
        report.add(entry.contender.name, {
          steps: steps / seconds,
          wal: wal / steps,
          postgres: postgres / steps,
          worker: workers / steps,
        })
      }),
    )
    return [report]
  },
}
