/**
 * One client that watches 1, 200 and 1,000 runs, on the local stack as the platform behaves (`realistic`): how long after
 * the commit of an event its listener is called, how many requests the client makes, what an open run takes of its memory.
 * Commits are durable. Client, worker and stack are processes of their own.
 *
 * The time of a commit is what Postgres notes for the transaction that wrote the event (`track_commit_timestamp`), before
 * the commit is flushed; that of the callback is by the same clock. So it contains the flush, the decoding of the WAL,
 * Realtime, the socket and what the client does.
 *
 *   npm run bench watched            WATCHED=1,200,1000 ROUNDS=5 SECONDS=10 RATE=40
 *
 * SECONDS for which nothing happens, then as long RATE events a second, each by a statement of its own, on a run at random;
 * then a worker completes all runs.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startLocalSupabase } from '@pgflow/local'
import { compile } from '@pgflow/sdk/flow'
import { connect, migrations } from './lib/connect.ts'
import { median, percentile, spread, table } from './measure.ts'
import type { Arrival, Question, Traffic } from './watched/client.ts'
import { Watched } from './watched/flow.ts'

const { WATCHED = '1,200,1000', ROUNDS = '5', SECONDS = '10', RATE = '40' } = process.env
const counts = WATCHED.split(',').map(Number)
const seconds = Number(SECONDS)
const rate = Number(RATE)

await using stack = await startLocalSupabase({ migrations: [migrations], realtime: { realistic: true } })
const admin = connect(stack.adminDbUrl, 1)
await admin.unsafe('alter system set track_commit_timestamp = on')
await admin.end()
await stack.postgres.restart()
const sql = connect(stack.dbUrl, 2)
await sql.unsafe(compile(Watched))

function spawn(script: string, env: Record<string, string>): ChildProcess {
  return fork(fileURLToPath(new URL(`./watched/${script}`, import.meta.url)), {
    execArgv: ['--expose-gc', '--conditions=pgflow-source', '--import', 'tsx'],
    env: { ...process.env, ...env },
  })
}

interface Sample {
  bytesPerRun: number
  idle: Traffic
  busy: Traffic
  /** Rows of `realtime.messages` while the client was busy. */
  messages: number
  paced: number[]
  worker: number[]
}

/** A client of a new user. */
class Client {
  readonly user = randomUUID()
  #child!: ChildProcess

