import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { type AnyFlow, Flow } from '../flow/index.ts'
import { startWorker, type Worker, type WorkerSettings } from './index.ts'
import { startTestDatabase, type TestDatabase } from './testing/database.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

/** Slugs that no other test has. */
let flows = 0
const newSlug = () => `flow_${++flows}`

async function newWorker(flows: readonly AnyFlow[], settings: WorkerSettings): Promise<Worker> {
  const worker = await startWorker({ connection: db.url, flows, ...settings })
  onTestFinished(() => worker.stop({ gracePeriod: 0 }))
  return worker
}

function numbers(quantity: number): number[] {
  return Array.from({ length: quantity }, (_, n) => n)
}

describe('A worker of many flows', () => {
  it('serves them fairly: a flood in one does not starve another', async () => {
    const [flood, quiet] = [newSlug(), newSlug()]
    const floodFlow = new Flow<number>({ slug: flood }).step('work', ({ run }) => run)
    const quietFlow = new Flow<number>({ slug: quiet })
      .step('one', ({ run }) => run)
      .step('two', ['one'], ({ one }) => one)
    await newWorker([floodFlow, quietFlow], { concurrency: 4 }).then((worker) => worker.stop())
    const floods = await db.startRuns(flood, numbers(400))
    const quiets = await db.startRuns(quiet, numbers(3))

    await newWorker([floodFlow, quietFlow], { concurrency: 4 })
    await Promise.all(quiets.map((run_id) => db.runEnded(run_id)))
    const [row] = await db.sql<{ left: number }[]>`
      select count(*)::int as left from pgflow.runs where flow_slug = ${flood} and status = 'started'`
    expect(row!.left).toBeGreaterThan(200)
    await Promise.all(floods.map((run_id) => db.runEnded(run_id)))
  })
})

describe('Eight workers of one flow', () => {
  it('share its tasks, and run each once', async () => {
    const slug = newSlug()
    const workers = new Set<string>()
    const executions: number[] = []
    let allWork: () => void = () => {}
    const together = new Promise<void>((resolve) => {
      allWork = resolve
    })
    const flow = new Flow<number>({ slug }).step('work', async ({ run }, { workerId }) => {
      executions.push(run)
      if (workers.add(workerId).size === 8) allWork()
      await together
      return run
    })
    await Promise.all(numbers(8).map(() => newWorker([flow], { concurrency: 3 })))
    const run_ids = await db.startRuns(slug, numbers(60))
    await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
    expect(executions.toSorted((a, b) => a - b)).toEqual(numbers(60))
    const tasks = await db.sql`
      select count(distinct last_worker_id)::int as workers, max(attempts_count) as attempts
      from pgflow.step_tasks where flow_slug = ${slug}`
    expect([...tasks]).toEqual([{ workers: 8, attempts: 1 }])
  })
})

describe('A rolling deploy', () => {
  it('loses nothing and repeats nothing: old and new workers run side by side', async () => {
    const slug = newSlug()
    const executions: string[] = []
    const flowOf = (version: string) => {
      return new Flow<number>({ slug })
        .step('one', ({ run }, { runId }) => {
          executions.push(`${runId} one`)
          if (run === 20) reached()
          return version
        })
        .step('two', ['one'], ({ one }, { runId }) => {
          executions.push(`${runId} two`)
          return [one, version]
        })
    }
    let reached: () => void = () => {}
    const halfway = new Promise<void>((resolve) => {
      reached = resolve
    })
    const old = await newWorker([flowOf('old')], { concurrency: 5 })
    const run_ids = await db.startRuns(slug, numbers(60))
    await halfway
    await newWorker([flowOf('new')], { concurrency: 5 })
    await old.stop()
    const late = await db.startRuns(slug, numbers(5))
    const runs = await Promise.all([...run_ids, ...late].map((run_id) => db.runEnded(run_id)))
    expect(runs.filter(({ status }) => status !== 'completed')).toEqual([])
    expect(executions.length).toBe(2 * 65)
    expect(new Set(executions).size).toBe(2 * 65)
    expect(runs.slice(-5).map(({ output }) => output)).toEqual(
      numbers(5).map(() => ({ two: ['new', 'new'] })),
    )
    const tasks = await db.sql`
      select max(attempts_count - attempts_before) as attempts from pgflow.step_tasks where flow_slug = ${slug}`
    expect([...tasks]).toEqual([{ attempts: 1 }])
  })

  it('hands over at once what the old worker cannot finish, and the attempt does not count', async () => {
    const slug = newSlug()
    let isRunning: () => void = () => {}
    const running = new Promise<void>((resolve) => {
      isRunning = resolve
    })
    const reasons: unknown[] = []
    const stubborn = new Flow({ slug, maxAttempts: 1 }).step('work', (_, { signal }) => {
      signal.addEventListener('abort', () => reasons.push(signal.reason.name))
      isRunning()
      return new Promise<string>(() => {})
    })
    const old = await newWorker([stubborn], { lease: 1000 })
    const run_id = await db.startRun(slug, null)
    await running
    await newWorker(
      [new Flow({ slug, maxAttempts: 1 }).step('work', (_, { attempt }) => `attempt ${attempt}`)],
      {},
    )
    await old.stop({ gracePeriod: 0 })
    expect(await db.runEnded(run_id)).toMatchObject({ output: { work: 'attempt 2' } })
    expect(reasons).toEqual(['WorkerStoppedError'])
  })
})
