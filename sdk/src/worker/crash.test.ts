import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { Flow } from '../flow/index.ts'
import { startWorker } from './index.ts'
import { startTestDatabase, type TestDatabase } from './testing/database.ts'
import { type ProcessOptions, startWorkerProcess, type WorkerProcess } from './testing/process.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

async function readyProcess(options?: ProcessOptions): Promise<WorkerProcess> {
  const child = startWorkerProcess(db.url, options)
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await child.ended
  })
  await child.said('ready')
  return child
}

describe('A worker that is killed with SIGKILL in the middle of a step', () => {
  it('loses nothing: another one completes the run, and a late result of the first is stale', async () => {
    const first = await readyProcess({ lease: 2 })
    const run_id = await db.startRun('crash', null)
    await first.said('working')
    first.kill('SIGKILL')
    expect(await first.ended).toBe('SIGKILL')
    const [task] = await db.tasksOf(run_id)
    expect(task).toMatchObject({ status: 'started', attempts_count: 1 })

    const crash = new Flow({ slug: 'crash' }).step('work', (_, { attempt }) => ({ attempt, by: 'second' }))
    const second = await startWorker({ connection: db.url, flows: [crash] })
    onTestFinished(() => second.stop())
    const ended = await db.runEnded(run_id)
    expect(ended).toMatchObject({ status: 'completed', output: { work: { attempt: 2, by: 'second' } } })

    const late = [{ run_id, step_slug: 'work', task_index: 0, attempt: 1, output: 'late' }]
    const settlements = await db.sql`
      select attempt, applied from pgflow.settle_tasks(results => ${JSON.stringify(late)}::text::jsonb)`
    expect([...settlements]).toEqual([{ attempt: 1, applied: false }])
    expect(await db.runEnded(run_id)).toEqual(ended)
    expect(await db.tasksOf(run_id)).toMatchObject([
      { status: 'completed', attempts_count: 2, last_worker_id: second.workerId },
    ])
  })
})

it('A batch whose worker is killed comes back as single tasks, each for its next attempt', async () => {
  const first = await readyProcess({ lease: 2 })
  const run_id = await db.startRun('batches', [1, 2, 3])
  await first.said('gathered 3')
  first.kill('SIGKILL')
  await first.ended

  const calls: number[] = []
  const batches = new Flow<number[]>({ slug: 'batches' }).map(
    { slug: 'work', batch: { size: 2, wait: 0 } },
    (numbers, { tasks }) => {
      calls.push(numbers.length)
      return numbers.map((number, n) => number * 10 + tasks[n]!.attempt)
    },
  )
  const second = await startWorker({ connection: db.url, flows: [batches] })
  onTestFinished(() => second.stop())
  expect(await db.runEnded(run_id)).toMatchObject({ status: 'completed', output: { work: [12, 22, 32] } })
  expect(Math.max(...calls)).toBeLessThanOrEqual(2)
})

describe('A worker that gets SIGTERM', () => {
  it('finishes what it runs, settles it and ends', async () => {
    const child = await readyProcess()
    const run_id = await db.startRun('crash', null)
    await child.said('working')
    child.kill('SIGTERM')
    await child.said('stopping')
    child.kill('SIGUSR2')
    await child.said('closed')
    expect(await child.ended).toBe('SIGTERM')
    expect(await db.runEnded(run_id)).toMatchObject({ output: { work: { attempt: 1, by: 'process' } } })
    const [worker] = await db.sql`
      select stopped_at is not null as has_stopped from pgflow.workers order by started_at desc limit 1`
    expect(worker).toEqual({ has_stopped: true })
  })

  it('hands back what it does not finish in time: another one runs it at once, and the attempt does not count', async () => {
    const child = await readyProcess({ lease: 1_000, gracePeriod: 0.1 })
    const run_id = await db.startRun('crash', null)
    await child.said('working')
    child.kill('SIGTERM')
    expect(await child.ended).toBe('SIGTERM')
    const [task] = await db.sql`
      select status, attempts_count, attempts_before, q.vt <= clock_timestamp() as is_visible
      from pgflow.step_tasks t join pgmq.q_crash q on q.msg_id = t.message_id where t.run_id = ${run_id}`
    expect(task).toEqual({ status: 'queued', attempts_count: 1, attempts_before: 1, is_visible: true })

    const crash = new Flow({ slug: 'crash' }).step('work', (_, { attempt }) => ({ attempt, by: 'next' }))
    const next = await startWorker({ connection: db.url, flows: [crash] })
    onTestFinished(() => next.stop())
    expect(await db.runEnded(run_id)).toMatchObject({ output: { work: { attempt: 2, by: 'next' } } })
  })

  it('ends though a handler ignores its signal, when the grace period is over', async () => {
    const child = await readyProcess({ gracePeriod: 0.1 })
    const run_id = await db.startRun('leaky', null)
    await child.said('leaking')
    child.kill('SIGTERM')
    await child.said('closed')
    expect(await child.ended).toBe('SIGTERM')
    expect(await db.tasksOf(run_id)).toMatchObject([{ status: 'queued' }])
  })

  it.each(['hang', 'fail'] as const)('ends though closing what is its own would %s', async (close) => {
    const child = await readyProcess({ close })
    child.kill('SIGTERM')
    expect(await child.ended).toBe('SIGTERM')
  })

  it('ends at once at the second signal', async () => {
    const child = await readyProcess()
    const run_id = await db.startRun('crash', null)
    await child.said('working')
    child.kill('SIGTERM')
    await child.said('stopping')
    child.kill('SIGINT')
    expect(await child.ended).toBe('SIGINT')
    expect(await db.tasksOf(run_id)).toMatchObject([{ status: 'started', attempts_count: 1 }])
  })
})
