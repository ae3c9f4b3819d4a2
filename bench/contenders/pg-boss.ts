import { PgBoss } from 'pg-boss'
import { connect } from '../lib/connect.ts'
import { type Contender, type Input, outputOf, START_CONNECTIONS } from './contender.ts'

/** A job: the input, and the output of the step before it. */
interface Payload {
  input: Input
  output?: unknown
}

const STEPS = ['a', 'b', 'c'] as const
/** A batch is fetched, its next jobs are inserted with one call, and it is completed with one. */
const WORK = { batchSize: 100, localConcurrency: 2, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }

const options = { useListenNotify: true, max: START_CONNECTIONS }

async function start(url: string): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: url, ...options })
  boss.on('error', console.error)
  await boss.start()
  return boss
}

const pgBoss: Contender = {
  name: 'pg-boss 12.38.0, batches',
  async install(stack) {
    const boss = await start(stack.adminDbUrl)
    for (const step of STEPS) await boss.createQueue(step, { notify: true })
    await boss.stop()
  },
  async open(stack) {
    const sql = connect(stack.adminDbUrl, 1)
    const boss = new PgBoss({
      connectionString: stack.adminDbUrl,
      ...options,
      supervise: false,
      schedule: false,
    })
    boss.on('error', console.error)
    await boss.start()
    return {
      start: (input) => boss.send('a', { input }),
      startMany: (count) =>
        boss.insert(
          'a',
          Array.from({ length: count }, (_, n) => ({ data: { input: { n } } })),
        ),
      async countOpen() {
        const [row] = await sql`select count(*)::int as open from pgboss.job where state < 'completed'`
        return row?.open
      },
      async close() {
        await boss.stop({ graceful: false })
        await sql.end()
      },
    }
  },
  async work(url) {
    const boss = await start(url)
    for (const [index, step] of STEPS.entries()) {
      const next = STEPS[index + 1]
      await boss.work<Payload>(step, WORK, async (jobs) => {
        if (!next) return
        const data = jobs.map(({ data: { input } }) => ({ data: { input, output: outputOf(input) } }))
        await boss.insert(next, data)
      })
    }
    return { stop: () => boss.stop({ graceful: true, timeout: 5_000 }) }
  },
}

export const contenders = [pgBoss]
