import type pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { CLIENTS, labelledTokens, TestBed, type TestServer, U1, U2, Watched } from './fixtures/server.ts'

const denied = (topic: string) =>
  `Unauthorized: You do not have permissions to read from this Channel topic: ${topic}`

let bed: TestBed
let server: TestServer
let admin: pg.Client

beforeAll(async () => {
  bed = await TestBed.start()
  server = await bed.serve()
  admin = await bed.connect(bed.stack.adminDbUrl)
  await server.realtime.startReplication()
})
afterEach(() => server.reset())
afterAll(() => bed.stop())

async function rawSocket() {
  const socket = await server.open({ vsn: '2.0.0', apikey: bed.stack.anonKey })
  const join = (ref: string, topic: string, config: object, token?: string) =>
    socket.send(JSON.stringify([ref, ref, topic, 'phx_join', { config, access_token: token }]))
  const reply = async () => JSON.parse(String(await socket.next()))
  return { socket, join, reply }
}

describe('an upgrade', () => {
  it('takes every kind of key, and no version as the first one', async () => {
    const { publishableKey, secretKey, anonKey, serviceRoleKey } = bed.stack
    for (const apikey of [publishableKey, secretKey, anonKey, serviceRoleKey]) {
      await server.open({ apikey, vsn: '2.0.0' })
    }
    const socket = await server.open({ apikey: anonKey })
    socket.send('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"7"}')
    expect(await socket.next()).toBe(
      '{"ref":"7","event":"phx_reply","topic":"phoenix","payload":{"status":"ok","response":{}}}',
    )
  })

  it('prefers the header x-api-key', async () => {
    await server.open({ apikey: 'bad' }, { 'x-api-key': bed.stack.anonKey })
    const answer = await server.refusal({ apikey: bed.stack.anonKey }, { 'x-api-key': 'bad' })
    expect(answer.status).toBe(401)
  })

  it('is refused with the words of the platform', async () => {
    const tokens = await labelledTokens(bed.stack)
    const required = 'Fields `role` and `exp` are required in JWT'
    const cases: [string, number, string][] = [
      ['', 401, 'API key is missing'],
      ['abc', 401, 'The token provided is not a valid JWT'],
      ['a.b.c', 401, 'The token provided is not a valid JWT'],
      ['sb_publishable_of_another_project', 401, 'The token provided is not a valid JWT'],
      [tokens.expired ?? '', 401, 'Token has expired'],
      [tokens.forged ?? '', 401, 'Failed to validate JWT signature'],
      [tokens['no role'] ?? '', 401, required],
      [await bed.stack.signToken({ exp: undefined }), 401, required],
      [await bed.stack.signToken({ exp: 'soon' }), 500, 'Error connecting to Realtime'],
    ]
    for (const [apikey, status, error] of cases) {
      expect(await server.refusal({ apikey, vsn: '2.0.0' })).toEqual({
        status,
        body: JSON.stringify({ error }),
      })
    }
    const unknownVersion = await server.refusal({ apikey: bed.stack.anonKey, vsn: '3.0.0' })
    expect(unknownVersion).toEqual({ status: 403, body: '' })
  })

  it('does not negotiate compression', async () => {
    const socket = await server.open({ apikey: bed.stack.anonKey })
    expect(socket.ws.extensions).toBe('')
  })
})

