/**
 * Whether `pgflow.maintain` keeps up: runs are started at half of the maximum rate, a worker process drains them, and one
 * call every ten seconds deletes what is older than ten seconds, as pg_cron would. In six parts of that time: the size of
 * all tables, the log, the time from start to end, the longest call of `maintain`. Nothing of it should grow. Before, how
 * fast `maintain` deletes.
 *
 *   npm run bench retention            MINUTES=2 SHARE=0.5 FINISHED=20000; with MINUTES=30, which takes as long, it is the whole test
 */
import { contenders } from './contenders/ours.ts'
import { type Entry, ended, withEntries } from './lib/arena.ts'
import { connect } from './lib/connect.ts'
import { percentile, spread, table } from './measure.ts'

const { MINUTES = '2', SHARE = '0.5', FINISHED = '20000' } = process.env
const PARTS = 6
const MAINTAIN_EVERY_MS = 10_000
const START_EVERY_MS = 100

const ours = contenders.filter(({ name }) => name === 'ours, defaults')
await withEntries(ours, async ([entry]) => {
  if (!entry) return
  const [worker] = await entry.processes(1)
  await worker?.go()
  const rate = await fastest(entry)
  await deleteAll(entry)
  await keepUp(entry, rate * Number(SHARE))
  await worker?.stop()
})

/** Runs a second that are started and drained at the same time as fast as possible. */
async function fastest(entry: Entry): Promise<number> {
  const BATCH = 1000
  const began = performance.now()
  for (let run = 0; run < Number(FINISHED); run += BATCH) {
    await entry.starter.startMany?.(BATCH)
    await ended(entry, 10)
  }
  const rate = Number(FINISHED) / ((performance.now() - began) / 1000)
  console.log(`runs started and drained a second: ${Math.round(rate)}`)
  return rate
}

async function deleteAll({ admin }: Entry): Promise<void> {
  const calls: number[] = []
  let deleted = 0
  for (let isLeft = true; isLeft; ) {
    const { seconds, done } = await maintain(admin, '0')
    calls.push(seconds)
    deleted += done.runs
    isLeft = done.left
  }
  const seconds = calls.reduce((sum, call) => sum + call, 0)
  console.log(`runs deleted a second: ${Math.round(deleted / seconds)}, a call: ${spread(calls, 2)} s\n`)
}

async function maintain(sql: Entry['admin'], keep: string) {
  const before = performance.now()
  const [row] = await sql`
    select pgflow.maintain(keep_runs => ${keep}::interval, keep_archive => ${keep}::interval) as done`
  return { seconds: (performance.now() - before) / 1000, done: row?.done as { runs: number; left: boolean } }
}

async function keepUp(entry: Entry, rate: number): Promise<void> {
  const until = performance.now() + Number(MINUTES) * 60_000
  const upkeep = connect(entry.stack.dbUrl, 1)
  const calls: number[] = []
  const starting = everyMs(START_EVERY_MS, until, async (elapsed) => {
    const due = Math.round((rate * elapsed) / 1000)
    if (due > 0) await entry.starter.startMany?.(due)
  })
  const keeping = everyMs(MAINTAIN_EVERY_MS, until, async () => {
    calls.push((await maintain(upkeep, '10 seconds')).seconds)
  })
  const rows: string[][] = []
  let wal = await walOf(entry)
  for (let part = 1; part <= PARTS; part++) {
    const seconds = (until - performance.now()) / 1000 / (PARTS - part + 1)
    await new Promise((done) => setTimeout(done, seconds * 1000))
    const now = await look(entry, seconds)
    const walNow = await walOf(entry)
    rows.push([
      `${part} of ${PARTS}`,
      ...[now.finished / seconds, now.runs, now.megabytes, (walNow - wal) / now.finished / 1000].map(
        (value) => Math.round(value).toLocaleString('en'),
      ),
      ...[now.p50, now.p95].map((ms) => ms.toFixed(0)),
      calls.length > 0 ? Math.max(...calls.splice(0)).toFixed(2) : '',
    ])
    wal = walNow
  }
  await Promise.all([starting, keeping])
  await upkeep.end()
  console.log(`${MINUTES} minutes, ${Math.round(rate)} runs a second\n`)
  table(
    [
      ...['part', 'runs ended a second', 'runs that are there', 'MB of tables', 'KB of log a run'],
      ...['start to end, p50, ms', 'p95', 'longest call of maintain, s'],
    ],
    rows,
  )
}

/** Calls in turn, as often as that, until a time; each is told how many milliseconds have passed since the one before. */
async function everyMs(
  pause: number,
  until: number,
  work: (elapsed: number) => Promise<void>,
): Promise<void> {
  for (let last = performance.now(); last < until; ) {
    await new Promise((done) => setTimeout(done, Math.max(0, last + pause - performance.now())))
    const now = performance.now()
    await work(now - last)
    last = now
  }
}

async function walOf({ admin }: Entry): Promise<number> {
  const [row] = await admin`select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as wal`
  return row?.wal
}

/** What is there, and how the runs ended that have ended in the last seconds and are not deleted yet. */
async function look({ admin }: Entry, seconds: number) {
  const [there] = await admin`
    select (select count(*)::int from pgflow.runs) as runs,
           sum(pg_total_relation_size(c.oid))::float8 / 1e6 as megabytes
    from pg_class c
    where c.relkind = 'r' and c.relnamespace in ('pgflow'::regnamespace, 'pgmq'::regnamespace)`
  const recent = await admin`
    select extract(epoch from r.completed_at - r.started_at)::float8 * 1000 as ms
    from pgflow.runs r where r.completed_at > clock_timestamp() - interval '5 seconds'`
  const times = recent.map(({ ms }) => ms as number)
  return {
    finished: (times.length / Math.min(5, seconds)) * seconds,
    runs: there?.runs as number,
    megabytes: there?.megabytes as number,
    p50: percentile(times, 50),
    p95: percentile(times, 95),
  }
}
