import { readFileSync } from 'node:fs'
import type pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { labelledTokens, type RawSocket, TestBed, type TestServer } from './fixtures/server.ts'

/** The same frames of a client get the same frames of the server as on the platform, up to ids and times. */
const RECORDING = readFileSync(new URL('./fixtures/conversations.txt', import.meta.url), 'utf8')
const CONVERSATIONS = RECORDING.split('\n# ')
  .slice(1)
  .map((text) => text.trim().split('\n'))
  .map(([name = '', ...lines]) => ({ name, lines }))

let bed: TestBed
let server: TestServer
let postgres: pg.Client
let tokens: Record<string, string>

beforeAll(async () => {
  bed = await TestBed.start()
  server = await bed.serve()
  postgres = await bed.connect()
  tokens = await labelledTokens(bed.stack)
  await server.realtime.startReplication()
})
afterEach(() => server.reset())
afterAll(() => bed.stop())

describe('recorded conversations', () => {
  it.each(CONVERSATIONS)('$name', async ({ lines }) => {
    const sockets = new Map<string, RawSocket>()
    for (const line of lines) await follow(line, sockets)
    for (const socket of sockets.values()) await expectNothingElse(socket)
  })
})

async function follow(line: string, sockets: Map<string, RawSocket>): Promise<void> {
  const [, id = '', action, text = ''] = /^(sql|\d+) (?:(open|>|<) )?(.*)$/.exec(line) ?? []
  if (id === 'sql') return void (await postgres.query(text))
  if (action === 'open') {
    const [vsn = '', key = ''] = text.split(' ')
    sockets.set(id, await server.open({ vsn, apikey: withTokens(key) }))
    return
  }
  const socket = sockets.get(id)
  if (!socket) throw new Error(`${line}: the socket is not open`)
  if (action === '<') expect(readable(await socket.next())).toBe(text)
  else socket.send(text.startsWith('hex:') ? Buffer.from(text.slice(4), 'hex') : withTokens(text))
}

/** The answer to a heartbeat is the next frame. */
async function expectNothingElse(socket: RawSocket): Promise<void> {
  const isArray = new URL(socket.ws.url).searchParams.get('vsn') === '2.0.0'
  const beat = { topic: 'phoenix', event: 'heartbeat', payload: {}, ref: 'last' }
  socket.send(JSON.stringify(isArray ? [null, beat.ref, beat.topic, beat.event, beat.payload] : beat))
  expect(readable(await socket.next())).toBe(
    isArray
      ? '[null,"last","phoenix","phx_reply",{"status":"ok","response":{}}]'
      : '{"ref":"last","event":"phx_reply","topic":"phoenix","payload":{"status":"ok","response":{}}}',
  )
}

function withTokens(text: string): string {
  return text.replace(/<([^>]+)>/g, (_, label: string) => {
    const token = tokens[label]
    if (token === undefined) throw new Error(`no token is labelled ${label}`)
    return token
  })
}

function readable(frame: string | Buffer): string {
  if (typeof frame === 'string') return masked(frame)
  const [topic = 0, event = 0, metadata = 0, encoding] = frame.subarray(1, 5)
  const payloadAt = 5 + topic + event + metadata
  const payload = frame.subarray(payloadAt)
  const head = `${frame.toString('hex', 0, 5)}|${frame.toString('utf8', 5, payloadAt)}`
  return masked(encoding === 0 ? `${head}|${payload.toString('hex')}` : head + payload.toString())
}

function masked(text: string): string {
  return text
    .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '<uuid>')
    .replace(/expired \d+ seconds/, 'expired <n> seconds')
}
