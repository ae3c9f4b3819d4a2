import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { Flow } from '@pgflow/sdk/flow'
import { createClient } from '@supabase/supabase-js'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import WebSocket from 'ws'
import { upgradeSql } from '../../sdk/src/cli/migration-sql.ts'
import { violations } from './testing/invariants.ts'

const Busy = new Flow<number[]>({ slug: 'busy', baseDelay: 0, startRole: 'authenticated' })
  .map({ slug: 'doubled', items: 'run' }, (item, { attempt }) => {
    if (item === 0 && attempt === 1) throw new Error('once')
    return item * 2
  })
  .step('sum', ['doubled'], ({ doubled }) => doubled.reduce((sum, item) => sum + item, 0))
const Later = new Flow<number>({ slug: 'later', startRole: 'authenticated' }).step('a', ({ run }) => run + 1)

let folder: string
let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pgflow-upgrade-'))
  await writeFile(
    join(folder, '20260101000000_v1.sql'),
    await readFile(new URL('versions/1.sql', import.meta.url)),
  )
  stack = await startLocalSupabase({ migrations: [folder], fsync: false })
  sql = postgres(stack.dbUrl, { max: 4, onnotice: () => undefined })
})

afterAll(async () => {
  await sql?.end({ timeout: 1 })
  await stack?.stop()
  await rm(folder, { recursive: true, force: true })
})

/** A worker as version 1 had it: of this package, but content with that version, and without a clock. */
async function oldWorker() {
  vi.doMock('../../sdk/src/shared/schema-version.ts', () => ({
    schemaVersion: 1,
    schemaProblem: () => undefined,
  }))
  vi.doMock('../../sdk/src/worker/clock.ts', () => ({
    Clock: class {
      ask = () => false
      stop() {}
    },
  }))
  const { startWorker } = await import('@pgflow/sdk/worker')
  vi.doUnmock('../../sdk/src/shared/schema-version.ts')
  vi.doUnmock('../../sdk/src/worker/clock.ts')
  vi.resetModules()
  const log: string[] = []
  const say = (message: string, details?: object) => {
    log.push(`${message} ${JSON.stringify(details)}`)
  }
  const options = { connection: stack.dbUrl, flows: [Busy] }
  const worker = await startWorker({ ...options, log: { debug() {}, info() {}, warn: say, error: say } })
  return { worker, log }
}

test('An upgrade meets running runs, an older worker and clients that start more: all runs end', async () => {
  const { worker, log } = await oldWorker()
  await using _ = { [Symbol.asyncDispose]: () => worker.stop() }
  await sql`select pgflow.register_flow(${sql.json({ flow_slug: 'later', start_role: 'authenticated', steps: [{ step_slug: 'a' }] })})`

  const token = await stack.signToken({ sub: '11111111-1111-4111-8111-111111111111' })
  const supabase = createClient(stack.url, stack.publishableKey, {
    accessToken: async () => token,
    realtime: { transport: WebSocket as never },
  })
  const api = supabase.schema('pgflow_public')
  const started: string[] = []
  const start = async (flow_slug: string, input: unknown) => {
    const { data, error } = await api.rpc('start_flow', { flow_slug, input, watch: true })
    expect(error).toBeNull()
    started.push(data.run_id)
  }
  for (let n = 0; n < 5; n++) await start('later', n)

  const client = new AbortController()
  const starts = Promise.all(
    [1, 2, 3].map(async (n) => {
      while (!client.signal.aborted) {
        await start('busy', [0, n, started.length])
        const { error } = await api.rpc('get_run', { run_id: started.at(-1) })
        expect(error).toBeNull()
      }
    }),
  )
  const completed = async () =>
    Number((await sql`select count(*) from pgflow.runs where status = 'completed'`)[0]!.count)
  await vi.waitUntil(async () => (await completed()) >= 30, { timeout: 20_000 })

  // A transaction that is open for a while makes it wait, and nobody else.
  const holder = await sql.reserve()
  await holder`begin`
  await holder`select from pgflow.runs limit 1 for update`
  await expect(
    apply(`set local pgflow.lock_patience = '1 second'; ${await upgradeSql(1)}`),
  ).rejects.toMatchObject({
    code: 'PT409',
    detail: expect.stringContaining('pgflow.runs limit 1 for update'),
  })
  expect(await sql`select pgflow.schema_version() as version`).toEqual([{ version: 1 }])
  const upgrade = writeFile(join(folder, '20260102000000_v2.sql'), await upgradeSql(1)).then(() =>
    stack.migrate(folder),
  )
  await holder`commit`
  holder.release()
  expect(await upgrade).toEqual(['20260102000000_v2.sql'])

  const before = await completed()
  await vi.waitUntil(async () => (await completed()) >= before + 30, { timeout: 20_000 })
  client.abort()
  await starts
  const { startWorker } = await import('@pgflow/sdk/worker')
  const newer = await startWorker({ url: stack.url, secretKey: stack.secretKey, flows: [Later], log: false })
  await using __ = { [Symbol.asyncDispose]: () => newer.stop() }
  await vi.waitUntil(async () => (await completed()) === started.length, { timeout: 20_000 })

  expect(await violations(sql, ['busy', 'later'])).toEqual([])
  expect(
    await sql`
      select run_id, input, output from pgflow.runs
      where output is distinct from case flow_slug
        when 'later' then jsonb_build_object('a', input::int + 1)
        else jsonb_build_object('sum', (select 2 * sum(i::int) from jsonb_array_elements(input) i))
      end`,
  ).toEqual([])
  expect(await sql`select run_id from pgflow.runs where run_id <> all (${started})`).toEqual([])
  expect(log.filter((line) => !line.includes('"once"') && !/attempt/.test(line))).toEqual([])
}, 90_000)

/** As the role postgres, which may create policies on realtime.messages while migrations run. */
async function apply(text: string): Promise<void> {
  await sql.begin((tx) => tx.unsafe(text))
}