  static async open(runs: number): Promise<Client> {
    const client = new Client()
    client.#child = spawn('client.ts', {
      SUPABASE_URL: stack.url,
      SUPABASE_KEY: stack.publishableKey,
      SUPABASE_TOKEN: await stack.signToken({ sub: client.user }),
      RUNS: String(runs),
    })
    return client
  }

  async ask(question: 'open'): Promise<{ bytesPerRun: number }>
  async ask(question: 'traffic'): Promise<Traffic>
  async ask(question: 'arrivals'): Promise<Arrival[]>
  async ask(question: Question): Promise<unknown> {
    const answer = once(this.#child, 'message')
    this.#child.send(question)
    return (await answer)[0]
  }

  async close(): Promise<void> {
    const exit = once(this.#child, 'exit')
    this.#child.send('close' satisfies Question)
    await exit
  }

  /** Milliseconds from commit to callback, of all events that have come since the last call and should have. */
  async latencies(expected: number): Promise<number[]> {
    const arrivals: Arrival[] = []
    const deadline = performance.now() + 20_000
    while (arrivals.length < expected && performance.now() < deadline) {
      arrivals.push(...(await this.ask('arrivals')))
      await sleep(20)
    }
    if (arrivals.length !== expected) throw new Error(`${arrivals.length} of ${expected} events have come`)
    const events = await sql<{ run_id: string; seq: number; committed: number }[]>`
      select e.run_id, e.seq, (extract(epoch from pg_xact_commit_timestamp(e.xmin)) * 1000)::float8 as committed
      from pgflow.runs r join pgflow.run_events e using (run_id)
      where r.owner_id = ${this.user}`
    const commits = new Map(events.map(({ run_id, seq, committed }) => [`${run_id} ${seq}`, committed]))
    return arrivals.map(([runId, seq, at]) => at - (commits.get(`${runId} ${seq}`) ?? Number.NaN))
  }
}

function between(before: Traffic, after: Traffic): Traffic {
  return {
    requests: after.requests - before.requests,
    joins: after.joins - before.joins,
    frames: after.frames - before.frames,
    channels: after.channels,
  }
}

async function messages(): Promise<number> {
  const [row] = await sql`select count(*)::int as messages from realtime.messages`
  return row?.messages
}

/** Events at a steady rate, which does not depend on how long a statement takes. */
async function pace(runIds: readonly string[]): Promise<number> {
  const began = performance.now()
  const total = seconds * rate
  for (let n = 0; n < total; n++) {
    await sleep(Math.max(0, began + (n * 1000) / rate - performance.now()))
    const runId = runIds[Math.floor(Math.random() * runIds.length)]!
    await sql`update pgflow.step_states set progress = to_jsonb(${n}::int) where run_id = ${runId} and step_slug = 'a'`
  }
  return total
}

async function round(runs: number): Promise<Sample> {
  const client = await Client.open(runs)
  const { bytesPerRun } = await client.ask('open')
  const rows = await sql<{ run_id: string }[]>`
    select r.run_id from pgflow.runs r join pgflow.run_watches w using (run_id) where r.owner_id = ${client.user}`
  if (rows.length !== runs) throw new Error(`${rows.length} of ${runs} runs are watched`)

  const atFirst = await client.ask('traffic')
  await sleep(seconds * 1000)
  const idle = between(atFirst, await client.ask('traffic'))

  const [messagesBefore, trafficBefore] = [await messages(), await client.ask('traffic')]
  const sent = await pace(rows.map(({ run_id }) => run_id))
  const busy = between(trafficBefore, await client.ask('traffic'))
  const paced = await client.latencies(sent)
  const sample = {
    bytesPerRun,
    idle,
    busy,
    messages: (await messages()) - messagesBefore,
    paced,
  }

  const worker = spawn('worker.ts', { DATABASE_URL: stack.dbUrl })
  // Each run has three steps, of which the first has started.
  const drained = await client.latencies(runs * 6)
  const exit = once(worker, 'exit')
  worker.kill('SIGTERM')
  await Promise.all([exit, client.close()])
  return { ...sample, worker: drained }
}

// One to warm up; then rounds in turn, so that what else the machine does meets all alike.
await round(counts[0]!)
const samples = new Map<number, Sample[]>(counts.map((runs) => [runs, []]))
for (let n = 0; n < Number(ROUNDS); n++) {
  for (const runs of counts) samples.get(runs)?.push(await round(runs))
}
await sql.end()

const of = (runs: number, figure: (sample: Sample) => number, digits = 0) =>
  spread((samples.get(runs) ?? []).map(figure), digits)
const p99 = ({ paced }: Sample) => percentile(paced, 99)
const p99OfFirst = (samples.get(counts[0]!) ?? []).map(p99)
table(
  ['runs', 'p50, ms', 'p99, ms', 'slowest, ms', 'p99 against the first'],
  counts.map((runs) => [
    runs.toLocaleString('en'),
    of(runs, ({ paced }) => median(paced), 1),
    of(runs, p99, 1),
    of(runs, ({ paced }) => Math.max(...paced), 1),
    spread(
      (samples.get(runs) ?? []).map((sample, n) => p99(sample) / (p99OfFirst[n] ?? Number.NaN)),
      2,
    ),
  ]),
)
console.log()
table(
  ['runs', 'p50, ms', 'p99, ms', 'slowest, ms'],
  counts.map((runs) => [
    runs.toLocaleString('en'),
    of(runs, ({ worker }) => median(worker), 1),
    of(runs, ({ worker }) => percentile(worker, 99), 1),
    of(runs, ({ worker }) => Math.max(...worker), 1),
  ]),
)
console.log()
table(
  ['runs', 'requests/s, idle', 'requests/s, busy', 'joins', 'channels', 'messages, busy', 'KB a run'],
  counts.map((runs) => [
    runs.toLocaleString('en'),
    of(runs, ({ idle }) => idle.requests / seconds, 2),
    of(runs, ({ busy }) => busy.requests / seconds, 2),
    of(runs, ({ idle, busy }) => idle.joins + busy.joins),
    of(runs, ({ busy }) => busy.channels),
    of(runs, (sample) => sample.messages),
    of(runs, ({ bytesPerRun }) => bytesPerRun / 1000, 1),
  ]),
)
