import { ended, inTurn, startAll, usageOf, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import { cpuOf } from '../measure.ts'
import type { Scenario } from './scenario.ts'

const STEPS = 3

/** Runs are started, then drained by one worker process: timed from when its worker has connected. */
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
        const before = await usageOf(entry)
        await (entry.starter.startMany ? entry.starter.startMany(runs) : startAll(entry, runs))
        const [worker] = await entry.processes(1)
        if (!worker) return
        const afterStart = await usageOf(entry)
        const workerBefore = cpuOf(worker.pid)
        await worker.go()
        const began = performance.now()
        await ended(entry, 20)
        const seconds = (performance.now() - began) / 1000
        const after = await usageOf(entry)
        const workerAfter = cpuOf(worker.pid)
        await worker.stop()
        const steps = runs * STEPS
        if (round === 0) return
        report.add(entry.contender.name, {
          steps: steps / seconds,
          wal: (after.wal - before.wal) / steps,
          postgres: (after.cpu - afterStart.cpu) / steps,
          worker: (workerAfter - workerBefore) / steps,
        })
      }),
    )
    return [report]
  },
}
