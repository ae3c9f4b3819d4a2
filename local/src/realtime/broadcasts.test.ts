import type pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { CLIENTS, TestBed, type TestServer, U1, Watched } from './fixtures/server.ts'

let bed: TestBed
let server: TestServer
let postgres: pg.Client

beforeAll(async () => {
  bed = await TestBed.start()
  server = await bed.serve()
  postgres = await bed.connect()
  await server.realtime.startReplication()
})
afterEach(() => server.reset())
afterAll(() => bed.stop())

const send = (payload: object, event = 'e', topic = 'room:1', client = postgres) =>
  client.query('select realtime.send($1, $2, $3)', [payload, event, topic])

/** The next `count` payloads, without the id that `realtime.send` adds. */
async function payloads(watched: Watched, count: number): Promise<unknown[]> {
  const received: unknown[] = []
  while (received.length < count) {
    const { id: _, ...payload } = (await watched.message()).payload
    received.push(payload)
  }
  return received
}

describe.each(CLIENTS)('supabase-js $library, protocol $vsn', (options) => {
  const join = async (topic = 'room:1') => new Watched(await server.user(U1, options), topic).ready()

  it('delivers realtime.send with the id of its row', async () => {
    const watched = await join()
    await send({ hello: 'world' }, 'greet')
    await send({ id: 'mine' }, 'greet')
    const first = await watched.message()
    expect(first).toMatchObject({ type: 'broadcast', event: 'greet', payload: { hello: 'world' } })
    expect(first.payload.id).toBe(first.meta?.id)
    const second = await watched.message()
    expect(second.payload).toEqual({ id: 'mine' })
    expect(second.meta?.id).not.toBe('mine')
  })

  it('delivers the rows of one statement in their order, as they are', async () => {
    const watched = await join()
    await postgres.query(
      `insert into realtime.messages (topic, event, payload, private, extension)
       select 'room:1', 'multi', jsonb_build_object('seq', n), true, 'broadcast' from generate_series(1, 200) n`,
    )
    const expected = Array.from({ length: 200 }, (_, index) => ({ seq: index + 1 }))
    const received: unknown[] = []
    while (received.length < 200) received.push((await watched.message()).payload)
    expect(received).toEqual(expected)
  })

  it('delivers what is committed, when it is committed', async () => {
    const watched = await join()
    const [one, two] = [await bed.connect(), await bed.connect()]
    await one.query('begin')
    await send({ tx: 1, n: 1 }, 'e', 'room:1', one)
    await two.query('begin')
    await send({ tx: 2, n: 1 }, 'e', 'room:1', two)
    await send({ tx: 1, n: 2 }, 'e', 'room:1', one)
    await two.query('commit')
    await one.query('savepoint s')
    await send({ tx: 1, n: 'undone' }, 'e', 'room:1', one)
    await one.query('rollback to s')
    await one.query('commit')
    await one.query('begin')
    await send({ tx: 3, n: 'undone' }, 'e', 'room:1', one)
    await one.query('rollback')
    await send({ tx: 4 })
    expect(await payloads(watched, 4)).toEqual([{ tx: 2, n: 1 }, { tx: 1, n: 1 }, { tx: 1, n: 2 }, { tx: 4 }])
  })

  it('keeps topics apart, and private from public', async () => {
    const watched = await join()
    const open = await new Watched(await server.user(U1, options), 'room:1', { private: false }).ready()
    await send({ for: 'another topic' }, 'e', 'room:10')
    await postgres.query(`select realtime.send('{"for": "all"}', 'e', 'room:1', false)`)
    await send({ for: 'readers' })
    expect(await payloads(watched, 1)).toEqual([{ for: 'readers' }])
    expect(await payloads(open, 1)).toEqual([{ for: 'all' }])
    await send({ for: 'readers, again' })
    await postgres.query(`select realtime.send('{"for": "all, again"}', 'e', 'room:1', false)`)
    expect(await payloads(watched, 1)).toEqual([{ for: 'readers, again' }])
    expect(await payloads(open, 1)).toEqual([{ for: 'all, again' }])
  })

  it('matches events without regard to case', async () => {
    const watched = await join()
    const matched: string[] = []
    watched.channel.on('broadcast', { event: 'Step' }, ({ event }) => matched.push(event))
    for (const event of ['step', 'STEP', 'other']) await send({}, event)
    for (let n = 0; n < 3; n++) await watched.message()
    expect(matched).toEqual(['step', 'STEP'])
  })

  it('carries any text', async () => {
    const watched = await join('räume:é😀')
    const payload = { text: '"\\\n\u2028 é😀', nested: [null, false, 0, ''] }
    await send(payload, 'événement "😀"', 'räume:é😀')
    const message = await watched.message()
    expect(message.event).toBe('événement "😀"')
    expect(message.payload).toMatchObject(payload)
  })

  it('loses what is larger than the limit, and nothing else', async () => {
    const watched = await join()
    await send({ text: 'x'.repeat(2_999_000) }, 'just small enough')
    await send({ text: 'x'.repeat(3_001_000) }, 'too large')
    await send({}, 'small')
    expect((await watched.message()).event).toBe('just small enough')
    expect((await watched.message()).event).toBe('small')
  })

  it('delivers rows whose session has another time zone', async () => {
    const watched = await join()
    const client = await bed.connect()
    for (const zone of ['Pacific/Kiritimati', 'Etc/GMT+12']) {
      await client.query(`set timezone = '${zone}'`)
      await send({ zone }, 'e', 'room:1', client)
    }
    expect(await payloads(watched, 2)).toEqual([{ zone: 'Pacific/Kiritimati' }, { zone: 'Etc/GMT+12' }])
  })
})

it('has no room for an event of 300 bytes in the binary form: later subscribers lose it', async () => {
  const first = await new Watched(await server.user(U1, { vsn: '1.0.0' }), 'room:1').ready()
  const second = await new Watched(await server.user(U1, { vsn: '2.0.0' }), 'room:1').ready()
  const third = await new Watched(await server.user(U1, { vsn: '1.0.0' }), 'room:1').ready()
  await send({}, 'e'.repeat(300))
  await send({}, 'after')
  expect((await first.message()).event).toBe('e'.repeat(300))
  for (const watched of [first, second, third]) expect((await watched.message()).event).toBe('after')
})

it('does not deliver updates and deletes', async () => {
  const watched = await new Watched(await server.user(U1), 'room:1').ready()
  await send({}, 'first')
  await postgres.query(`update realtime.messages set event = 'updated' where event = 'first'`)
  await postgres.query(`delete from realtime.messages where event = 'updated'`)
  await send({}, 'second')
  expect((await watched.message()).event).toBe('first')
  expect((await watched.message()).event).toBe('second')
})
