import { randomUUID } from 'node:crypto'
import type { SupabaseClient } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import WebSocket from 'ws'
import { compile } from '../flow/index.ts'
import { LiveList } from '../react/live-list.ts'
import { runList } from '../react/run-list.ts'
import { PgflowClient } from './client.ts'
import type { Run } from './run.ts'
import { Quick } from './testing/quick.ts'
import { Line, Recorder, type Review, Rig, ready } from './testing/rig.ts'

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
  await rig.sql.unsafe(compile(Quick))
})
afterEach(() => vi.useRealTimers())
afterAll(() => rig.stop())

const offline = () => Promise.reject(new TypeError('fetch failed'))

type Client = PgflowClient<{ review: typeof Review; quick: typeof Quick }>

interface Page {
  line: Line
  supabase: SupabaseClient
  client: Client
}

async function open(user: string = randomUUID()): Promise<Page> {
  const line = new Line()
  const supabase = await rig.user(user, { global: { fetch: line.fetch } })
  return { line, supabase, client: new PgflowClient(supabase) }
}

/** Completes runs of `quick` in one statement. */
async function completeAll(runIds: readonly string[]): Promise<void> {
  const results = runIds.map((run_id) => ({
    run_id,
    step_slug: 'only',
    task_index: 0,
    attempt: null,
    output: 1,
  }))
  await rig.sql`select from pgflow.settle_tasks(${rig.sql.json(results)})`
}

/** Resolves when all runs have been read since the channel was joined. */
async function untilCovered({ client }: Page, run: Run): Promise<void> {
  await (client as PgflowClient).lives.at(run.snapshot).adopt({ ...run.snapshot, seq: run.snapshot.seq + 1 })
}

describe('one channel', () => {
  it.each([
    [200, 1],
    [1001, 2],
  ])('has all events of %i runs, which are read in %i requests', async (count, requests) => {
    const page = await open()
    const { line, supabase, client } = page
    const channelReady = ready(supabase)
    const inputs = Array(count).fill(1)
    const runs = [
      ...(await client.startFlows('quick', inputs.slice(0, 1000))),
      ...(await client.startFlows('quick', inputs.slice(1000))),
    ]
    const recorders = runs.map((run) => {
      const recorder = new Recorder()
      run.on('*', recorder.take)
      return recorder
    })
    await channelReady
    await untilCovered(page, runs[0]! as Run)
    expect(supabase.getChannels()).toHaveLength(1)
    expect(line.requests.filter((name) => name === 'sync').length).toBeLessThan(8 * requests)
    expect(new Set(line.requests)).toEqual(new Set(['start_flows', 'sync']))

    line.broken = offline
    await completeAll(runs.map(({ runId }) => runId))
    await Promise.all(recorders.map((recorder) => recorder.last(4)))
    expect(new Set(recorders.map(({ types }) => types.join(' ')))).toEqual(
      new Set(['run:started step:started step:completed run:completed']),
    )
    expect(supabase.getChannels()).toHaveLength(0)
  })

  it('that is up makes another run live without a join', async () => {
    const page = await open()
    const { line, supabase, client } = page
    const channelReady = ready(supabase)
    const first = await client.startFlow('review', { text: 'first' })
    first.on('*', () => undefined)
    await channelReady
    const joins = vi.spyOn(supabase, 'channel')
    const second = await client.startFlow('review', { text: 'second' })
    const all = new Recorder()
    second.on('*', all.take)
    await all.first('step:started')
    line.broken = offline
    await rig.complete(second.runId)
    await all.first('run:completed')
    expect(all.events).toEqual(await rig.log(second.runId))
    expect(joins).not.toHaveBeenCalled()
    await first.close()
  })

  it('is that of the user: two tabs get the events of both, and each tells of its own', async () => {
    const user = randomUUID()
    const pages = await Promise.all([open(user), open(user)])
    const followed = await Promise.all(
      pages.map(async ({ supabase, client }, index) => {
        const channelReady = ready(supabase)
        const run = await client.startFlow('review', { text: `tab ${index}` })
        const all = new Recorder()
        run.on('*', all.take)
        await channelReady
        return { run, all }
      }),
    )
    for (const { run } of followed) await rig.complete(run.runId)
    for (const { run, all } of followed) {
      await all.first('run:completed')
      expect(all.events).toEqual(await rig.log(run.runId))
    }
    const topics = await rig.sql`select distinct topic from pgflow.run_watches where topic like ${`%${user}`}`
    expect(topics.map(({ topic }) => topic)).toEqual([`pgflow:user:${user}`])
  })

  it('of a client with a secret key is its own', async () => {
    const topics = await Promise.all(
      [1, 2].map(async (n) => {
        const supabase = rig.clientOf(rig.stack.secretKey)
        const channelReady = ready(supabase)
        const run = await new PgflowClient(supabase).startFlow<typeof Quick>('quick', n)
        const done = run.waitForCompletion()
        await channelReady
        const topic = supabase.getChannels()[0]!.topic
        await completeAll([run.runId])
        expect(await done).toEqual({ only: 1 })
        return topic
      }),
    )
    expect(new Set(topics).size).toBe(2)
    expect(topics.every((topic) => /^realtime:pgflow:watch:[\da-f-]{36}$/.test(topic))).toBe(true)
  })

  it('is not asked for where nobody is signed in', async () => {
    const supabase = rig.client()
    const joins = vi.spyOn(supabase, 'channel')
    await rig.sql`update pgflow.flows set start_role = 'anon' where flow_slug = 'quick'`
    const run = await new PgflowClient(supabase).startFlow<typeof Quick>('quick', 1)
    await expect(run.waitForCompletion()).rejects.toMatchObject({ code: 'PT404' })
    expect(joins).not.toHaveBeenCalled()
    await rig.sql`update pgflow.flows set start_role = 'authenticated' where flow_slug = 'quick'`
  })

  it('gets no token with each new run, also where each request has another one', async () => {
    const sub = randomUUID()
    let pushes = 0
    class CountingSocket extends WebSocket {
      override send(data: never): void {
        if (String(data).includes('"access_token",{')) pushes++
        super.send(data)
      }
    }
    let lifetime = 3600
    const supabase = rig.client({
      accessToken: () => rig.stack.signToken({ sub, exp: Math.floor(Date.now() / 1000) + lifetime++ }),
      realtime: { transport: CountingSocket as never },
    })
    const client: Client = new PgflowClient(supabase)
    const channelReady = ready(supabase)
    const runs = [await client.startFlow('quick', 0)]
    runs[0]!.on('*', () => undefined)
    await channelReady
    pushes = 0
    for (let n = 1; n < 20; n++) {
      const run = await client.startFlow('quick', n)
      const all = new Recorder()
      run.on('*', all.take)
      await all.first('step:started')
      runs.push(run)
    }
    // supabase-js looks at it with its heartbeat.
    expect(pushes).toBeLessThanOrEqual(1)
    await Promise.all(runs.map((run) => run.close()))
  })
})

