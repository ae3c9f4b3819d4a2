/**
 * What single calls cost in one session, as multiples of what bare pgmq costs in the same session: a start, a task that is
 * settled while the next one is claimed, batches, the first call of a connection, claims beside empty flows, and the log
 * that a step writes. Commits are durable. With BEFORE, a folder, the migrations in it run in turn with these.
 *
 *   npm run bench calls            ROUNDS=7 CALLS=100 FLOWS=50,1000
 *   git archive <commit> supabase/migrations | tar x -C /tmp/before
 *   BEFORE=/tmp/before/supabase/migrations npm run bench calls
 */
import {
  addEmptyFlows,
  cpuOfSession,
  type Engine,
  emptyFlows,
  openSession,
  type Session,
  settleAndClaim,
  startEngine,
  type Task,
} from './calls/engine.ts'
import { type Log, logOf } from './calls/log.ts'
import { migrations } from './lib/connect.ts'
import { median, spread, table } from './measure.ts'

const { ROUNDS = '7', CALLS = '100', BEFORE, FLOWS = '50,1000' } = process.env
const rounds = Number(ROUNDS)
const calls = Number(CALLS)
const flowCounts = FLOWS.split(',').map(Number)

/** Milliseconds a call: as the client waits for it, and of the server's processor. */
interface Call {
  wall: number
  cpu: number
}

/** Of one round. */
interface Round {
  send: Call
  start: Call
  archive: Call
  task: Call
  archive100: Call
  task100: Call
  firstStart: Call
  firstTask: Call
  log: Log
}

/**
 * Beside flows in which nothing happens, by how many they are: a claim that asks for them all, batches of the chain, and its
 * tasks one by one by a worker that has all flows.
 */
interface BesideFlows {
  claim: Call
  task100: Call
  task: Call
}
type Beside = Map<number, BesideFlows>

async function timed(session: Session, quantity: number, call: () => Promise<unknown>): Promise<Call> {
  const times: number[] = []
  const before = cpuOfSession(session)
  for (let n = 0; n < quantity; n++) {
    const began = performance.now()
    await call()
    times.push(performance.now() - began)
  }
  return { wall: median(times), cpu: (cpuOfSession(session) - before) / quantity }
}

async function readAndArchive({ sql }: Session, quantity: number): Promise<void> {
  const read = await sql`select msg_id from pgmq.read('bare', 30, ${quantity}::int)`
  if (read.length !== quantity) throw new Error('the queue is empty')
  await sql`select pgmq.archive('bare', ${read.map(({ msg_id }) => msg_id)}::bigint[])`
}

const start = ({ sql }: Session, flow: string) =>
  sql`select * from pgflow.start_flow(${flow}, '{"path": "README.md"}')`
const startMany = ({ sql }: Session, flow: string, quantity: number) =>
  sql`select count(*) from pgflow.start_flows(${flow}, (select jsonb_agg('{"path": "README.md"}'::jsonb) from generate_series(1, ${quantity}::int)))`

/** Settles and claims in turn until nothing is left: of each call, what it cost. */
async function drain(session: Session, flow: string, batch: number, others: string[] = []): Promise<Call> {
  const flows = [flow, ...others]
  let tasks: Task[] = await settleAndClaim(session.sql, flows, [], batch)
  const times: number[] = []
  const before = cpuOfSession(session)
  let settled = 0
  while (tasks.length > 0) {
    const began = performance.now()
    settled += tasks.length
    tasks = await settleAndClaim(session.sql, flows, tasks, batch)
    times.push(performance.now() - began)
  }
  return { wall: median(times), cpu: ((cpuOfSession(session) - before) / settled) * batch }
}

async function round({ stack, session }: Engine): Promise<Round> {
  const { sql } = session
  const send = await timed(session, calls, () => sql`select pgmq.send('bare', '{"path": "README.md"}')`)
  const archive = await timed(session, calls, () => readAndArchive(session, 1))
  const started = await timed(session, calls, () => start(session, 'chain'))
  const task = await drain(session, 'chain', 1)

  await sql`select from pgmq.send_batch('bare', array_fill('{"path": "README.md"}'::jsonb, array[1000]))`
  const archive100 = await timed(session, 10, () => readAndArchive(session, 100))
  await startMany(session, 'chain', 1000)
  const task100 = await drain(session, 'chain', 100)

  const fresh = await openSession(stack)
  const firstStart = await timed(fresh, 1, () => start(fresh, 'chain'))
  await fresh.sql.end()
  const other = await openSession(stack)
  const tasks = await settleAndClaim(sql, ['chain'], [], 1)
  const firstTask = await timed(other, 1, () => settleAndClaim(other.sql, ['chain'], tasks, 1))
  await other.sql.end()
  await sql`select pgflow.cancel_run(run_id) from pgflow.runs where status = 'started'`

  await startMany(session, 'broadcast_chain', 100) // so that what begins a page after a checkpoint is not counted
  await drain(session, 'broadcast_chain', 100)
  const log = await logOf(stack, {
    unwatched: async () => {
      await startMany(session, 'chain', 300)
      await drain(session, 'chain', 100)
      return 900
    },
    broadcast: async () => {
      await startMany(session, 'broadcast_chain', 300)
      await drain(session, 'broadcast_chain', 100)
      return 900
    },
  })
  return { send, archive, start: started, task, archive100, task100, firstStart, firstTask, log }
}

