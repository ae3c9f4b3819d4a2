import { inTurn, usageOf, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import { cpuOf } from '../measure.ts'
import type { Scenario } from './scenario.ts'

const SETTLE_MS = 5_000
const IDLE_MS = 15_000

/** What a worker costs that has nothing to do. */
export const idle: Scenario = {
  about: 'what one worker costs that has had nothing to do for 5 seconds: transactions and CPU a second',
  fits: ({ name }) => !/by SQL|pgmq|broadcast/.test(name),
  async measure(contenders, { rounds = 1 }) {
    const report = new Report(
      'idle',
      {
        transactions: { title: 'transactions a second', better: 'lower', digits: 1 },
        postgres: { title: 'CPU of Postgres, ms a second', better: 'lower', digits: 1 },
        worker: { title: 'CPU of the worker, ms a second', better: 'lower', digits: 1 },
      },
      { rounds, seconds: IDLE_MS / 1000 },
    )
    await withEntries(contenders, (entries) =>
      inTurn(entries, rounds, async (entry, round) => {
        if (round === 0) return
        const quiet = await costOf(entry, undefined)
        const [worker] = await entry.processes(1)
        await worker?.go()
        const busy = await costOf(entry, worker?.pid)
        await worker?.stop()
        report.add(entry.contender.name, {
          transactions: Math.max(0, busy.transactions - quiet.transactions),
          postgres: Math.max(0, busy.postgres - quiet.postgres),
          worker: busy.worker,
        })
      }),
    )
    return [report]
  },
}

/** Of a server with or without a worker, a second. */
async function costOf(entry: Parameters<typeof usageOf>[0], pid: number | undefined) {
  await new Promise((done) => setTimeout(done, SETTLE_MS))
  const before = await usageOf(entry)
  const cpu = pid ? cpuOf(pid) : 0
  await new Promise((done) => setTimeout(done, IDLE_MS))
  const after = await usageOf(entry)
  return {
    transactions: ((after.transactions - before.transactions) * 1000) / IDLE_MS,
    postgres: ((after.cpu - before.cpu) * 1000) / IDLE_MS,
    worker: (((pid ? cpuOf(pid) : 0) - cpu) * 1000) / IDLE_MS,
  }
}
