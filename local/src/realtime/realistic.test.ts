import { once } from 'node:events'
import type pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Queue, type RawSocket, TestBed, type TestServer, U1, Watched } from './fixtures/server.ts'
import type { RealtimeOptions } from './index.ts'

let bed: TestBed
let admin: pg.Client
let server: TestServer
let token: string

beforeAll(async () => {
  bed = await TestBed.start()
  admin = await bed.connect(bed.stack.adminDbUrl)
  token = await bed.stack.signToken({ sub: U1 })
})
afterEach(() => server.stop())
afterAll(() => bed.stop())

async function serve(options: Partial<RealtimeOptions> = {}) {
  server = await bed.serve(options)
  return server.realtime
}

const send = (event: string, topic = 'room:1') =>
  admin.query(`select realtime.send('{}', $1, $2)`, [event, topic])

const open = () => server.open({ vsn: '2.0.0', apikey: bed.stack.anonKey })

function join(socket: RawSocket, topic: string, isPrivate = true): void {
  const config = { private: isPrivate, broadcast: { replication_ready: true } }
  socket.send(
    JSON.stringify([topic, topic, `realtime:${topic}`, 'phx_join', { config, access_token: token }]),
  )
}

const heartbeat = (socket: RawSocket) => socket.send('[null,"beat","phoenix","heartbeat",{}]')

/** The next frame in short: a broadcast by its event, a reply by its ref and status. */
async function next(socket: RawSocket): Promise<string> {
  const frame = await socket.next()
  if (typeof frame !== 'string') {
    const [topic = 0, event = 0] = frame.subarray(1)
    return frame.toString('utf8', 5 + topic, 5 + topic + event)
  }
  const [, ref, , event, payload] = JSON.parse(frame)
  return event === 'phx_reply' ? `${ref} ${payload.status}` : event
}

/** The next frame that does not say that the replication is ready. */
async function nextNews(socket: RawSocket): Promise<string> {
  const frame = await next(socket)
  return frame === 'system' ? nextNews(socket) : frame
}

/** A raw socket with `room:1`, over which the database's messages flow. */
async function listening(): Promise<RawSocket> {
  const socket = await open()
  join(socket, 'room:1')
  expect([await next(socket), await next(socket)]).toEqual(['room:1 ok', 'system'])
  return socket
}

/** Another client of supabase-js that comes back at once. */
async function watched(options: { heartbeatIntervalMs?: number } = {}): Promise<Watched> {
  const client = await server.user(U1, { ...options, reconnectAfterMs: () => 20 })
  return new Watched(client, 'room:1').ready()
}

async function untilJoined(channel: Watched): Promise<void> {
  let status = await channel.status()
  while (status[0] !== 'SUBSCRIBED') status = await channel.status()
  expect(await channel.system()).toMatchObject({ status: 'ok' })
}

it.each([
  ['refused', 'joinErrorDelayMs', 'room:none', 'room:none error'],
  ['delayed', 'joinDelayMs', 'room:2', 'room:2 ok'],
])('a socket whose join is %s sends nothing meanwhile; others do', async (_, delay, topic, reply) => {
  const { settings } = await serve()
  const [socket, other] = [await listening(), await listening()]
  const isWaiting = new Promise<void>((resolve) => {
    const get = () => {
      resolve()
      return 300
    }
    Object.defineProperty(settings, delay, { get })
  })
  const received: string[] = []
  for (const kind of ['message', 'pong']) socket.ws.on(kind, () => received.push(kind))
  const pong = once(socket.ws, 'pong')
  join(socket, topic)
  socket.ws.ping()
  heartbeat(socket)
  await isWaiting
  await send('news')
  expect(await next(other)).toBe('news')
  for (const frame of [reply, 'news', 'beat ok']) expect(await nextNews(socket)).toBe(frame)
  await pong
  expect(received[0]).toBe('message')
})

