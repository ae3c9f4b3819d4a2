import { inTurn, startAll, usageOf, withEntries } from '../lib/arena.ts'
import { Report } from '../lib/report.ts'
import type { Scenario } from './scenario.ts'

/** Runs are started one call each over 10 connections, and as many with the call for many. */
export const starts: Scenario = {
  about: 'starts a second, one call each over 10 connections, and by the call for many',
  fits: ({ name }) => !/tuned$|by SQL|worker.*, batches/.test(name),
  async measure(contenders, { rounds = 4, runs = 1000 }) {
    const report = new Report(
      'starts',
      {
        single: { title: 'starts/s, one by one', better: 'higher' },
        postgres: { title: 'CPU of Postgres a start, ms', better: 'lower', digits: 2 },
        wal: { title: 'WAL a start, bytes', better: 'lower' },
        batch: { title: 'starts/s, by one call', better: 'higher' },
      },
      { runs, rounds },
    )
    await withEntries(contenders, (entries) =>
      inTurn(entries, rounds, async (entry, round) => {
        const before = await usageOf(entry)
        const began = performance.now()
        await startAll(entry, runs)
        const seconds = (performance.now() - began) / 1000
        const after = await usageOf(entry)
        const batchBegan = performance.now()
        await entry.starter.startMany?.(runs)
        const batchSeconds = (performance.now() - batchBegan) / 1000
        if (round === 0) return
        report.add(entry.contender.name, {
          single: runs / seconds,
          postgres: (after.cpu - before.cpu) / runs,
          wal: (after.wal - before.wal) / runs,
          ...(entry.starter.startMany && { batch: runs / batchSeconds }),
        })
      }),
    )
    return [report]
  },
}