describe.each(CLIENTS)('supabase-js $library, protocol $vsn', (options) => {
  it('joins public and private channels', async () => {
    const client = await server.user(U1, options)
    await new Watched(client, 'anything', { private: false }).ready()
    await new Watched(client, 'room:1').ready()
  })

  it('is told why it may not join, tries again, and is let in once it may', async () => {
    const client = await server.user(U2, options)
    const watched = new Watched(client, 'room:later')
    expect(await watched.status()).toEqual(['CHANNEL_ERROR', denied('room:later')])
    await admin.query(`insert into rt_access values ($1, 'room:later')`, [U2])
    await watched.ready()
    await admin.query(`delete from rt_access where topic = 'room:later'`)
  })

  it('keeps its channel with another token of the user', async () => {
    let session = 1
    const client = await server.client(() => bed.stack.signToken({ sub: U1, session_id: session }), options)
    const watched = await new Watched(client, 'room:1').ready()
    session = 2
    await client.realtime.setAuth()
    await new Watched(client, 'room:2').ready()
    expect(watched.channel.state).toBe('joined')
  })

  it('loses its channel for good with the token of a user who may not read it', async () => {
    let sub = U1
    const client = await server.client(() => bed.stack.signToken({ sub }), options)
    const watched = await new Watched(client, 'room:1').ready()
    sub = U2
    await client.realtime.setAuth()
    expect(await watched.system()).toMatchObject({
      status: 'error',
      message: 'You do not have permissions to read from this Channel topic: room:1',
    })
    expect((await watched.status())[0]).toBe('CLOSED')
    expect(client.getChannels()).toEqual([])
  })

  it('loses its channel for good when the token expires', async () => {
    const exp = Math.ceil(Date.now() / 1000 + 0.3)
    const client = await server.client(() => bed.stack.signToken({ sub: U1, exp }), options)
    const watched = await new Watched(client, 'room:1').ready()
    expect(await watched.system()).toMatchObject({ message: 'Token has expired 0 seconds ago' })
    expect((await watched.status())[0]).toBe('CLOSED')
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(exp)
    expect(client.getChannels()).toEqual([])
  })

  it('removes a channel and joins the same topic again', async () => {
    const client = await server.user(U1, options)
    for (let round = 0; round < 3; round++) {
      const watched = await new Watched(client, 'room:1').ready()
      void client.removeChannel(watched.channel)
      expect((await watched.status())[0]).toBe('CLOSED')
    }
    const last = await new Watched(client, 'room:1').ready()
    await admin.query(`select realtime.send('{}', 'still here', 'room:1')`)
    expect((await last.message()).event).toBe('still here')
  })

  it('leaves and joins in one turn, as React does that mounts twice', async () => {
    const client = await server.user(U1, options)
    const first = new Watched(client, 'room:1')
    void client.removeChannel(first.channel)
    const second = await new Watched(client, 'room:1').ready()
    await admin.query(`select realtime.send('{}', 'still here', 'room:1')`)
    expect((await second.message()).event).toBe('still here')
    expect(client.getChannels()).toEqual([second.channel])
  })

  it('is told that replay is not offered', async () => {
    const broadcast = { replay: { since: 1 } }
    const watched = new Watched(await server.user(U1, options), 'room:1', { broadcast })
    const reason = 'UnableToReplayMessages: Replay is not supported by the local stack'
    expect(await watched.status()).toEqual(['CHANNEL_ERROR', reason])
  })

  it('is told that postgres changes are not offered', async () => {
    const client = await server.user(U1, options)
    const channel = client
      .channel('room:1')
      .on('postgres_changes', { event: '*', schema: 'public' }, () => {})
    const error = await new Promise<Error | undefined>((resolve) => channel.subscribe((_, e) => resolve(e)))
    expect(error?.message).toContain('Postgres changes are not supported by the local stack')
  })

  it('is refused presence, and broadcasts that it wants acknowledged', async () => {
    const config = { broadcast: { ack: true, replication_ready: true } }
    const { channel } = await new Watched(await server.user(U1, options), 'room:1', config).ready()
    expect(await channel.track({ online: true })).toBe('error')
    expect(await channel.send({ type: 'broadcast', event: 'e', payload: {} })).toBe('error')
    expect(channel.state).toBe('joined')
  })
})

