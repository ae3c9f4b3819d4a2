import { DBOS, DBOSClient } from '@dbos-inc/dbos-sdk'
import { connect } from '../lib/connect.ts'
import { type Contender, type Input, outputOf, START_CONNECTIONS } from './contender.ts'

/** No limit of its own, and polls as often as its options allow to be sensible; the default is once a second. */
const QUEUE = { minPollingIntervalMs: 20 }
const POOL = 20

const config = (url: string) => ({
  name: 'bench',
  systemDatabaseUrl: url,
  systemDatabasePoolSize: POOL,
  logLevel: 'error',
  applicationVersion: '1',
})

async function chain(input: Input): Promise<unknown> {
  await DBOS.runStep(async () => outputOf(input), { name: 'a' })
  await DBOS.runStep(async () => outputOf(input), { name: 'b' })
  return DBOS.runStep(async () => outputOf(input), { name: 'c' })
}

const dbos: Contender = {
  name: 'DBOS 5.3.0',
  async install(stack) {
    DBOS.setConfig(config(stack.adminDbUrl))
    await DBOS.launch()
    await DBOS.registerQueue('chain', QUEUE)
    await DBOS.shutdown()
  },
  async open(stack) {
    const sql = connect(stack.adminDbUrl, 1)
    const client = await DBOSClient.create({
      systemDatabaseUrl: stack.adminDbUrl,
      systemDatabasePoolSize: START_CONNECTIONS,
    })
    const start = (input: Input) =>
      client.enqueue({ queueName: 'chain', workflowName: 'chain', appVersion: '1' }, input)
    return {
      start,
      result: async (input) => (await start(input)).getResult({ pollingIntervalMs: 20 }),
      async countOpen() {
        const [row] = await sql`
          select count(*)::int as open from dbos.workflow_status where status in ('ENQUEUED', 'PENDING')`
        return row?.open
      },
      async close() {
        await client.destroy()
        await sql.end()
      },
    }
  },
  async work(url) {
    DBOS.setConfig(config(url))
    DBOS.registerWorkflow(chain, { name: 'chain' })
    await DBOS.launch()
    await DBOS.registerQueue('chain', QUEUE)
    return { stop: () => DBOS.shutdown() }
  },
}

export const contenders = [dbos]
