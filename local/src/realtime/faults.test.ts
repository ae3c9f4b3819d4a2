import type pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import {
  CLIENTS,
  type ClientOptions,
  Queue,
  TestBed,
  type TestServer,
  U1,
  Watched,
} from './fixtures/server.ts'
import type { RealtimeOptions } from './index.ts'

let bed: TestBed
let admin: pg.Client
let server: TestServer

beforeAll(async () => {
  bed = await TestBed.start()
  admin = await bed.connect(bed.stack.adminDbUrl)
})
afterEach(() => server.stop())
afterAll(() => bed.stop())

async function serve(options: Partial<RealtimeOptions> = {}): Promise<TestServer> {
  server = await bed.serve(options)
  return server
}

/** A server, and a channel that is joined and ready. */
async function joined(options: Partial<RealtimeOptions> = {}, client: ClientOptions = {}) {
  const { realtime } = await serve(options)
  const watched = await new Watched(await server.user(U1, client), 'room:1').ready()
  return { realtime, watched }
}

/** Comes back soon; except 2.91, which gives up a channel that it joins again before the first join is answered. */
const impatient = (client: ClientOptions): ClientOptions =>
  client.library === '2.91' ? client : { ...client, reconnectAfterMs: () => 20 }

const send = (event: string, client = admin) =>
  client.query(`select realtime.send('{}', $1, 'room:1')`, [event])

/** Resolves when a session of the database is in the state that the condition on pg_stat_activity describes. */
const until = (client: pg.Client, condition: string) =>
  client.query(`
    do $$ begin
      while not exists (select from pg_stat_activity where ${condition}) loop
        perform pg_sleep(0.01), pg_stat_clear_snapshot();
      end loop;
    end $$`)

const slots = async () => (await admin.query('select from pg_replication_slots')).rowCount

