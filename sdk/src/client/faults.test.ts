import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { SupabaseClient, SupabaseClientOptions } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { PgflowClient } from './client.ts'
import type { Run } from './run.ts'
import { Line, outputs, Recorder, type Review, Rig, ready } from './testing/rig.ts'
import type { RunEvent } from './types.ts'

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
})
afterEach(() => rig.stack.realtime.startReplication())
afterAll(() => rig.stop())

interface Followed {
  supabase: SupabaseClient
  line: Line
  run: Run<typeof Review>
  all: Recorder<RunEvent<typeof Review>>
  /** What another object of the same run hears of one step. */
  other: Recorder<RunEvent<typeof Review>>
  /** What an iterator has given when it ends; nothing if it was broken off. */
  iterated: Promise<RunEvent[]>
  done: Promise<{ report: boolean }>
  ready: Promise<void>
}

/** A run that is listened to and waited for. */
async function follow(options: SupabaseClientOptions<'public'> = {}): Promise<Followed> {
  const line = new Line()
  const supabase = await rig.user(randomUUID(), { global: { fetch: line.fetch }, ...options })
  const run = await new PgflowClient(supabase).startFlow<typeof Review>('review', { text: 'some text' })
  const again = await new PgflowClient(supabase).getRun<typeof Review>(run.runId)
  const channelReady = ready(supabase)
  const [all, other] = [new Recorder<RunEvent<typeof Review>>(), new Recorder<RunEvent<typeof Review>>()]
  run.on('*', all.take)
  again.step('left').on('*', other.take)
  const iterated = collect(run.events()).catch(() => [])
  const done = run.waitForCompletion()
  return { supabase, line, run, all, other, iterated, done, ready: channelReady }
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const collected: Item[] = []
  for await (const item of items) collected.push(item)
  return collected
}

/** All listeners got what the log has, and everything was put away. */
async function expectAll({ supabase, run, all, other, iterated, done }: Followed): Promise<void> {
  expect(await done).toEqual({ report: true })
  const log = (await rig.log(run.runId)) as RunEvent[]
  expect(all.events).toEqual(log)
  expect(other.events).toEqual(log.filter(({ step_slug }) => step_slug === 'left'))
  expect(await iterated).toEqual(log)
  await run.close()
  expect(supabase.getChannels().length).toBe(0)
}

describe('once the channel is ready', () => {
  it.each(['1.0.0', '2.0.0'])('events come by it alone (protocol %s)', async (vsn) => {
    const followed = await follow({ realtime: { vsn } })
    await followed.ready
    followed.line.broken = () => Promise.reject(new TypeError('fetch failed'))
    await rig.complete(followed.run.runId)
    await expectAll(followed)
  })

  it('a run that nobody looks at any more is not read', async () => {
    const line = new Line()
    const supabase = await rig.user(randomUUID(), { global: { fetch: line.fetch } })
    const run = await new PgflowClient(supabase).startFlow<typeof Review>('review', { text: 'some text' })
    const all = new Recorder<RunEvent<typeof Review>>()
    run.on('*', all.take)
    await all.first('step:started')
    await run.close()
    const { length } = line.requests
    await rig.complete(run.runId)
    expect(line.requests).toHaveLength(length)
    expect(all.types).toEqual(['run:started', 'step:started'])
  })
})