async function beside({ session }: Engine, flows: string[]): Promise<BesideFlows> {
  const claim = await timed(session, flows.length > 100 ? 5 : 20, () =>
    settleAndClaim(session.sql, flows, [], 1),
  )
  await startMany(session, 'chain', 300)
  const task100 = await drain(session, 'chain', 100)
  await startMany(session, 'chain', 30)
  return { claim, task100, task: await drain(session, 'chain', 1, flows) }
}

const engines = [
  ...(BEFORE ? [await startEngine('before', BEFORE)] : []),
  await startEngine('now', migrations),
]
const results = new Map<Engine, Round[]>(engines.map((engine) => [engine, []]))
const besides = new Map<Engine, Beside[]>(engines.map((engine) => [engine, []]))
// One round to warm up, then rounds in turn: what else the machine does meets all alike.
for (let n = 0; n <= rounds; n++) {
  for (const [engine, list] of results) {
    const result = await round(engine)
    if (n > 0) list.push(result)
  }
}
for (const count of [1, ...flowCounts]) {
  for (const engine of engines) await addEmptyFlows(engine.session.sql, count)
  for (let n = 0; n <= rounds; n++) {
    for (const [engine, list] of besides) {
      const result = await beside(engine, emptyFlows(count))
      if (n === 0) continue
      list[n - 1] ??= new Map()
      list[n - 1]?.set(count, result)
    }
  }
}

const of = (list: Round[], value: (round: Round) => number, digits = 1) => spread(list.map(value), digits)
const claimOf = (beside: Beside, count: number) => beside.get(count)?.claim.wall ?? Number.NaN
const batchOf = (beside: Beside, count: number) => beside.get(count)?.task100.wall ?? Number.NaN
const taskOf = (beside: Beside, count: number) => beside.get(count)?.task.cpu ?? Number.NaN
type Line = [string, (list: Round[], besides: Beside[]) => string]
const rows: Line[] = [
  ['`pgmq.send`, ms', (list) => of(list, ({ send }) => send.wall, 2)],
  ['start, ms', (list) => of(list, ({ start }) => start.wall, 2)],
  ['**start / send**', (list) => of(list, ({ start, send }) => start.wall / send.wall)],
  ['of processor time', (list) => of(list, ({ start, send }) => start.cpu / send.cpu)],
  ['`pgmq.read` + `archive`, ms', (list) => of(list, ({ archive }) => archive.wall, 2)],
  ['task settled and claimed, ms', (list) => of(list, ({ task }) => task.wall, 2)],
  ['**task / read + archive**', (list) => of(list, ({ task, archive }) => task.wall / archive.wall)],
  ['of processor time', (list) => of(list, ({ task, archive }) => task.cpu / archive.cpu)],
  ['100 tasks settled and claimed, ms', (list) => of(list, ({ task100 }) => task100.wall, 1)],
  [
    '100 tasks / read + archive of 100',
    (list) => of(list, ({ task100, archive100 }) => task100.wall / archive100.wall),
  ],
  ['of processor time', (list) => of(list, ({ task100, archive100 }) => task100.cpu / archive100.cpu)],
  ['processor time of a start, ms', (list) => of(list, ({ start }) => start.cpu, 2)],
  ['of a task', (list) => of(list, ({ task }) => task.cpu, 2)],
  ['of one task of 100', (list) => of(list, ({ task100 }) => task100.cpu / 100, 3)],
  ['first start of a connection, ms', (list) => of(list, ({ firstStart }) => firstStart.wall)],
  ['**first / later start**', (list) => of(list, ({ firstStart, start }) => firstStart.wall / start.wall)],
  ['**first / later task**', (list) => of(list, ({ firstTask, task }) => firstTask.wall / task.wall)],
  [
    'empty claim, 1 flow, ms',
    (_, list) =>
      spread(
        list.map((beside) => claimOf(beside, 1)),
        2,
      ),
  ],
  ...flowCounts.flatMap((count): Line[] => [
    [
      `**empty claim, ${count.toLocaleString('en')} flows / 1 flow**`,
      (_, list) =>
        spread(
          list.map((beside) => claimOf(beside, count) / claimOf(beside, 1)),
          1,
        ),
    ],
    [
      `100 tasks beside ${count.toLocaleString('en')} empty flows / beside 1`,
      (_, list) =>
        spread(
          list.map((beside) => batchOf(beside, count) / batchOf(beside, 1)),
          2,
        ),
    ],
    [
      `**task of a worker with ${count.toLocaleString('en')} other flows / with 1**, processor time`,
      (_, list) =>
        spread(
          list.map((beside) => taskOf(beside, count) / taskOf(beside, 1)),
          2,
        ),
    ],
  ]),
  ['**WAL a step, unwatched, bytes**', (list) => of(list, ({ log }) => log.unwatched.bytes, 0)],
  ['**WAL a step, broadcast, bytes**', (list) => of(list, ({ log }) => log.broadcast.bytes, 0)],
]
table(
  ['', ...engines.map(({ name }) => name)],
  rows.map(([name, value]) => [
    name,
    ...engines.map((engine) => value(results.get(engine) ?? [], besides.get(engine) ?? [])),
  ]),
)
const relations = [
  ...new Set(
    [...results.values()].flatMap((list) => [...(list.at(-1)?.log.broadcast.relations.keys() ?? [])]),
  ),
]
if (relations.length > 0) {
  console.log('\nBytes of log a step by relation, broadcast:\n')
  table(
    ['', ...engines.map(({ name }) => name)],
    relations.map((relation) => [
      relation,
      ...[...results.values()].map((list) =>
        of(list, ({ log }) => log.broadcast.relations.get(relation) ?? 0, 0),
      ),
    ]),
  )
}
for (const engine of engines) await engine[Symbol.asyncDispose]()