describe('a joined channel is checked every five seconds', () => {
  /** Two runs on a joined channel, of which the next check is five seconds of a faked clock away. */
  async function quiet() {
    const page = await open()
    const channelReady = ready(page.supabase)
    const runs = await page.client.startFlows('review', [{ text: 'a' }, { text: 'b' }])
    const recorders = runs.map((run) => {
      const recorder = new Recorder()
      run.on('*', recorder.take)
      return recorder
    })
    await channelReady
    await untilCovered(page, runs[0]! as Run)
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    const { sync } = (page.client as PgflowClient).lives
    // All runs are read now.
    await sync.read(runs.map((run) => (page.client as PgflowClient).lives.at(run.snapshot)))
    page.line.requests.length = 0
    return { ...page, runs, recorders }
  }

  it('so that a loss on an idle one is found by then', async () => {
    const { line, runs, recorders } = await quiet()
    rig.stack.realtime.dropNext(1)
    await rig.settle(runs[0]!.runId, 'read', { output: 'some text' })
    await vi.advanceTimersByTimeAsync(4900)
    expect(line.requests).toEqual([])
    await vi.advanceTimersByTimeAsync(100)
    await recorders[0]!.first('step:completed', 'read')
    expect(line.requests[0]).toBe('sync')
    vi.useRealTimers()
    await Promise.all(runs.map((run) => run.close()))
  })

  it('so that a loss on a busy one is found by then, too, and it is joined again', async () => {
    const { supabase, runs, recorders } = await quiet()
    const [lost, busy] = [runs[0]!, runs[1]!]
    rig.stack.realtime.dropNext(1)
    await rig.settle(lost.runId, 'read', { output: 'some text' })
    for (let second = 1; second <= 4; second++) {
      await rig.sql`
        update pgflow.step_states set progress = ${second} where run_id = ${busy.runId} and step_slug = 'read'
      `
      await recorders[1]!.last(2 + second)
      await vi.advanceTimersByTimeAsync(1000)
    }
    expect(recorders[0]!.types).not.toContain('step:completed')
    const joinedAgain = new Promise((resolve) => {
      const channel = supabase.channel.bind(supabase)
      supabase.channel = (...args) => {
        resolve(undefined)
        return channel(...args)
      }
    })
    await vi.advanceTimersByTimeAsync(1000)
    await recorders[0]!.first('step:completed', 'read')
    // The channel does not deliver it until the next look either.
    await vi.advanceTimersByTimeAsync(2000)
    await joinedAgain
    vi.useRealTimers()
    await Promise.all(runs.map((run) => run.close()))
  })

  it('with one request for all, whatever their number: 12 a minute', async () => {
    const { line, runs, client } = await quiet()
    for (let check = 1; check <= 12; check++) {
      await vi.advanceTimersByTimeAsync(4999)
      expect(line.requests).toHaveLength(check - 1)
      await vi.advanceTimersByTimeAsync(1)
      // Settled when the request is.
      await (client as PgflowClient).lives.sync.read([])
      expect(line.requests).toEqual(Array(check).fill('sync'))
    }
    vi.useRealTimers()
    await Promise.all(runs.map((run) => run.close()))
  })

  it('and joined again when requests succeed that failed before', async () => {
    const { line, supabase, client, runs } = await quiet()
    const joins = vi.spyOn(supabase, 'channel')
    line.broken = offline
    await vi.advanceTimersByTimeAsync(5000)
    await (client as PgflowClient).lives.sync.read([])
    expect(line.requests).toEqual(['sync'])
    expect(joins).not.toHaveBeenCalled()
    line.broken = undefined
    // It is repeated after a second at most.
    await vi.advanceTimersByTimeAsync(1000)
    await vi.waitFor(() => expect(joins).toHaveBeenCalledTimes(1))
    vi.useRealTimers()
    await Promise.all(runs.map((run) => run.close()))
  })

  it('and not joined again for what it has delivered, also of runs that are only listed', async () => {
    const { line, supabase, client, runs, recorders } = await quiet()
    const list = new LiveList(client as PgflowClient, runList(client as PgflowClient, {}))
    const unsubscribe = list.subscribe(() => undefined)
    await vi.waitFor(() => expect(list.view().rows).toHaveLength(2))
    const { sync } = (client as PgflowClient).lives
    // From now on nobody but the list follows the first.
    await runs[0]!.close()
    await vi.advanceTimersByTimeAsync(5000)
    await sync.read([])
    const leaves = vi.spyOn(supabase, 'removeChannel')
    for (let progress = 1; progress <= 2; progress++) {
      for (const run of runs) {
        await rig.sql`
          update pgflow.step_states set progress = ${progress} where run_id = ${run.runId} and step_slug = 'read'
        `
      }
      await recorders[1]!.last(2 + progress)
    }
    line.requests.length = 0
    await vi.advanceTimersByTimeAsync(5000)
    await sync.read([])
    expect(line.requests).toContain('sync')
    await vi.advanceTimersByTimeAsync(2000)
    expect(leaves).not.toHaveBeenCalled()
    vi.useRealTimers()
    unsubscribe()
    await runs[1]!.close()
  })
})

