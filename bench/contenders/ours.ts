import { PgflowClient } from '@pgflow/sdk'
import { compile, Flow } from '@pgflow/sdk/flow'
import { startWorker, type WorkerSettings } from '@pgflow/sdk/worker'
import WebSocket from 'ws'
import { connect, migrations } from '../lib/connect.ts'
import { drain } from '../lib/drain.ts'
import { type Contender, type Input, outputOf, START_CONNECTIONS, type Work } from './contender.ts'

/** @param broadcast whether the events of every run are broadcast, or only those of runs that a client follows */
function chainOf(broadcast: 'always' | 'watched') {
  return new Flow<Input>({ slug: 'chain', broadcast })
    .step('a', ({ run }) => outputOf(run))
    .step('b', ['a'], ({ run }) => outputOf(run))
    .step('c', ['b'], ({ run }) => outputOf(run))
}

const Chain = chainOf('watched')
const BroadcastChain = chainOf('always')

/** As with a transaction pooler's few connections, or to see what the second exchange brings. */
const ONE_EXCHANGE: WorkerSettings = { maxConnections: 2 }
/** Of the loops that take the place of a worker. */
const BATCH = 100

function ours(name: string, work: Contender['work'], flow = Chain): Contender {
  return {
    name,
    migrations: [migrations],
    work,
    async install(stack) {
      const sql = connect(stack.dbUrl, 1)
      await sql.unsafe(compile(flow))
      await sql.end()
    },
    async open(stack) {
      const sql = connect(stack.dbUrl, START_CONNECTIONS)
      // What is older than the last batch does not count: it may be there to be in the way. Ids follow the time.
      let earlier = '00000000-0000-0000-0000-000000000000'
      const { createClient } = await import('@supabase/supabase-js')
      const supabase = createClient(stack.url, stack.secretKey, {
        realtime: { transport: WebSocket as never },
        auth: { persistSession: false },
      })
      const client = new PgflowClient<{ chain: typeof Chain }>(supabase)
      return {
        start: (input) => sql`select run_id from pgflow.start_flow('chain', ${sql.json({ ...input })})`,
        async startMany(count) {
          const [newest] = await sql`select run_id from pgflow.runs order by run_id desc limit 1`
          earlier = newest?.run_id ?? earlier
          await sql`
            select count(*) from pgflow.start_flows(
              'chain', (select jsonb_agg(jsonb_build_object('n', n)) from generate_series(1, ${count}::int) n))`
        },
        async result(input) {
          const run = await client.startFlow('chain', input)
          await run.waitForCompletion()
          run.close()
        },
        async countOpen() {
          const [row] = await sql`
            select count(*)::int as open from pgflow.runs where status = 'started' and run_id > ${earlier}`
          return row?.open
        },
        async close() {
          await supabase.removeAllChannels()
          await sql.end()
        },
      }
    },
  }
}

function worker(settings: WorkerSettings, flow = Chain): Contender['work'] {
  return (url) => startWorker({ connection: url, flows: [flow], ...settings })
}

/** Two loops that settle a batch and claim the next one, without handlers. */
async function loops(url: string): Promise<Work> {
  const sql = connect(url, 2)
  let isStopping = false
  const loop = async () => {
    while (!isStopping) {
      if ((await drain(sql, 'chain', BATCH)) === 1) await new Promise((done) => setTimeout(done, 20))
    }
  }
  const done = Promise.all([loop(), loop()])
  return {
    async stop() {
      isStopping = true
      await done
      await sql.end()
    },
  }
}

export const contenders: Contender[] = [
  ours('ours, defaults', worker({})),
  ours('ours, defaults, all broadcast', worker({}, BroadcastChain), BroadcastChain),
  ours('ours, one exchange', worker(ONE_EXCHANGE)),
  { ...ours('ours, by SQL', loops), isAnySize: false },
]
