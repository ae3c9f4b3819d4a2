import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { Database } from './database.ts'
import { Driver } from './driver.ts'
import { history } from './flows.ts'

/**
 * MODEL_RUNS=20000 for a longer run; MODEL_SEED=… and MODEL_PATH=… (as a failure prints them) to replay one.
 */
const { MODEL_RUNS = '1000', MODEL_SEED, MODEL_PATH } = process.env
const connections = MODEL_PATH === undefined ? 4 : 1
const seed = Number(MODEL_SEED ?? Date.now() % 2 ** 31)

let stack: LocalSupabase
const databases: Database[] = []

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../../migrations', import.meta.url))],
    fsync: false,
  })
})

afterAll(async () => {
  await Promise.all(databases.map((database) => database.end()))
  await stack?.stop()
})

function connect(count = 1): Database {
  const database = new Database(stack.dbUrl, count)
  databases.push(database)
  return database
}

describe('the engine does what the model says', () => {
  test.concurrent.each(Array.from({ length: connections }, (_, n) => seed + n))(
    'seed %i',
    async (seed) => {
      const database = connect()
      await fc.assert(
        fc.asyncProperty(history, (it) => Driver.drive(database, it)),
        {
          seed,
          numRuns: Math.ceil(Number(MODEL_RUNS) / connections),
          ...(MODEL_PATH !== undefined && { path: MODEL_PATH }),
          verbose: 0,
        },
      )
    },
    3_600_000,
  )
})