describe('every event comes once and in order', () => {
  it.each([undefined, 1000, 1001, 1012])('when sockets are closed in the middle (%s)', async (code) => {
    const followed = await follow()
    await followed.ready
    await rig.settle(followed.run.runId, 'read', { output: 'some text' })
    rig.stack.realtime.closeSockets(code)
    await rig.complete(followed.run.runId, 1)
    await expectAll(followed)
  })

  it.each([1, 2, 3, 4])('when message %i is lost', async (lost) => {
    const followed = await follow()
    await followed.ready
    for (const [index, [slug, output]] of outputs.entries()) {
      if (index + 1 === lost) rig.stack.realtime.dropNext(1)
      await rig.settle(followed.run.runId, slug, { output })
    }
    await expectAll(followed)
  })

  it('when the server stops to send, and begins again', async () => {
    const followed = await follow()
    await followed.ready
    await rig.stack.realtime.stopReplication()
    await rig.settle(followed.run.runId, 'read', { output: 'some text' })
    await rig.settle(followed.run.runId, 'left', { output: { words: 9 } })
    await rig.stack.realtime.startReplication()
    await rig.complete(followed.run.runId, 2)
    await expectAll(followed)
  })

  it('when the server is restarted', async () => {
    const followed = await follow()
    await followed.ready
    await rig.settle(followed.run.runId, 'read', { output: 'some text' })
    await rig.stack.realtime.stopReplication()
    rig.stack.realtime.closeSockets(1012)
    await rig.settle(followed.run.runId, 'left', { output: { words: 9 } })
    await rig.stack.realtime.startReplication()
    await rig.complete(followed.run.runId, 2)
    await expectAll(followed)
  })

  it('when the database is restarted', async () => {
    const followed = await follow()
    await followed.ready
    await rig.settle(followed.run.runId, 'read', { output: 'some text' })
    await rig.stack.postgres.restart()
    await rig.complete(followed.run.runId, 1)
    await expectAll(followed)
  })

  it('when the server goes on not to send, by a channel that is joined anew', async () => {
    const followed = await follow()
    await followed.ready
    let joinedAnew = false
    const channel = followed.supabase.channel.bind(followed.supabase)
    followed.supabase.channel = (...args) => {
      joinedAnew = true
      return channel(...args)
    }
    await rig.stack.realtime.stopReplication()
    const { runId } = followed.run
    // Found by one look after the other, which is one too many.
    for (let done = 1; !joinedAnew; done++) {
      const progressed = new Promise<void>((resolve) => {
        const stop = followed.run.on('step:progress', ({ progress }) => {
          if (progress !== done) return
          stop()
          resolve()
        })
      })
      await rig.sql`
        update pgflow.step_states set progress = ${done} where run_id = ${runId} and step_slug = 'read'
      `
      await progressed
    }
    await rig.complete(runId)
    await expectAll(followed)
  })

  it('when the first join is refused', async () => {
    rig.stack.realtime.refuseJoins(
      'MissingPartition: Realtime was unable to find the expected messages partition',
      1,
    )
    const followed = await follow()
    await followed.ready
    await rig.complete(followed.run.runId)
    await expectAll(followed)
  })

  it('when the token expires, and a new one comes', async () => {
    const sub = randomUUID()
    const brief = () => rig.stack.signToken({ sub, exp: Math.floor(Date.now() / 1000) + 2 })
    const followed = await follow({ accessToken: brief })
    await followed.ready
    const closed = new Promise<void>((resolve) => {
      followed.supabase.getChannels()[0]!.on('system', {}, ({ message }) => {
        if (message.startsWith('Token has expired')) resolve()
      })
    })
    await rig.settle(followed.run.runId, 'read', { output: 'some text' })
    await closed
    await rig.complete(followed.run.runId, 1)
    await expectAll(followed)
  })

  it.each([
    ['is unreachable', () => Promise.reject(new TypeError('fetch failed'))],
    ['is overloaded', async () => Response.json({ message: 'no' }, { status: 503 })],
    ['limits the rate', async () => Response.json({ message: 'no' }, { status: 429 })],
    ['answers with a page', async () => new Response('<html>', { status: 502 })],
  ])('when the server %s for a while', async (_, broken) => {
    const followed = await follow()
    let failures = 0
    followed.line.broken = () => {
      if (++failures === 2) followed.line.broken = undefined
      return broken()
    }
    await rig.complete(followed.run.runId)
    await expectAll(followed)
    expect(failures).toBe(2)
  })
})

