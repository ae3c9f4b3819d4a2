import { OpenWorkflow } from 'openworkflow'
import { BackendPostgres } from 'openworkflow/postgres'
import { connect } from '../lib/connect.ts'
import { type Contender, type Input, outputOf } from './contender.ts'

const CONCURRENCY = 100

async function define(url: string) {
  const backend = await BackendPostgres.connect(url, { runMigrations: false })
  const ow = new OpenWorkflow({ backend })
  const chain = ow.defineWorkflow<Input, unknown>({ name: 'chain' }, async ({ input, step }) => {
    await step.run({ name: 'a' }, () => outputOf(input))
    await step.run({ name: 'b' }, () => outputOf(input))
    return step.run({ name: 'c' }, () => outputOf(input))
  })
  return { backend, ow, chain }
}

const openworkflow: Contender = {
  name: 'openworkflow 0.10.1',
  async install(stack) {
    const backend = await BackendPostgres.connect(stack.adminDbUrl)
    await backend.stop()
  },
  async open(stack) {
    const sql = connect(stack.adminDbUrl, 1)
    const { backend, chain } = await define(stack.adminDbUrl)
    return {
      start: (input) => chain.run(input),
      result: async (input) => (await chain.run(input)).result(),
      async countOpen() {
        const [row] = await sql`
          select count(*)::int as open from openworkflow.workflow_runs where status in ('pending', 'running')`
        return row?.open
      },
      async close() {
        await backend.stop()
        await sql.end()
      },
    }
  },
  async work(url) {
    const { backend, ow } = await define(url)
    const worker = ow.newWorker({ concurrency: CONCURRENCY })
    await worker.start()
    return {
      async stop() {
        await worker.stop()
        await backend.stop()
      },
    }
  },
}

export const contenders = [openworkflow]
