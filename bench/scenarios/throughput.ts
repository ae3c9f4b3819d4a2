import { drained, type Entry, inTurn, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import { writtenBy } from '../lib/wal.ts'
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
    let log: Report | undefined
    await withEntries(contenders, async (entries) => {
      await inTurn(entries, rounds, async (entry, round) => {
        const { seconds, wal, postgres, workers } = await drained(entry, runs, 1)
        const steps = runs * STEPS
        if (round === 0) return
        report.add(entry.contender.name, {
          steps: steps / seconds,
          wal: wal / steps,
          postgres: postgres / steps,
          worker: workers / steps,
        })
      })
      log = await logByRelation(entries, runs)
    })
    return log ? [report, log] : [report]
  },
}

/** Which tables and indexes the log of a step is of, with ours and bare pgmq. */
async function logByRelation(entries: readonly Entry[], runs: number): Promise<Report | undefined> {
  const looked = entries.filter(({ contender }) => /^ours, defaults|pgmq/.test(contender.name))
  if (looked.length === 0) return undefined
  const figures = looked.map(({ contender: { name } }) => [name, { title: `${name}, bytes a step` }])
  const report = new Report('wal', Object.fromEntries(figures), { runs })
  for (const entry of looked) {
    const { bytes, relations } = await writtenBy(entry.admin, () => drained(entry, runs, 1))
    for (const [relation, some] of [['all', bytes] as const, ...relations]) {
      const perStep = some / (runs * STEPS)
      if (perStep >= 1) report.add(relation, { [entry.contender.name]: perStep })
    }
  }
  return report
}
