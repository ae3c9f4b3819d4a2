import { cpus, loadavg } from 'node:os'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import type { Sql } from 'postgres'
import type { Contender, Starter } from '../contenders/contender.ts'
import { cpuOf } from '../measure.ts'
import { connect } from './connect.ts'
import { startProcess, type WorkerProcess } from './processes.ts'

/** A contender on a server of its own, with durable commits. */
export interface Entry {
  contender: Contender
  stack: LocalSupabase
  starter: Starter
  /** A connection of a superuser, for measurements. */
  admin: Sql
  /** The processes whose workers wait for `go`. */
  processes(count: number): Promise<WorkerProcess[]>
  close(): Promise<void>
}

export async function enter(contender: Contender): Promise<Entry> {
  const stack = await startLocalSupabase({ migrations: [...(contender.migrations ?? [])] })
  try {
    await contender.install(stack)
    const starter = await contender.open(stack)
    const admin = connect(stack.adminDbUrl, 1)
    const url = contender.migrations ? stack.dbUrl : stack.adminDbUrl
    return {
      contender,
      stack,
      starter,
      admin,
      processes: (count) => Promise.all(Array.from({ length: count }, () => startProcess(contender, url))),
      async close() {
        await starter.close()
        await admin.end()
        await stack.stop()
      },
    }
  } catch (error) {
    await stack.stop()
    throw error
  }
}

/** Starts a server for each contender, and stops them all after the work. */
export async function withEntries(
  contenders: readonly Contender[],
  work: (entries: Entry[]) => Promise<void>,
): Promise<void> {
  const entries: Entry[] = []
  try {
    for (const contender of contenders) entries.push(await enter(contender))
    await work(entries)
  } finally {
    await Promise.all(entries.map((entry) => entry.close()))
  }
}

/** Calls in turn, so that what else the machine does meets all alike; the first round warms up and has the number 0. */
export async function inTurn(
  entries: readonly Entry[],
  rounds: number,
  work: (entry: Entry, round: number) => Promise<void>,
): Promise<void> {
  for (let round = 0; round <= rounds; round++) {
    for (const entry of entries) await work(entry, round)
    const [load = 0] = loadavg()
    process.stderr.write(`round ${round} of ${rounds}, load ${load.toFixed(1)} on ${cpus().length} cores\n`)
  }
}

/** Starts a run for each number, over the starter's connections. */
export async function startAll({ starter }: Entry, count: number): Promise<void> {
  let next = 0
  const loop = async () => {
    while (next < count) await starter.start({ n: next++ })
  }
  await Promise.all(Array.from({ length: 10 }, loop))
}

/** Resolves when no run is open. */
export async function ended(
  { starter, contender }: Entry,
  everyMs: number,
  timeoutMs = 180_000,
): Promise<void> {
  const until = performance.now() + timeoutMs
  for (;;) {
    const open = await starter.countOpen()
    if (open === 0) return
    if (performance.now() > until) throw new Error(`${contender.name} left ${open} runs open`)
    await new Promise((done) => setTimeout(done, everyMs))
  }
}

/** What draining has cost. */
export interface Drained {
  seconds: number
  /** Milliseconds of CPU. */
  postgres: number
  workers: number
  /** Of the start too, in bytes. */
  wal: number
}

/**
 * Starts runs and drains them with worker processes, timed from when the runs are there and the workers work: the workers
 * are idle when one call starts all runs; where there is no such call, the runs are started before the workers.
 */
export async function drained(
  entry: Entry,
  runs: number,
  count: number,
  during: () => () => Promise<void> = () => async () => undefined,
): Promise<Drained> {
  const { starter } = entry
  const workers = await entry.processes(count)
  const go = () => Promise.all(workers.map((worker) => worker.go()))
  const cpuOfWorkers = () => workers.reduce((sum, { pid }) => sum + cpuOf(pid), 0)
  if (starter.startMany) await go()
  const { wal } = await usageOf(entry)
  await (starter.startMany ? starter.startMany(runs) : startAll(entry, runs))
  let began = performance.now()
  const cpu = { postgres: cpuOf(entry.stack.postgres.pid), workers: cpuOfWorkers() }
  if (!starter.startMany) {
    await go()
    began = performance.now()
  }
  const after = during()
  await ended(entry, 20)
  const seconds = (performance.now() - began) / 1000
  const used = await usageOf(entry)
  await after()
  const cost = {
    seconds,
    postgres: used.cpu - cpu.postgres,
    workers: cpuOfWorkers() - cpu.workers,
    wal: used.wal - wal,
  }
  await Promise.all(workers.map((worker) => worker.stop()))
  return cost
}

/** What a server has done so far. */
export interface Usage {
  /** Milliseconds of CPU. */
  cpu: number
  /** Bytes of write-ahead log. */
  wal: number
  transactions: number
}

export async function usageOf({ admin, stack }: Entry): Promise<Usage> {
  const [row] = await admin`
    select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as wal,
      (select sum(xact_commit + xact_rollback)::float8 from pg_stat_database) as transactions`
  return { cpu: cpuOf(stack.postgres.pid), wal: row?.wal, transactions: row?.transactions }
}
