import { Logger, makeWorkerUtils, run, runMigrations } from 'graphile-worker'
import { connect } from '../lib/connect.ts'
import { type Contender, type Input, outputOf, START_CONNECTIONS } from './contender.ts'

/** A job: the input, and the output of the step before it. */
interface Payload {
  input: Input
  output?: unknown
}

const logger = new Logger(() => () => undefined)

/** The settings of its page on performance. */
const BATCHES = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }

function graphile(name: string, worker: object): Contender {
  return {
    name,
    install: (stack) => runMigrations({ connectionString: stack.adminDbUrl, logger }),
    async open(stack) {
      const sql = connect(stack.adminDbUrl, 1)
      const utils = await makeWorkerUtils({
        connectionString: stack.adminDbUrl,
        maxPoolSize: START_CONNECTIONS,
        logger,
      })
      return {
        start: (input) => utils.addJob('a', { input }),
        startMany: (count) =>
          utils.addJobs(
            Array.from({ length: count }, (_, n) => ({ identifier: 'a', payload: { input: { n } } })),
          ),
        async countOpen() {
          const [row] = await sql`select count(*)::int as open from graphile_worker.jobs`
          return row?.open
        },
        async close() {
          await utils.release()
          await sql.end()
        },
      }
    },
    async work(url) {
      const step =
        (next?: string) =>
        async (payload: unknown, helpers: { addJob: (...args: never[]) => Promise<unknown> }) => {
          const { input } = payload as Payload
          if (next) await helpers.addJob(...([next, { input, output: outputOf(input) }] as never[]))
        }
      const runner = await run({
        preset: {
          worker: { connectionString: url, concurrentJobs: 24, maxPoolSize: 25, logger, ...worker },
        },
        taskList: { a: step('b'), b: step('c'), c: step() },
        noHandleSignals: true,
      } as never)
      return { stop: () => runner.stop() }
    },
  }
}

export const contenders = [
  graphile('graphile-worker 0.18.0', {}),
  graphile('graphile-worker 0.18.0, batches', BATCHES),
]