describe('a run whose output takes long to come', () => {
  it('does not keep the other runs waiting', async () => {
    const { line, supabase, client } = await open()
    const channelReady = ready(supabase)
    const [slow, other] = await client.startFlows('review', [{ text: 'a' }, { text: 'b' }])
    const [slowEvents, otherEvents] = [new Recorder(), new Recorder()]
    slow!.on('*', slowEvents.take)
    other!.on('*', otherEvents.take)
    await channelReady
    await Promise.all([slowEvents.last(2), otherEvents.last(2)])
    let answer = () => {}
    const asked = new Promise<void>((resolve) => {
      line.broken = async (...request) => {
        if (String(request[0]).endsWith('get_run')) {
          resolve()
          await new Promise<void>((answered) => {
            answer = answered
          })
        }
        return fetch(...request)
      }
    })
    await rig.settle(slow!.runId, 'read', { output: 'x'.repeat(20_000) })
    await asked
    rig.stack.realtime.dropNext(1)
    await rig.settle(other!.runId, 'read', { output: 'some text' })
    const { lives } = client as PgflowClient
    await lives.sync.read([lives.at(other!.snapshot)])
    await otherEvents.first('step:completed', 'read')
    expect(slowEvents.types).not.toContain('step:completed')
    answer()
    await slowEvents.first('step:completed', 'read')
    expect(slow!.steps.read.output).toBe('x'.repeat(20_000))
    await Promise.all([slow!.close(), other!.close()])
  })
})

describe('a run that others are ahead of', () => {
  it('gets all events, though a list of the same client knows later ones', async () => {
    const { client } = await open()
    const run = await client.startFlow('review', { text: 'a' })
    const { sync } = (client as PgflowClient).lives
    const asked: number[] = []
    // Stands first in the order in which runs are asked for.
    const ahead = {
      runId: run.runId,
      cursor: 5,
      behind: false,
      receive: () => undefined,
      update: (read: { events: readonly { seq: number }[] } | undefined) => {
        asked.push(...(read?.events ?? []).map(({ seq }) => seq))
        return false
      },
      refuse: () => undefined,
    }
    const leave = sync.add(ahead)
    const all = new Recorder()
    run.on('*', all.take)
    await all.last(2)
    expect(asked).toEqual([1, 2])
    leave()
    await run.close()
  })
})
