import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { WorkerConnection } from './index.ts'
import { startTestDatabase, type TestDatabase } from './testing/database.ts'
import { checkWithDeno, type DenoServer, startDeno } from './testing/deno.ts'

const pathOf = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const edgeFunction = pathOf('../../../supabase/functions/flow-worker/index.ts')
const edgeImports = pathOf('../../../supabase/functions/flow-worker/deno.json')
const heldWorker = pathOf('./testing/deno-worker.ts')
const secret = 'a secret of some length'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db?.[Symbol.asyncDispose]())

function call({ url }: DenoServer, authorization = `Bearer ${secret}`): Promise<Response> {
  return fetch(url, { method: 'POST', headers: { authorization } })
}

describe('The Edge Function', () => {
  it('passes the type check of Deno', async () => {
    expect(await checkWithDeno(edgeFunction)).toMatchObject({ code: 0 })
  })

  it('imports the version of the SDK that it comes with', async () => {
    const { imports } = JSON.parse(await readFile(edgeImports, 'utf8'))
    const { version } = JSON.parse(await readFile(pathOf('../../package.json'), 'utf8'))
    expect(imports).toEqual({
      '@pgflow/sdk/flow': `npm:@pgflow/sdk@${version}/flow`,
      '@pgflow/sdk/worker': `npm:@pgflow/sdk@${version}/worker`,
    })
  })

  it('runs flows with what the platform puts into its environment, for who knows the secret', async () => {
    const { url, secretKey } = db.stack
    await using deno = await startDeno(edgeFunction, [], {
      PGFLOW_WORKER_SECRET: secret,
      SUPABASE_URL: url,
      SUPABASE_SECRET_KEYS: JSON.stringify({ default: secretKey }),
    })
    expect((await call(deno, 'Bearer guess')).status).toBe(401)
    const first = await call(deno)
    expect([first.status, await first.json()]).toMatchObject([202, { status: 'started' }])
    expect((await call(deno)).status).toBe(200)
    const run_id = await db.startRun('summarize_text', { text: 'One. Two three.' })
    expect(await db.runEnded(run_id)).toMatchObject({
      output: { summary: { words: 3, first_sentence: 'One.' } },
    })
  })

  it('does not start without a secret', async () => {
    const { url, serviceRoleKey } = db.stack
    const environment = { SUPABASE_URL: url, SUPABASE_SERVICE_ROLE_KEY: serviceRoleKey }
    await expect(startDeno(edgeFunction, [], environment)).rejects.toThrow('secret is missing or short')
  })
})

const connections: [string, () => WorkerConnection][] = [
  ['postgres', () => ({ connection: db.url })],
  ['postgres, through a transaction pooler', () => ({ connection: db.stack.poolerUrl })],
  ['RPC', () => ({ url: db.stack.url, secretKey: db.stack.secretKey })],
]

describe.each(connections)('A worker in Deno, over %s,', (_, connection) => {
  const startHeld = (options: object = {}) =>
    startDeno(heldWorker, [JSON.stringify({ ...connection(), secret, lease: 2, ...options })])

  it('that is killed loses nothing: its lease returns the task', async () => {
    await using first = await startHeld()
    expect((await call(first)).status).toBe(202)
    const run_id = await db.startRun('held', null)
    await first.said('working')
    await first.kill('SIGKILL')
    await using second = await startHeld()
    await call(second)
    expect(await db.runEnded(run_id)).toMatchObject({ output: { work: 'attempt 2' } })
  })

  it('that nears the end of its wall clock hands back what it has not finished', async () => {
    await using first = await startHeld({ wallClock: 6.5, gracePeriod: 0, lease: 3600 })
    await call(first)
    const run_id = await db.startRun('held', null)
    await first.said('working')
    await using second = await startHeld()
    await call(second)
    expect(await db.runEnded(run_id)).toMatchObject({ output: { work: 'attempt 2' } })
  })

  it('that is blocked says for how long', async () => {
    await using worker = await startHeld()
    await call(worker)
    const run_id = await db.startRun('busy', null)
    await worker.said(
      'The event loop was blocked for n s: other steps had to wait, and leases were not extended',
    )
    expect(await db.runEnded(run_id)).toMatchObject({ output: { compute: 'computed' } })
  })
})
