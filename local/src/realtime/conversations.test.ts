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
let sessions: Record<string, Session>
let tokens: Record<string, string>

beforeAll(async () => {
  bed = await TestBed.start()
  server = await bed.serve()
  sessions = {
    sql: new Session(await bed.connect()),
    sql2: new Session(await bed.connect()),
    admin: new Session(await bed.connect(bed.stack.adminDbUrl)),
  }
  tokens = await labelledTokens(bed.stack)
  await server.realtime.startReplication()
})
afterEach(() => server.reset())
afterAll(() => bed.stop())

describe('recorded conversations', () => {
  it.each(CONVERSATIONS)('$name', async ({ lines }) => {
    const conversation = new Conversation()
    for (const line of lines) await conversation.follow(line)
    await conversation.end()
  })
})

/** A session of the database that says what became of its latest statement. */
class Session {
  readonly #client: pg.Client
  #warning: string | undefined

  constructor(client: pg.Client) {
    this.#client = client
    client.on('notice', ({ message }) => {
      this.#warning = message
    })
  }

  async run(statement: string): Promise<{ error?: string | undefined; warning?: string | undefined }> {
    this.#warning = undefined
    const error = await this.#client.query(statement).then(
      () => undefined,
      (failure: pg.DatabaseError) => failure.code,
    )
    return { error, warning: this.#warning }
  }
}

class Conversation {
  readonly #sockets = new Map<string, RawSocket>()
  readonly #closed = new Set<string>()
  /** What became of the statement before. */
  #outcome: Awaited<ReturnType<Session['run']>> = {}

  async follow(line: string): Promise<void> {
    const [word = '', ...rest] = line.split(' ')
    const text = rest.join(' ')
    if (word === 'warning') return expect(this.#outcome.warning).toBe(text)
    if (word !== 'error') expect(this.#outcome.error).toBeUndefined()
    const { error } = this.#outcome
    this.#outcome = {}
    if (word === 'error') return expect(error).toBe(text)
    const session = sessions[word]
    if (session) this.#outcome = await session.run(text)
    else if (word === 'server') await this.#switch(text)
    else await this.#exchange(word, line.slice(word.length + 1))
  }

  /** Nothing is left unsaid, by any socket that is still open. */
  async end(): Promise<void> {
    expect(this.#outcome.error).toBeUndefined()
    for (const [id, socket] of this.#sockets) if (!this.#closed.has(id)) await expectNothingElse(socket)
  }

  async #switch(text: string): Promise<void> {
    const [name, code] = text.split(' ')
    const { realtime } = server
    if (name === 'stopReplication') await realtime.stopReplication()
    else if (name === 'startReplication') await realtime.startReplication()
    else if (name === 'closeSockets') realtime.closeSockets(code === undefined ? undefined : Number(code))
    else throw new Error(`the server has no switch ${name}`)
  }

  async #exchange(id: string, rest: string): Promise<void> {
    const [, action, text = ''] = /^(open|closed|>|<) (.*)$/.exec(rest) ?? []
    if (action === 'open') {
      const [vsn = '', key = ''] = text.split(' ')
      const version: Record<string, string> = vsn === 'none' ? {} : { vsn }
      this.#sockets.set(id, await server.open({ ...version, apikey: withTokens(key) }))
      return
    }
    const socket = this.#sockets.get(id)
    if (!socket) throw new Error(`${id} ${rest}: the socket is not open`)
    if (action === '>')
      socket.send(text.startsWith('hex:') ? Buffer.from(text.slice(4), 'hex') : withTokens(text))
    else if (action === '<') expect(readable(await socket.next())).toBe(text)
    else {
      expect(await socket.closed).toBe(Number(text))
      this.#closed.add(id)
    }
  }
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
