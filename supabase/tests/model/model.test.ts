import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import fc from 'fast-check'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { installSql } from '../../../sdk/src/cli/migration-sql.ts'
import { stir } from './commotion.ts'
import { Coverage } from './coverage.ts'
import { Database } from './database.ts'
import { Driver } from './driver.ts'
import { commotion, history } from './flows.ts'

/**
 * A plain run drives the same 400 histories each time (in CI 600); MODEL_RUNS=20000 drives that many others, and prints what occurred in them.
 * A failure prints its seed and path, and what it shrank to; to see it again:
 * MODEL_SEED=… MODEL_PATH=… npx vitest run supabase/tests/model -t "<name of the test>"
 */
const { MODEL_RUNS = process.env.CI ? '600' : '400', MODEL_SEED, MODEL_PATH } = process.env
const runs = Number(MODEL_RUNS)
const firstSeed = Number(MODEL_SEED ?? (process.env.MODEL_RUNS ? Date.now() % 2 ** 31 : 1))
const seedsOf = (parts: number) => Array.from({ length: MODEL_PATH ? 1 : parts }, (_, n) => firstSeed + n)
const hour = 3_600_000

const coverage = new Coverage()
let stack: LocalSupabase
const databases: Database[] = []

beforeAll(async () => {
  stack = await startLocalSupabase({ fsync: false })
  const admin = postgres(stack.adminDbUrl, { max: 1, onnotice: () => undefined })
  await admin`create database model_0 owner postgres`
  const sql = postgres(urlOf('model_0'), { max: 1, onnotice: () => undefined })
  await sql.unsafe(await installSql())
  await sql.end()
  for (let n = 1; n <= 6; n++) {
    await admin`create database ${admin(`model_${n}`)} owner postgres template model_0`
  }
  await admin.end()
})

afterAll(async () => {
  await Promise.all(databases.map((database) => database.end()))
  await stack?.stop()
})

function urlOf(database: string): string {
  return Object.assign(new URL(stack.dbUrl), { pathname: database }).href
}

/** A database of its own, since the clock ticks for all that is in one. */
function connect(count = 1): Database {
  const database = new Database(urlOf(`model_${databases.length + 1}`), count)
  databases.push(database)
  return database
}

function parameters<T>(seed: number, numRuns: number): fc.Parameters<T> {
  return { seed, numRuns, ...(MODEL_PATH && { path: MODEL_PATH, endOnFailure: true }) }
}

describe('the engine does what the model says', () => {
  const seeds = seedsOf(4)
  test.concurrent.each(seeds)(
    'operation by operation, seed %i',
    async (seed) => {
      const database = connect()
      const property = fc.asyncProperty(history, (it) => Driver.drive(database, it, coverage))
      await fc.assert(property, parameters(seed, Math.ceil((0.8 * runs) / seeds.length)))
    },
    hour,
  )
})

// Of fewer histories, some may have nothing of the rarest.
test.skipIf(runs < 400 || MODEL_PATH)('children, loops and undo occur in all their ways', () => {
  if (MODEL_RUNS === process.env.MODEL_RUNS) process.stdout.write(`${JSON.stringify(coverage, null, 2)}\n`)
  expect(coverage.missing).toEqual([])
})

describe('runs end as the model says', () => {
  const seeds = seedsOf(2)
  test.concurrent.each(seeds)(
    'whatever several workers do at once, seed %i',
    async (seed) => {
      const database = connect(4)
      const property = fc.asyncProperty(commotion, (it) => stir(database, it))
      await fc.assert(property, parameters(seed, Math.ceil((0.2 * runs) / seeds.length)))
    },
    hour,
  )
})