describe('policies', () => {
  it('that raise deny, and take no other topic or socket with them', async () => {
    await admin.query(
      `create policy rt_raises on realtime.messages for select to authenticated
         using (case when realtime.topic() = 'raise' then 1 / (length(topic) - 5) = 0 end)`,
    )
    const { join, reply } = await rawSocket()
    const token = await bed.stack.signToken({ sub: U1 })
    join('1', 'realtime:raise', { private: true }, token)
    expect((await reply())[4].response).toEqual({ reason: denied('raise') })
    join('2', 'realtime:room:1', { private: true }, token)
    expect((await reply())[4].status).toBe('ok')
    await admin.query('drop policy rt_raises on realtime.messages')
  })

  it('see the role, the topic, the claims, the headers, and UTC', async () => {
    await admin.query(
      `create policy rt_sees on realtime.messages for select to authenticated using (
         current_user = 'authenticated' and topic = 'see:é' and realtime.topic() = topic
         and auth.uid() = '${U1}' and current_setting('request.jwt.claim.sub') = '${U1}'
         and current_setting('request.jwt.claim.role') = 'authenticated'
         and (auth.jwt() ->> 'team') = 'red'
         and (current_setting('request.headers')::json ->> 'x-team') = 'red'
         and current_setting('timezone') = 'Etc/UTC')`,
    )
    const config = { private: true }
    const token = await bed.stack.signToken({ sub: U1, team: 'red' })
    const frame = JSON.stringify(['1', '1', 'realtime:see:é', 'phx_join', { config, access_token: token }])
    const answers: string[] = []
    for (const team of ['red', 'blue']) {
      const socket = await server.open({ vsn: '2.0.0', apikey: bed.stack.anonKey }, { 'x-team': team })
      socket.send(frame)
      answers.push(JSON.parse(String(await socket.next()))[4].status)
    }
    await admin.query('drop policy rt_sees on realtime.messages')
    expect(answers).toEqual(['ok', 'error'])
  })

  it.each([null, 'none', '', 5, ['authenticated']])('are not escaped by the role %j', async (role) => {
    const { join, reply } = await rawSocket()
    join('1', 'realtime:room:none', { private: true }, await bed.stack.signToken({ sub: U1, role }))
    expect((await reply())[4].response).toEqual({ reason: denied('room:none') })
  })

  it('are not asked about a topic that the database cannot hold', async () => {
    const { join, reply } = await rawSocket()
    join('1', 'realtime:a\u0000b', { private: true }, await bed.stack.signToken({ sub: U1 }))
    expect((await reply())[4].response).toEqual({ reason: denied('a\u0000b') })
  })

  it('leave no probe row behind', async () => {
    await new Watched(await server.user(U1), 'room:1').ready()
    const { rowCount } = await admin.query(
      `select from realtime.messages where topic = 'room:1' and event is null`,
    )
    expect(rowCount).toBe(0)
  })
})

describe('a socket', () => {
  it('has room for 100 channels', async () => {
    const { join, reply } = await rawSocket()
    for (let n = 1; n <= 101; n++) join(`${n}`, `realtime:many:${n}`, {})
    for (let n = 1; n <= 100; n++) expect((await reply())[4].status).toBe('ok')
    expect((await reply())[4].response).toEqual({ reason: 'ChannelRateLimitReached: Too many channels' })
    join('102', 'realtime:many:1', {})
    expect((await reply())[4].status).toBe('ok')
  })

  it('survives every frame that is no sense, and so do the others', async () => {
    const other = await new Watched(await server.user(U1), 'room:1').ready()
    const { socket, join, reply } = await rawSocket()
    const odd = [
      '',
      'null',
      '[]',
      '[[],[],[],[],[]]',
      '["1","1","realtime:x","phx_join"]',
      '\u0000',
      '{"a":',
      '"'.repeat(99),
      '[null,null,"","",null]',
      '["1","1","__proto__","phx_join",null]',
      '[1e999,"1","t","e",{}]',
    ]
    for (const frame of odd) socket.send(frame)
    for (const bytes of [[], [3], [3, 255, 255, 255, 255, 255, 1], [4, 0, 0, 0, 0], [0, 1, 2, 3]]) {
      socket.send(Buffer.from(bytes))
    }
    const strange = { toString: 1, length: -1 }
    const config = { private: strange, broadcast: { ack: strange, replication_ready: strange } }
    for (const payload of [null, 5, 'x', [], { config: null }, { config: { broadcast: 5 } }, { config }]) {
      socket.send(JSON.stringify(['9', '9', 'realtime:odd', 'phx_join', payload]))
    }
    for (const payload of [null, 5, { access_token: {} }, { access_token: '' }]) {
      socket.send(JSON.stringify([null, '9', 'realtime:odd', 'access_token', payload]))
    }
    join('last', 'realtime:fine', {})
    let answer = await reply()
    while (answer[1] !== 'last') answer = await reply()
    expect(answer[4].status).toBe('ok')
    await admin.query(`select realtime.send('{}', 'to the other', 'room:1')`)
    expect((await other.message()).event).toBe('to the other')
  })

  it('is cut when it sends a frame of more than five million bytes', async () => {
    const { socket } = await rawSocket()
    socket.ws.on('error', () => {})
    socket.send('x'.repeat(5_000_001))
    await socket.closed
    await rawSocket()
  })

  it('is closed with 1000 when it says nothing', async () => {
    const impatient = await bed.serve({ idleTimeoutMs: 20 })
    const socket = await impatient.open({ apikey: bed.stack.anonKey })
    expect(await socket.closed).toBe(1000)
  })
})
