import type pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { type RawSocket, TestBed, type TestServer, U1 } from './fixtures/server.ts'
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

/** A raw socket with `room:1`, over which the database's messages flow. */
async function listening(): Promise<RawSocket> {
  const socket = await open()
  join(socket, 'room:1')
  expect([await next(socket), await next(socket)]).toEqual(['room:1 ok', 'system'])
  return socket
}

it.each([
  ['refused', { joinErrorDelayMs: 300 }, 'room:none', 'room:none error'],
  ['delayed', { joinDelayMs: 300 }, 'room:2', 'room:2 ok'],
])('a socket whose join is %s sends nothing meanwhile; others do', async (_, delays, topic, reply) => {
  const { settings } = await serve()
  const [socket, other] = [await listening(), await listening()]
  Object.assign(settings, delays)
  join(socket, topic)
  heartbeat(socket)
  let isPonged = false
  const pong = new Promise<void>((resolve) => {
    socket.ws.on('pong', () => {
      isPonged = true
      resolve()
    })
  })
  socket.ws.ping()
  await send('news')
  expect(await next(other)).toBe('news')
  expect(isPonged).toBe(false)
  const frames = [await next(socket)]
  while (frames.at(-1) !== 'beat ok') frames.push(await next(socket))
  expect(frames.filter((frame) => frame !== 'system')).toEqual([reply, 'news', 'beat ok'])
  await pong
})
