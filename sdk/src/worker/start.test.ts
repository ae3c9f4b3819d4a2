import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { Flow } from '../flow/index.ts'
import { schemaVersion } from '../shared/schema-version.ts'
import { startWorker } from './index.ts'
import { startTestDatabase, type TestDatabase } from './testing/database.ts'
import { closedPort } from './testing/port.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

async function setVersion(version: number): Promise<void> {
  await db.sql.unsafe(`create or replace function pgflow.schema_version() returns int language sql immutable
    set search_path = pg_catalog, pg_temp as 'select ${version}'`)
}

describe('startWorker rejects', () => {
  const flow = new Flow({ slug: 'never_started' }).step('work', () => 1)

  it('a database without pgflow', async () => {
    const admin = postgres(db.adminUrl)
    await admin`create database without_pgflow template template0`
    await admin.end()
    const url = new URL(db.url)
    url.pathname = '/without_pgflow'
    await expect(startWorker({ connection: url.href, flows: [flow] })).rejects.toMatchObject({
      name: 'WorkerStartError',
      message: expect.stringMatching(/^This database has no migrations of pgflow.*supabase db push/),
    })
  })

  it('a database whose migrations are older; newer ones are fine', async () => {
    onTestFinished(() => setVersion(schemaVersion))
    await setVersion(0)
    await expect(startWorker({ connection: db.url, flows: [flow] })).rejects.toMatchObject({
      name: 'WorkerStartError',
      message: expect.stringMatching(/^This database has version 0 .*supabase db push/),
    })
    await setVersion(1_000)
    const info = vi.fn()
    const log = { debug() {}, info, warn() {}, error() {} }
    const worker = await startWorker({ connection: db.url, flows: [flow], log })
    await worker.stop()
    expect(info).toHaveBeenCalledWith(expect.stringContaining('newer migrations'), {
      found: 1_000,
      needed: schemaVersion,
    })
  })

  it('a database that is not there', async () => {
    const url = new URL(db.url)
    url.port = '1'
    await expect(startWorker({ connection: url.href, flows: [flow] })).rejects.toMatchObject({
      name: 'WorkerStartError',
      message: expect.stringMatching(/ECONNREFUSED.*Check the URL/),
    })
  })

  it('a project that is not there', async () => {
    const port = await closedPort()
    const url = `http://127.0.0.1:${port}`
    await expect(startWorker({ url, secretKey: 'sb_secret_x', flows: [flow] })).rejects.toMatchObject({
      message: `The worker cannot reach the database: fetch failed: connect ECONNREFUSED 127.0.0.1:${port}. Check the URL, and whether the database runs.`,
      cause: { cause: { code: 'ECONNREFUSED' } },
    })
  })

  it.each<[string, (socket: Socket) => unknown, RegExp]>([
    [
      'an HTTP server',
      (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
      /it answered "HTTP\/1\.1 400 Bad Request"/,
    ],
    ['one that hangs up', (socket) => socket.end(), /it closed the connection|CONNECTION_CLOSED|ECONNRESET/],
    ['one that says nothing', () => {}, /does not answer as Postgres does/],
  ])('a port that is not Postgres, within seconds: %s', async (_, answer, words) => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => answer(socket))
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const began = performance.now()
    const starting = startWorker({
      connection: `postgresql://postgres:x@127.0.0.1:${port}/postgres`,
      flows: [flow],
    })
    await expect(starting).rejects.toThrow(words)
    expect(performance.now() - began).toBeLessThan(8_000)
  })

  it('a flow whose shape differs from that in the database', async () => {
    const slug = 'changed'
    const worker = await startWorker({ connection: db.url, flows: [new Flow({ slug }).step('a', () => 1)] })
    await worker.stop()
    const changed = new Flow({ slug }).step('b', () => 1).step('a', ['b'], () => 1)
    await db.startRun(slug, null)
    await expect(startWorker({ connection: db.url, flows: [changed] })).rejects.toMatchObject({
      message: expect.stringMatching(new RegExp(`"${slug}".*\\. Runs of it .*[^.]\\.$`)),
      cause: { code: 'PT409' },
    })
  })

  it.each([
    [{ connection: 'nonsense' }, 'URL of a database'],
    [{ connection: undefined as never }, 'connection is missing'],
    [{ connection: undefined as never, url: 'http://localhost', secretKey: '' }, 'secretKey is missing'],
    [{ flows: [] }, 'no flows'],
    [{ flows: [flow, flow] }, 'two flows'],
    [{ concurrency: 0 }, 'concurrency is 0'],
    [{ lease: 1.5 }, 'lease is 1.5'],
    [{ maxConnections: Number.NaN }, 'maxConnections is NaN'],
    [{ lease: '500ms' as const }, 'lease is 500ms'],
    [{ gracePeriod: -1 }, 'gracePeriod is -1'],
    [{ settleDelay: 'soon' as never }, 'settleDelay is soon'],
    [{ concurency: 5 } as object, 'There is no option concurency: is it concurrency?'],
    [{ gracePeriodMs: 5 } as object, 'There is no option gracePeriodMs: is it gracePeriod?'],
    [{ pool: 5 } as object, 'There is no option pool: leave it out'],
    [{ log: { info() {} } as never }, 'log has no debug, warn, error: give it console'],
  ])('%j', async (option, message) => {
    await expect(startWorker({ connection: db.url, flows: [flow], ...option })).rejects.toMatchObject({
      name: 'WorkerStartError',
      message: expect.stringContaining(message),
    })
  })
})
