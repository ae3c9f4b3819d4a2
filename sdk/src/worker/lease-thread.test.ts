import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { startWorker } from './index.ts'
import { leaseThreadFor, threadTime } from './lease-thread.ts'
import { logFrom } from './log.ts'
import { blockingFlow } from './testing/blocking-flows.ts'
import { startTestDatabase, type TestDatabase, until } from './testing/database.ts'
import { fromSources, startProcess, type WorkerProcess } from './testing/process.ts'
import type { ClaimedTask } from './transport.ts'

const script = fileURLToPath(new URL('./testing/blocking-worker.ts', import.meta.url))

let db: TestDatabase
let folder: string

beforeAll(async () => {
  db = await startTestDatabase()
  folder = await mkdtemp(join(tmpdir(), 'pgflow-bundle-'))
})
afterAll(async () => {
  await db[Symbol.asyncDispose]()
  await rm(folder, { recursive: true })
})

async function blockingProcess(
  args: readonly string[],
  options: object,
  cwd?: string,
): Promise<WorkerProcess> {
  const child = startProcess([...args, JSON.stringify({ lease: 1, ...options })], cwd)
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await child.ended
  })
  await child.said('ready')
  return child
}

/** Lets the process block for three leases, while another worker waits for what gets free. */
async function blockedRun(child: WorkerProcess) {
  const run_id = await db.startRun('blocking', { block: 3_000 })
  await started(run_id)
  const other = await startWorker({
    connection: db.url,
    flows: [blockingFlow('other')],
    lease: 1,
    log: false,
  })
  onTestFinished(() => other.stop())
  await child.said(/^The event loop was blocked for [34]\.\d s/)
  return { run: await db.runEnded(run_id), tasks: await db.tasksOf(run_id) }
}

async function started(run_id: string): Promise<void> {
  let tasks = await db.tasksOf(run_id)
  while (!tasks.every(({ status }) => status === 'started')) tasks = await db.tasksOf(run_id)
}

const unharmed = {
  run: { status: 'completed', output: { compute: 'process', neighbour: 'process' } },
  tasks: [{ attempts_count: 1 }, { attempts_count: 1 }],
}

describe('A handler that blocks the event loop for three leases', () => {
  it('loses nothing, nor does the step beside it, with a database URL', async () => {
    const child = await blockingProcess([...fromSources, script], { connection: db.url })
    expect(await blockedRun(child)).toMatchObject(unharmed)
    await child.said(/"steps":\["blocking.compute","blocking.neighbour"\]/)
  })

  it('loses nothing with a secret key', async () => {
    const { url, secretKey } = db.stack
    expect(
      await blockedRun(await blockingProcess([...fromSources, script], { url, secretKey })),
    ).toMatchObject(unharmed)
  })

  it('loses nothing in a bundle', async () => {
    const outfile = await bundled()
    expect(await blockedRun(await blockingProcess([outfile], { connection: db.url }))).toMatchObject(unharmed)
  })

  it('is said to lose its leases where no thread can extend them', async () => {
    const outfile = await bundled()
    const child = await blockingProcess([outfile], { connection: db.url }, folder)
    await db.startRun('blocking', { block: 1_500 })
    await child.said(/blocked for 1\.\d s: .* and leases were not extended /)
  })
})

it('The thread of a worker that is not blocked opens no connection', async () => {
  const thread = await leaseThreadFor(
    { connection: db.url },
    { workerId: crypto.randomUUID(), lease: 1, log: logFrom(false) },
  )
  onTestFinished(() => thread?.close())
  const task = { run_id: crypto.randomUUID(), step_slug: 'a', task_index: 0, attempt: 1, timeout: 60 }
  const connections = () => db.sql`select pid from pg_stat_activity where application_name = 'pgflow worker'`
  thread!.add([task], [task], threadTime())
  thread!.clear()
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  expect([...(await connections())]).toEqual([])
  thread!.add([task], [task], 0)
  await until(connections)
})

it('A handler that never ends loses its tasks some time after their longest timeout', async () => {
  await db.sql`select pgflow.create_flow('endless'), pgflow.add_step('endless', 'a', timeout => 1)`
  await db.startRun('endless', null)
  const workerId = crypto.randomUUID()
  const [task] = await db.sql<[ClaimedTask]>`
    select run_id, step_slug, task_index, attempt, timeout from pgflow.claim_tasks(array['endless'], 1, ${workerId}, lease => 1)`
  const lease = () => db.sql<{ vt: Date; is_over: boolean }[]>`
    select vt, vt < clock_timestamp() as is_over from pgmq.q_endless`
  const [claimed] = await lease()
  const thread = await leaseThreadFor({ connection: db.url }, { workerId, lease: 1, log: logFrom(false) })
  onTestFinished(() => thread?.close())
  thread!.add([task], [task], threadTime())
  const over = await until(async () => (await lease()).filter(({ is_over }) => is_over))
  expect(over.vt.getTime() - claimed!.vt.getTime()).toBeGreaterThan(1_000)
})

/** The worker as one file, outside the repository. */
async function bundled(): Promise<string> {
  const outfile = join(folder, 'worker.mjs')
  await build({
    entryPoints: [script],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    conditions: ['pgflow-source'],
    logLevel: 'error',
  })
  return outfile
}
