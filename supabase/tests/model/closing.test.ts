import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { untilSomebodyWaits } from '../testing/contend.ts'
import { Database } from './database.ts'

let stack: LocalSupabase
let database: Database

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../../migrations', import.meta.url))],
    fsync: false,
  })
  database = new Database(stack.dbUrl, 3)
})

afterAll(async () => {
  await database?.end()
  await stack?.stop()
})

test('a run that is cancelled while its tasks are being claimed closes all of them', async () => {
  const step = {
    slug: 's0',
    deps: [],
    map: { source: 'run', path: [] },
    maxAttempts: 1,
    baseDelay: 0,
    startDelay: 0,
    limits: [],
    concurrency: null,
    collect: null,
    deadline: null,
  }
  const flow = await database.define({
    steps: [{ ...step, whenUnmet: 'fail', whenExhausted: 'fail' }],
    limits: [],
    deadline: null,
  })
  const runId = await database.start(flow, [1, 2, 3])

  let cancelled: Promise<void> | undefined
  await database.sql.begin(async (claiming) => {
    await claiming`select from pgflow.claim_tasks(array[${flow}], 3, gen_random_uuid())`
    cancelled = database.cancel(runId)
    await untilSomebodyWaits(database.sql)
  })
  await cancelled

  const [seen] = await database.observe([runId])
  expect(seen!.tasks.map(({ status }) => status)).toEqual(['cancelled', 'cancelled', 'cancelled'])
  expect(await database.violations(flow)).toEqual([])
})
