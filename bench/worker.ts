/**
 * What a worker process reaches of what its SQL reaches alone, by its options: throughput of a chain of three steps with
 * handlers that do nothing, and the time of one such run while the worker is idle, in its parts. Contenders take turns on one
 * server with durable commits; the scenario `processes` has several processes.
 *
 *   npm run bench worker           RUNS=1000 ROUNDS=4 SINGLES=40 ONLY=<part of names> BEFORE=<another checkout, installed>
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { startLocalSupabase } from '@pgflow/local'
import type { Sql } from 'postgres'
import { createChain, startRuns } from './lib/chain.ts'
import { connect, migrations } from './lib/connect.ts'
import { drain } from './lib/drain.ts'
import { cpuOf, median, percentile, spread, table } from './measure.ts'

const { RUNS = '1000', ROUNDS = '4', SINGLES = '40', ONLY = '', BEFORE } = process.env
const here = fileURLToPath(new URL('..', import.meta.url))
const checkouts = [...(BEFORE ? [['before', BEFORE] as const] : []), ['', here] as const]

await using stack = await startLocalSupabase({ migrations: [migrations] })
const sql = connect(stack.dbUrl, 4)

interface Process {
  child: ChildProcess
  ask(): Promise<{ cpu: number; memory: number }>
  stop(): Promise<unknown>
}

async function startProcess(
  checkout: string,
  flow: string,
  options: object,
  times = false,
): Promise<Process> {
  const child = fork(
    fileURLToPath(new URL('worker/worker.ts', import.meta.url)),
    [checkout, flow, JSON.stringify(options), times ? 'times' : ''],
    { execArgv: ['--import', 'tsx', '--conditions=pgflow-source'] },
  )
  await once(child, 'message')
  return {
    child,
    async ask() {
      child.send('used')
      return (await once(child, 'message'))[0]
    },
    async stop() {
      child.send('stop')
      await once(child, 'exit')
    },
  }
}

/** Asks rarely, since that costs the server too: when the last run ended is read from its row. */
async function allEnded(): Promise<void> {
  for (;;) {
    const [row] = await sql`select exists (select from pgflow.runs where status = 'started') as open`
    if (!row!.open) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

interface Contender {
  name: string
  flow: string
  /** Resolves with what ends it. */
  begin(): Promise<{
    work(): Promise<unknown>
    cpu(): Promise<number>
    memory(): number
    end(): Promise<unknown>
  }>
}

let flows = 0
const newFlow = () => `chain_${++flows}`

function bySql(loops: number, batch: number): Contender {
  const flow = newFlow()
  return {
    name: `SQL alone, ${loops} loops of ${batch}`,
    flow,
    async begin() {
      const own = connect(stack.dbUrl, loops)
      const work = () => Promise.all(Array.from({ length: loops }, () => drain(own, flow, batch)))
      return { work, cpu: async () => Number.NaN, memory: () => Number.NaN, end: () => own.end() }
    },
  }
}

function byWorker([version, checkout]: readonly [string, string], options: object): Contender {
  const flow = newFlow()
  const settings = Object.entries(options).map(([name, value]) => `${name} ${value}`)
  return {
    name: ['worker', version, ...(settings.length ? settings : ['defaults'])].filter(Boolean).join(', '),
    flow,
    async begin() {
      const one = await startProcess(checkout, flow, { connection: stack.dbUrl, ...options })
      let memory = 0
      return {
        work: allEnded,
        async cpu() {
          const used = await one.ask()
          memory = used.memory
          return used.cpu
        },
        memory: () => memory / 1e6,
        end: one.stop,
      }
    },
  }
}

interface Cost {
  rate: number
  worker: number
  server: number
  memory: number
}

async function measured({ flow, begin }: Contender): Promise<Cost> {
  const { work, cpu, memory, end } = await begin()
  await startRuns(sql, flow, 300)
  await work()
  const runs = Number(RUNS)
  await cpu()
  await startRuns(sql, flow, runs)
  const [{ began }] = (await sql`select clock_timestamp() as began`) as unknown as [{ began: Date }]
  const serverBefore = cpuOf(stack.postgres.pid)
  await work()
  const server = cpuOf(stack.postgres.pid) - serverBefore
  const worker = await cpu()
  const [row] = await sql`
    select extract(epoch from max(r.completed_at) - ${began})::float8 as seconds, count(*)::int as runs
    from (select * from pgflow.runs where flow_slug = ${flow} order by run_id desc limit ${runs}) r
    where r.status = 'completed'`
  if (row!.runs !== runs) throw new Error(`${row!.runs} of ${runs} runs completed`)
  await end()
  const thousands = (runs * 3) / 1000
  const rate = (runs * 3) / row!.seconds
  return { rate, worker: worker / thousands, server: server / thousands, memory: memory() }
}

async function throughput(): Promise<void> {
  const contenders = [
    bySql(2, 50),
    bySql(2, 100),
    ...checkouts.flatMap((checkout) => [
      byWorker(checkout, {}),
      byWorker(checkout, { concurrency: 10 }),
      byWorker(checkout, { concurrency: 50 }),
      byWorker(checkout, { concurrency: 100 }),
      byWorker(checkout, { concurrency: 100, maxConnections: 2 }),
      byWorker(checkout, { concurrency: 200, maxConnections: 2 }),
      byWorker(checkout, { concurrency: 400 }),
    ]),
  ].filter(({ name }) => name.includes('SQL') || ONLY.split('|').some((part) => name.includes(part)))
  for (const { flow } of contenders) await createChain(sql, flow, 'never')
  const costs = contenders.map(() => [] as Cost[])
  for (let round = 0; round < Number(ROUNDS); round++) {
    // There and back, so that a load that grows or falls meets all alike.
    const order = round % 2 ? [...contenders.entries()].reverse() : [...contenders.entries()]
    for (const [index, contender] of order) costs[index]!.push(await measured(contender))
    await sql`truncate pgflow.runs cascade`
    await sql.unsafe('vacuum').catch(() => undefined)
  }
  const reference = median(costs[1]!.map(({ rate }) => rate))
  table(
    [
      '',
      'steps/s',
      'of SQL alone, by round',
      'worker ms CPU / 1,000 steps',
      'Postgres ms CPU / 1,000 steps',
      'MB',
    ],
    contenders.map(({ name }, index) => {
      const own = costs[index]!
      const ratios = own.map(({ rate }, round) => rate / costs[1]![round]!.rate)
      return [
        name,
        spread(own.map(({ rate }) => rate)),
        spread(ratios, 2),
        spread(own.map(({ worker }) => worker)),
        spread(own.map(({ server }) => server)),
        Math.round(Math.max(...own.map(({ memory }) => memory))).toString(),
      ]
    }),
  )
  console.log(`reference: ${Math.round(reference)}`)
}

/** Says when a run's row has ended. */
async function endsOf(listener: Sql): Promise<(run_id: string) => Promise<number>> {
  const ends = new Map<string, number>()
  const waiting = new Map<string, (at: number) => void>()
  await sql.unsafe(`
    create function public.announce_end() returns trigger language plpgsql as $$
    begin perform pg_notify('run_ended', new.run_id::text); return null; end $$;
    create trigger announce_end after update of status on pgflow.runs
    for each row when (new.status <> 'started') execute function public.announce_end();`)
  await listener.listen('run_ended', (run_id) => {
    const at = performance.timeOrigin + performance.now()
    const tell = waiting.get(run_id)
    if (tell) tell(at)
    else ends.set(run_id, at)
  })
  return (run_id) =>
    new Promise((resolve) => {
      const at = ends.get(run_id)
      if (at !== undefined) resolve(at)
      else waiting.set(run_id, resolve)
    })
}

async function latency(): Promise<void> {
  const listener = connect(stack.dbUrl, 1)
  const ended = await endsOf(listener)
  const connections: Record<string, object> = {
    'database URL': { connection: stack.dbUrl },
    'transaction pooler': { connection: stack.poolerUrl },
    'REST API': { url: stack.url, secretKey: stack.secretKey },
  }
  const contenders = Object.entries(connections).flatMap(([through, connection]) =>
    checkouts.map(([version, checkout]) => {
      return {
        name: ['worker', version, through].filter(Boolean).join(', '),
        checkout,
        connection,
        flow: newFlow(),
      }
    }),
  )
  const parts = ['start call', 'start to a', 'a to b', 'b to c', 'c to completed', 'all'] as const
  for (const pause of [200, 1300]) {
    const rows: Record<string, number[]>[] = contenders.map(() => ({}))
    const singles = pause > 500 ? Math.ceil(Number(SINGLES) / 2) : Number(SINGLES)
    for (let round = 0; round < 2; round++) {
      for (const [index, { flow, checkout, connection }] of contenders.entries()) {
        if (pause === 200 && round === 0) await createChain(sql, flow, 'never')
        const { child, stop } = await startProcess(checkout, flow, connection, true)
        const handlers = new Map<string, number>()
        child.on('message', ({ runId, step, at }: { runId: string; step: string; at: number }) => {
          handlers.set(`${runId} ${step}`, at)
        })
        for (let n = -5; n < singles / 2; n++) {
          await new Promise((resolve) => setTimeout(resolve, n < 0 ? 20 : pause * (0.9 + Math.random() / 5)))
          const began = performance.timeOrigin + performance.now()
          const [run] = await sql`select run_id from pgflow.start_flow(${flow}, '1')`
          const started = performance.timeOrigin + performance.now()
          const end = await ended(run!.run_id)
          await new Promise((resolve) => setTimeout(resolve, 5))
          if (n < 0) continue
          const [a, b, c] = ['a', 'b', 'c'].map(
            (step) => handlers.get(`${run!.run_id} ${step}`) ?? Number.NaN,
          )
          const times = [started - began, a! - started, b! - a!, c! - b!, end - c!, end - began]
          for (const [place, part] of parts.entries()) {
            rows[index]![part] ??= []
            rows[index]![part]!.push(times[place]!)
          }
        }
        await stop()
      }
    }
    console.log(`\nA run every ${pause} ms:\n`)
    table(
      ['', ...parts, 'all, p95'],
      contenders.map(({ name }, index) => {
        const row = rows[index]!
        return [
          name,
          ...parts.map((part) => median(row[part]!).toFixed(1)),
          percentile(row.all!, 95).toFixed(1),
        ]
      }),
    )
  }
  await listener.end()
}

if (process.env.PART !== 'latency') await throughput()
if (process.env.PART !== 'throughput') await latency()
await sql.end()
