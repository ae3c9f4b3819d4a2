import { afterEach, beforeEach, expect, it } from 'vitest'
import { Queue, TestBed, type TestServer, U1, Watched } from './fixtures/server.ts'
import type { RealtimeOptions } from './index.ts'

const ESTABLISHED = 'Replication connection established'

let bed: TestBed
let server: TestServer
let log: Queue<string>

beforeEach(async () => {
  bed = await TestBed.start()
})
afterEach(() => bed.stop())

async function joined(options: Partial<RealtimeOptions> = {}): Promise<Watched> {
  log = new Queue()
  server = await bed.serve({ log: (line) => log.push(line), ...options })
  const watched = await new Watched(await server.user(U1), 'room:1').ready()
  expect(await log.next()).toBe(ESTABLISHED)
  return watched
}

async function send(event: string): Promise<void> {
  const client = await bed.connect()
  await client.query(`select realtime.send('{}', $1, 'room:1')`, [event])
}

it('a restart of the database is silent; the next join ends the silence for all', async () => {
  const watched = await joined({ reconnectDelayMs: 0 })
  await bed.stack.postgres.restart()
  expect(await log.next()).toContain('ReplicationConnectionDown')
  await send('lost')
  await new Watched(await server.user(U1), 'room:2').ready()
  await send('delivered')
  expect((await watched.message()).event).toBe('delivered')
  expect(watched.channel.state).toBe('joined')
})

it('a restart of the database is noticed after a while without any join', async () => {
  const watched = await joined({ reconnectTickMs: 20, reconnectDelayMs: 0 })
  await bed.stack.postgres.restart()
  while ((await log.next()) !== ESTABLISHED);
  await send('delivered')
  expect((await watched.message()).event).toBe('delivered')
})

it('a database that is down refuses private joins, and answers heartbeats', async () => {
  const watched = await joined()
  await bed.stack.postgres.kill()
  const late = new Watched(await server.user(U1, { heartbeatIntervalMs: 20 }), 'room:2')
  const reason = 'UnableToConnectToProject: Realtime was unable to connect to the project database'
  expect(await late.status()).toEqual(['CHANNEL_ERROR', reason])
  const socket = await server.open({ apikey: bed.stack.anonKey, vsn: '2.0.0' })
  socket.send('[null,"1","phoenix","heartbeat",{}]')
  expect(await socket.next()).toBe('[null,"1","phoenix","phx_reply",{"status":"ok","response":{}}]')
  await bed.stack.postgres.start()
  let status = await late.status()
  while (status[0] !== 'SUBSCRIBED') status = await late.status()
  expect(await late.system()).toMatchObject({ status: 'ok' })
  await send('delivered')
  expect((await watched.message()).event).toBe('delivered')
})

it('newer servers come back by themselves after a restart of the database', async () => {
  const watched = await joined({ restartRecoveryMs: 20 })
  await bed.stack.postgres.restart()
  expect(await log.next()).toContain('ReplicationConnectionDown')
  while ((await log.next()) !== ESTABLISHED);
  await send('delivered')
  expect((await watched.message()).event).toBe('delivered')
})