describe('replication', () => {
  it('begins with the first join', async () => {
    const { realtime } = await serve()
    expect(await slots()).toBe(0)
    await new Watched(await server.user(U1), 'room:1').ready()
    expect(await slots()).toBe(1)
    await realtime.stop()
  })

  it('makes the publication if it is missing, and keeps it', async () => {
    await admin.query('drop publication if exists supabase_realtime_messages_publication')
    for (let round = 0; round < 2; round++) {
      await joined()
      await server.stop()
    }
    const { rows } = await admin.query('select pubname, schemaname, tablename from pg_publication_tables')
    expect(rows).toContainEqual({
      pubname: 'supabase_realtime_messages_publication',
      schemaname: 'realtime',
      tablename: expect.stringMatching(/^messages_/),
    })
  })

  it('loses what is committed while it is stopped, silently', async () => {
    const { realtime, watched } = await joined()
    await realtime.stopReplication()
    await send('lost')
    await realtime.startReplication()
    await send('delivered')
    expect((await watched.message()).event).toBe('delivered')
    expect(watched.channel.state).toBe('joined')
    const { rows } = await admin.query(`select event from realtime.messages where event = 'lost' limit 1`)
    expect(rows).toEqual([{ event: 'lost' }])
  })

  it('loses what is committed before a late start', async () => {
    const { realtime } = await serve({ replicationDelayMs: Number.POSITIVE_INFINITY })
    const watched = new Watched(await server.user(U1), 'room:1')
    expect((await watched.status())[0]).toBe('SUBSCRIBED')
    await send('lost')
    await realtime.stopReplication()
    realtime.settings.replicationDelayMs = 0
    await realtime.startReplication()
    expect(await watched.system()).toMatchObject({ status: 'ok' })
    await send('delivered')
    expect((await watched.message()).event).toBe('delivered')
  })

  it('closes a channel that waited for it in vain', async () => {
    await serve({ replicationDelayMs: Number.POSITIVE_INFINITY, readyTimeoutMs: 20 })
    const watched = new Watched(await server.user(U1), 'room:1')
    expect((await watched.status())[0]).toBe('SUBSCRIBED')
    expect(await watched.system()).toMatchObject({
      status: 'error',
      message: 'Replication connection was not established in time',
    })
    expect((await watched.status())[0]).toBe('CLOSED')
  })

  it('waits for the transactions that are open when it begins, and loses them', async () => {
    const writer = await bed.connect()
    await writer.query('begin')
    await send('lost', writer)
    await serve()
    const watched = new Watched(await server.user(U1), 'room:1')
    expect((await watched.status())[0]).toBe('SUBSCRIBED')
    const order: string[] = []
    const ready = watched.system().then(() => order.push('ready'))
    await until(
      admin,
      `application_name = 'realtime_replication_connection' and wait_event = 'transactionid'`,
    )
    order.push('commit')
    await writer.query('commit')
    await ready
    expect(order).toEqual(['commit', 'ready'])
    await send('delivered')
    expect((await watched.message()).event).toBe('delivered')
  })

  it('comes back by itself after its connection was killed; nobody is told', async () => {
    const log = new Queue<string>()
    const { watched } = await joined({ reconnectDelayMs: 20, log: (line) => log.push(line) })
    expect(await log.next()).toBe('Replication connection established')
    await admin.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where application_name = 'realtime_replication_connection'`,
    )
    expect(await log.next()).toContain('ReplicationConnectionDown')
    await new Watched(await server.user(U1), 'room:2').ready()
    await send('delivered')
    expect((await watched.message()).event).toBe('delivered')
  })
})

describe('switches', () => {
  it('drop the next messages', async () => {
    const { realtime, watched } = await joined()
    realtime.dropNext(2)
    for (const event of ['lost', 'lost too', 'delivered']) await send(event)
    expect((await watched.message()).event).toBe('delivered')
  })

  it('refuse the next joins', async () => {
    const { realtime } = await serve()
    realtime.refuseJoins('RealtimeRestarting: Realtime is restarting, please standby', 1)
    const watched = new Watched(await server.user(U1), 'room:1')
    expect(await watched.status()).toEqual([
      'CHANNEL_ERROR',
      'RealtimeRestarting: Realtime is restarting, please standby',
    ])
    await watched.ready()
  })

  it.each(CLIENTS)(
    'delay joins: a client gives up, and joins once it is answered (supabase-js $library, protocol $vsn)',
    async (client) => {
      const { realtime } = await serve({ joinDelayMs: 600_000 })
      const user = await server.user(U1, { ...impatient(client), timeout: 100 })
      const watched = new Watched(user, 'room:1')
      expect((await watched.status())[0]).toBe('TIMED_OUT')
      realtime.settings.joinDelayMs = 0
      realtime.closeSockets()
      let status = await watched.status()
      while (status[0] !== 'SUBSCRIBED') status = await watched.status()
      expect(await watched.system()).toMatchObject({ status: 'ok' })
    },
  )

  it.each([undefined, 1000, 1001, 1012])('close the sockets (%s), and clients come back', async (code) => {
    const { realtime, watched } = await joined()
    realtime.closeSockets(code)
    expect(await watched.status()).toEqual(['CHANNEL_ERROR', `socket closed: ${code ?? 1006}`])
    await watched.ready()
    await send('delivered')
    expect((await watched.message()).event).toBe('delivered')
  })

  it.each(CLIENTS)('bring every client back (supabase-js $library, protocol $vsn)', async (client) => {
    const { realtime, watched } = await joined({}, impatient(client))
    for (const interrupt of [() => realtime.closeSockets(1012), () => realtime.crashChannels()]) {
      interrupt()
      expect((await watched.status())[0]).toBe('CHANNEL_ERROR')
      await watched.ready()
    }
    await send('delivered')
    expect((await watched.message()).event).toBe('delivered')
  })

  it('lose everything above the rate limit, silently', async () => {
    const { realtime, watched } = await joined({ maxEventsPerSecond: 3 / 60 })
    for (const event of ['first', 'second', 'lost']) await send(event)
    expect((await watched.message()).event).toBe('first')
    expect((await watched.message()).event).toBe('second')
    await send('lost too')
    const witness = await new Watched(await server.user(U1), 'room:2').ready()
    realtime.settings.maxEventsPerSecond = Number.POSITIVE_INFINITY
    await admin.query(`select realtime.send('{}', 'witness', 'room:2')`)
    await witness.message()
    await send('delivered')
    expect((await watched.message()).event).toBe('delivered')
    expect(watched.channel.state).toBe('joined')
  })

  it('delay a refused join, and every other frame of its socket: heartbeats remain unanswered', async () => {
    const { realtime } = await serve({ joinErrorDelayMs: 600_000 })
    const client = await server.user(U1, { heartbeatIntervalMs: 500 })
    const heartbeats = new Queue<string>()
    client.realtime.onHeartbeat((status) => heartbeats.push(status))
    const good = await new Watched(client, 'room:1').ready()
    new Watched(client, 'room:none')
    let heartbeat = await heartbeats.next()
    while (heartbeat !== 'timeout') heartbeat = await heartbeats.next()
    realtime.settings.joinErrorDelayMs = 0
    expect((await good.status())[0]).toBe('CHANNEL_ERROR')
    await good.ready()
  })
})

it.each(CLIENTS)(
  'a server that is down at first is joined when it is there (supabase-js $library, protocol $vsn)',
  async (client) => {
    await serve()
    const refused = new Promise((resolve) => {
      server.whenDown = resolve
    })
    const watched = new Watched(await server.user(U1, impatient(client)), 'room:1')
    await refused
    server.whenDown = undefined
    let status = await watched.status()
    while (status[0] !== 'SUBSCRIBED') status = await watched.status()
    expect(await watched.system()).toMatchObject({ status: 'ok' })
    await send('delivered')
    expect((await watched.message()).event).toBe('delivered')
  },
)

describe('partitions', () => {
  const partitions = async () => {
    const { rows } = await admin.query(
      `select inhrelid::regclass::text as name from pg_inherits
       where inhparent = 'realtime.messages'::regclass order by 1`,
    )
    return rows.map(({ name }) => name as string)
  }

  it('are made and dropped before the first private join is answered', async () => {
    const before = await partitions()
    await admin.query(`
      drop table ${before.at(-1)};
      create table realtime.messages_2020_01_01 partition of realtime.messages
        for values from ('2020-01-01') to ('2020-01-02')`)
    await serve()
    const watched = new Watched(await server.user(U1), 'room:1')
    expect((await watched.status())[0]).toBe('SUBSCRIBED')
    expect(await partitions()).toEqual(before)
  })

  it('that are missing refuse private joins', async () => {
    const before = await partitions()
    await admin.query(`drop table ${before.join(', ')}`)
    await serve({ maintainPartitions: false })
    const watched = new Watched(await server.user(U1), 'room:1')
    expect(await watched.status()).toEqual([
      'CHANNEL_ERROR',
      'MissingPartition: Realtime was unable to find the expected messages partition',
    ])
    const open = new Watched(await server.user(U1), 'room:1', { private: false })
    expect((await open.status())[0]).toBe('SUBSCRIBED')
    await server.stop()
    await joined()
    expect(await partitions()).toEqual(before)
  })
})

describe('stopping', () => {
  it('closes every socket with 1012 and every connection', async () => {
    const { realtime } = await joined()
    const socket = await server.open({ apikey: bed.stack.anonKey })
    await realtime.stop()
    expect(await socket.closed).toBe(1012)
    await realtime.stop()
  })

  it('does not wait for a slow policy, a refusal, or a slot', async () => {
    await admin.query(
      `create policy rt_slow on realtime.messages for select to authenticated using (pg_sleep(600) is null)`,
    )
    const blocker = await bed.connect()
    await blocker.query('begin')
    await send('blocks the slot', blocker)
    const { realtime } = await serve({ joinErrorDelayMs: 600_000, upgradeErrorDelayMs: 600_000 })
    const refusal = server.refusal({ apikey: 'bad' })
    new Watched(await server.user(U1), 'room:slow')
    await until(admin, `application_name = 'realtime_connect' and wait_event = 'PgSleep'`)
    await Promise.all([realtime.stop(), expect(refusal).rejects.toThrow()])
    await blocker.query('rollback')
    await admin.query(
      `select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name like 'realtime%'`,
    )
    await admin.query('drop policy rt_slow on realtime.messages')
  })
})