describe('without Realtime it polls', () => {
  class Impossible {
    constructor() {
      throw new Error('no WebSocket here')
    }
  }

  class Unreachable extends WebSocket {
    constructor() {
      super('ws://127.0.0.1:9')
    }
  }

  it.each([
    ['there is no WebSocket', Impossible],
    ['the socket cannot connect', Unreachable],
  ])('when %s', async (_, transport) => {
    const followed = await follow({ realtime: { transport: transport as never } })
    await rig.complete(followed.run.runId)
    await expectAll(followed)
  })

  it('when joining is forbidden, and then asks no more to join', async () => {
    rig.stack.realtime.refuseJoins('Unauthorized: You do not have permissions', 2)
    const followed = await follow()
    const topic = await new Promise((resolve) => {
      const { supabase } = followed
      const remove = supabase.removeChannel.bind(supabase)
      supabase.removeChannel = (channel) => {
        resolve(channel.topic)
        return remove(channel)
      }
    })
    expect(topic).toBe(`realtime:pgflow:user:${followed.run.snapshot.owner_id}`)
    expect(followed.supabase.getChannels().length).toBe(0)
    await rig.complete(followed.run.runId)
    await expectAll(followed)
  })
})

describe('a session that has ended', () => {
  it('rejects whoever waits, and listeners go on when it is back', async () => {
    const { line, run, all, done } = await follow()
    const refused = expect(done).rejects.toMatchObject({ code: 'PGRST303', status: 401 })
    await all.first('step:started')
    line.broken = async () => {
      line.broken = undefined
      return Response.json({ code: 'PGRST303', message: 'JWT expired' }, { status: 401 })
    }
    rig.stack.realtime.closeSockets()
    await refused
    await rig.complete(run.runId)
    await all.first('run:completed')
    expect(all.events).toEqual(await rig.log(run.runId))
  })
})

/** The program of `testing/follow-run.ts`, and what it has said. */
async function spawnProgram(env: Record<string, string> = {}) {
  const script = fileURLToPath(new URL('./testing/follow-run.ts', import.meta.url))
  const child = spawn(process.execPath, ['--conditions=pgflow-source', '--import', 'tsx', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      SUPABASE_URL: rig.stack.url,
      SUPABASE_KEY: rig.stack.publishableKey,
      SUPABASE_TOKEN: await rig.stack.signToken({ sub: randomUUID() }),
      ...env,
    },
  })
  const exit = once(child, 'exit')
  const said: string[] = []
  const runId = await new Promise<string>((resolve) => {
    createInterface(child.stdout).on('line', (line) => {
      said.push(line)
      if (line.startsWith('ready ')) resolve(line.slice('ready '.length))
    })
  })
  return { child, runId, said, exit }
}

describe('a process', () => {
  it('ends by itself when its last run is over', async () => {
    const { runId, said, exit } = await spawnProgram()
    await rig.complete(runId)
    expect(await exit).toEqual([0, null])
    expect(said.at(-1)).toBe('{"report":true}')
  })

  it('ends by itself when its last run is closed', async () => {
    const { said, exit } = await spawnProgram({ LEAVE: 'yes' })
    expect(await exit).toEqual([0, null])
    expect(said.at(-1)).toMatch(/^ready/)
  })

  it('that slept while everything happened learns of it when it wakes up', async () => {
    const { child, runId, said, exit } = await spawnProgram()
    child.kill('SIGSTOP')
    await rig.settle(runId, 'read', { output: 'some text' })
    await rig.stack.realtime.stopReplication()
    await rig.complete(runId, 1)
    rig.stack.realtime.closeSockets()
    child.kill('SIGCONT')
    expect(await exit).toEqual([0, null])
    const log = (await rig.log(runId)) as RunEvent[]
    expect(said.filter((line) => /^\d/.test(line))).toEqual(log.map(({ seq, type }) => `${seq} ${type}`))
    expect(said.at(-1)).toBe('{"report":true}')
  })
})