describe('realistic', () => {
  it('is a set of waits and limits, over which single ones win', async () => {
    const { settings } = await serve({ realistic: true, joinErrorDelayMs: 20 })
    expect(settings).toMatchObject({
      joinErrorDelayMs: 20,
      upgradeErrorDelayMs: 2_000,
      coldStartDelayMs: 200,
      maxEventsPerSecond: 100,
      maxChannels: 100,
    })
  })

  it('waits as long as the platform: for the slot, after a refused upgrade, for the 101st channel', async () => {
    await serve({ realistic: true })
    const start = performance.now()
    const after = async (work: Promise<unknown>) => {
      await work
      return performance.now() - start
    }
    const upgrade = after(server.refusal({ apikey: 'bad' }))
    const socket = await open()
    socket.send('["1","1","realtime:changes","phx_join",{"config":{"postgres_changes":[{}]}}]')
    // Only the local stack refuses these: the platform would not wait.
    expect(await Promise.race([next(socket), upgrade])).toBe('1 error')
    for (let n = 1; n <= 101; n++) join(socket, `many:${n}`, false)
    const ready = after(new Watched(await server.user(U1), 'room:1').ready())
    for (let n = 1; n <= 100; n++) expect(await nextNews(socket)).toBe(`many:${n} ok`)
    expect(await ready).toBeGreaterThanOrEqual(690)
    await admin.query(`select realtime.send('{}', 'news', 'many:1', false)`)
    expect(await nextNews(socket)).toBe('many:101 error')
    expect(performance.now() - start).toBeGreaterThanOrEqual(5_000)
    expect(await nextNews(socket)).toBe('news')
    expect(await upgrade).toBeGreaterThanOrEqual(2_000)
  })

  it('refuses the first private join when there is no partition of today, and makes it', async () => {
    const { rows } = await admin.query(
      `select inhrelid::regclass::text as name from pg_inherits where inhparent = 'realtime.messages'::regclass`,
    )
    await admin.query(`drop table ${rows.map(({ name }) => name).join(', ')}`)
    await serve({ realistic: true, joinErrorDelayMs: 0 })
    const channel = new Watched(await server.user(U1), 'room:1')
    const [, reason] = await channel.status()
    expect(reason).toBe('MissingPartition: Realtime was unable to find the expected messages partition')
    await channel.ready()
  })
})

describe('limits', () => {
  it('of joins a second close the socket', async () => {
    await serve({ maxJoinsPerSecond: 1 / 60 })
    const socket = await open()
    for (const topic of ['a', 'b', 'c']) join(socket, topic, false)
    for (const reply of ['a ok', 'b ok', 'c error']) expect(await nextNews(socket)).toBe(reply)
    expect(await socket.closed).toBe(1001)
  })

  it('of sockets refuse upgrades', async () => {
    await serve({ maxConnections: 1 })
    await open()
    const answer = await server.refusal({ apikey: bed.stack.anonKey })
    expect(answer).toEqual({ status: 429, body: '{"error":"Too many connected users"}' })
  })

  it('of idle time end the replication; the next join begins it again', async () => {
    await serve({ sleepAfterMs: 55 })
    const channel = await watched()
    const slots = async () => (await admin.query('select from pg_replication_slots')).rowCount
    expect(await slots()).toBe(1)
    await channel.channel.unsubscribe()
    await admin.query(`do $$ begin
      while exists (select from pg_replication_slots) loop perform pg_sleep(0.01); end loop;
    end $$`)
    await watched()
    expect(await slots()).toBe(1)
  })
})

describe('a server that is down', () => {
  it.each([undefined, 1012])(
    'closes sockets (%s) and refuses upgrades until it is up again',
    async (code) => {
      const realtime = await serve()
      const channel = await watched()
      await realtime.goDown(code)
      expect(await channel.status()).toEqual(['CHANNEL_ERROR', `socket closed: ${code ?? 1006}`])
      expect(await server.refusal({ apikey: bed.stack.anonKey })).toEqual({ status: 503, body: '' })
      await send('lost')
      realtime.goUp()
      await untilJoined(channel)
      await send('delivered')
      expect((await channel.message()).event).toBe('delivered')
    },
  )
})

describe('packets that vanish', () => {
  it('are told to nobody', async () => {
    const log = new Queue<string>()
    const realtime = await serve({ log: (line) => log.push(line) })
    const channel = await watched()
    realtime.cutNetwork()
    await send('lost')
    await admin.query(
      `insert into realtime.messages (topic, extension, private) values ('x', 'broadcast', true)`,
    )
    while ((await log.next()) !== 'UnableToBroadcastChanges: event_missing');
    realtime.restoreNetwork()
    await send('delivered')
    expect((await channel.message()).event).toBe('delivered')
    expect(channel.channel.state).toBe('joined')
  })

  it('leave heartbeats unanswered, and the next socket waiting until they pass again', async () => {
    const realtime = await serve()
    const channel = await watched({ heartbeatIntervalMs: 100 })
    realtime.cutNetwork()
    expect(await channel.status()).toEqual(['CHANNEL_ERROR', 'heartbeat timeout'])
    realtime.restoreNetwork()
    await untilJoined(channel)
    await send('delivered')
    expect((await channel.message()).event).toBe('delivered')
  })
})
