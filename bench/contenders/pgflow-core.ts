import { fileURLToPath } from 'node:url'
import { PgflowSqlClient, type StepTaskKey } from '@pgflow/core'
import { connect } from '../lib/connect.ts'
import { type Contender, type Input, outputOf, START_CONNECTIONS } from './contender.ts'

interface Settings {
  concurrency: number
  connections: number
  batch: number
  /** Of a read that waits for messages. */
  pollSeconds: number
  pollMs: number
}

/** The defaults that its documentation gives for its edge worker, which npm does not have. */
const EDGE_WORKER: Settings = { concurrency: 10, connections: 4, batch: 10, pollSeconds: 2, pollMs: 100 }
const TUNED: Settings = { concurrency: 100, connections: 10, batch: 100, pollSeconds: 2, pollMs: 20 }
const VISIBILITY_SECONDS = 30

const migrations = fileURLToPath(
  new URL('../node_modules/@pgflow/core/dist/supabase/migrations', import.meta.url),
)

type Task = StepTaskKey & { input: { run: Input } }

/** Reads messages while there are free slots, and completes each task when it is done, through its own client. */
function core(name: string, settings: Settings): Contender {
  return {
    name,
    migrations: [migrations],
    async install(stack) {
      const sql = connect(stack.dbUrl, 1)
      await sql`select pgflow.create_flow('chain')`
      await sql`select pgflow.add_step('chain', 'a')`
      await sql`select pgflow.add_step('chain', 'b', array['a'])`
      await sql`select pgflow.add_step('chain', 'c', array['b'])`
      await sql.end()
    },
    async open(stack) {
      const sql = connect(stack.dbUrl, START_CONNECTIONS)
      return {
        start: (input) => sql`select run_id from pgflow.start_flow('chain', ${sql.json({ ...input })})`,
        startMany: (count) => sql`
          select count(*) from generate_series(1, ${count}::int) n, pgflow.start_flow('chain', jsonb_build_object('n', n)) r`,
        async countOpen() {
          const [row] = await sql`select count(*)::int as open from pgflow.runs where status = 'started'`
          return row?.open
        },
        close: () => sql.end(),
      }
    },
    async work(url) {
      const sql = connect(url, settings.connections)
      const client = new PgflowSqlClient<never>(sql as never)
      const worker = crypto.randomUUID()
      await sql`insert into pgflow.workers (worker_id, queue_name, function_name) values (${worker}, 'chain', 'bench')`
      const running = new Set<Promise<void>>()
      let isStopping = false
      const loop = async () => {
        const { batch, concurrency, pollSeconds, pollMs } = settings
        while (!isStopping) {
          const free = Math.min(batch, concurrency - running.size)
          if (free === 0) {
            await Promise.race(running)
            continue
          }
          const messages = await client.readMessages('chain', VISIBILITY_SECONDS, free, pollSeconds, pollMs)
          if (messages.length === 0) continue
          const ids = messages.map(({ msg_id }) => msg_id)
          for (const task of (await client.startTasks('chain', ids, worker)) as unknown as Task[]) {
            const done: Promise<void> = client
              .completeTask(task, outputOf(task.input.run) as never)
              .finally(() => running.delete(done))
            running.add(done)
          }
        }
        await Promise.all(running)
      }
      const done = loop()
      return {
        async stop() {
          isStopping = true
          await done
          await sql.end()
        },
      }
    },
  }
}

export const contenders = [
  core('@pgflow/core 0.8.1, as its edge worker', EDGE_WORKER),
  core('@pgflow/core 0.8.1, tuned', TUNED),
]
