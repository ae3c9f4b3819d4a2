import { randomUUID } from 'node:crypto'
import type { SupabaseClient, SupabaseClientOptions } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { PgflowClient } from './client.ts'
import { RunCancelledError, RunFailedError } from './errors.ts'
import type { Run } from './run.ts'
import { Line, Recorder, type Review, Rig, ready } from './testing/rig.ts'
import type { RunEvent } from './types.ts'

// Defects that comparable clients had. Those of hooks are beside the hooks.

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
})
afterEach(() => {
  Object.assign(rig.stack.realtime.settings, { joinErrorDelayMs: 0, readyTimeoutMs: 60_000 })
})
afterAll(() => rig.stop())

type Started = { line: Line; supabase: SupabaseClient; client: PgflowClient; run: Run<typeof Review> }

async function start(options: SupabaseClientOptions<'public'> = {}): Promise<Started> {
  const line = new Line()
  const supabase = await rig.user(randomUUID(), { global: { fetch: line.fetch }, ...options })
  const client = new PgflowClient(supabase)
  return { line, supabase, client, run: await client.startFlow<typeof Review>('review', { text: 'a' }) }
}

function listen(run: Run<typeof Review>): Recorder<RunEvent<typeof Review>> {
  const recorder = new Recorder<RunEvent<typeof Review>>()
  run.on('*', recorder.take)
  return recorder
}

it('starting waits for no channel, and needs no Realtime', async () => {
  class NoSocket {
    constructor() {
      throw new Error('there is no WebSocket')
    }
  }
  const { line, supabase } = await start({ realtime: { transport: NoSocket as never } })
  expect(line.requests).toEqual(['start_flow'])
  expect(supabase.getChannels()).toHaveLength(0)
})

it('a snapshot that comes late takes nothing back', async () => {
  const { line, client, run } = await start()
  const seen = listen(run)
  await seen.first('step:started')
  let arrive = () => {}
  const read = new Promise<void>((resolve) => {
    line.broken = async (...request) => {
      line.broken = undefined
      const answer = await fetch(...request)
      resolve()
      await new Promise<void>((arrived) => {
        arrive = arrived
      })
      return answer
    }
  })
  const late = client.getRun(run.runId)
  await read
  await rig.complete(run.runId)
  await run.waitForCompletion()
  arrive()
  expect((await late).status).toBe('completed')
  expect(run).toMatchObject({ status: 'completed', output: { report: true } })
  expect(seen.events).toEqual(await rig.log(run.runId))
})

it('nothing is lost between the first snapshot and the channel', async () => {
  const { run, supabase } = await start()
  await rig.settle(run.runId, 'read', { output: 'a' })
  const channelReady = ready(supabase)
  const seen = listen(run)
  await rig.settle(run.runId, 'left', { output: { words: 1 } })
  await channelReady
  await rig.complete(run.runId, 2)
  await run.waitForCompletion()
  const log = (await rig.log(run.runId)) as RunEvent[]
  expect(seen.seqs).toEqual(log.map(({ seq }) => seq))
})

it('waiting ends however the run ends, whenever it ended, and notices a signal that is aborted already', async () => {
  const [failed, cancelled] = [await start(), await start()]
  const waiting = Promise.allSettled([failed.run.waitForCompletion(), cancelled.run.waitForCompletion()])
  await rig.settle(failed.run.runId, 'read', { error: 'no', permanent: true })
  await rig.sql`select pgflow.cancel_run(${cancelled.run.runId}, 'enough')`
  const [first, second] = await waiting
  expect(first).toMatchObject({ reason: expect.any(RunFailedError) })
  expect(second).toMatchObject({ reason: expect.any(RunCancelledError) })
  const again = await failed.client.getRun(failed.run.runId)
  await expect(again.waitForCompletion()).rejects.toThrow(RunFailedError)
  const running = await start()
  await expect(running.run.waitForCompletion({ signal: AbortSignal.abort('now') })).rejects.toBe('now')
})

it('a join that is never answered in time is repeated, and events come again', async () => {
  rig.stack.realtime.settings.joinErrorDelayMs = 300
  rig.stack.realtime.refuseJoins('MissingPartition: no partition', 1)
  const { run, supabase } = await start({ realtime: { timeout: 100 } })
  const statuses: string[] = []
  const channel = supabase.channel.bind(supabase)
  supabase.channel = (...args) => {
    const made = channel(...args)
    const subscribe = made.subscribe.bind(made)
    made.subscribe = (callback, timeout) =>
      subscribe((status, error) => {
        statuses.push(status)
        callback?.(status, error)
      }, timeout)
    return made
  }
  const channelReady = ready(supabase)
  const seen = listen(run)
  await channelReady
  expect(statuses[0]).toBe('TIMED_OUT')
  await rig.complete(run.runId)
  expect(await run.waitForCompletion()).toEqual({ report: true })
  expect(seen.events).toEqual(await rig.log(run.runId))
})

it('a channel that was closed by the server is built anew', async () => {
  const { realtime } = rig.stack
  const { run, supabase } = await start()
  // The server gives up a channel that it cannot serve in time; the socket lives on.
  realtime.settings.readyTimeoutMs = 50
  await realtime.stopReplication()
  const closed = new Promise((resolve) => {
    const channel = supabase.channel.bind(supabase)
    supabase.channel = (...args) => {
      supabase.channel = channel
      const made = channel(...args)
      return made.on('system', {}, ({ status }) => status === 'error' && resolve(made))
    }
  })
  const seen = listen(run)
  const first = await closed
  const rebuilt = ready(supabase)
  realtime.settings.readyTimeoutMs = 60_000
  await realtime.startReplication()
  await rebuilt
  expect(supabase.getChannels()).not.toContain(first)
  await rig.complete(run.runId)
  await run.waitForCompletion()
  expect(seen.events).toEqual(await rig.log(run.runId))
})

it('steps that have not begun are there', async () => {
  const { run } = await start()
  expect(run.step('report')).toMatchObject({ status: 'created', output: null, error: null, progress: null })
  expect(Object.keys(run.steps)).toEqual(['read', 'left', 'right', 'report'])
})

it('what was completed, or failed, before the client came has its output, or its error', async () => {
  const { run, client } = await start()
  await rig.settle(run.runId, 'read', { output: 'x'.repeat(20_000) })
  await rig.settle(run.runId, 'left', { error: 'no words', permanent: true })
  // Another page: nothing is shared with the first client.
  const reloaded = await new PgflowClient(await rig.user(run.snapshot.owner_id!)).getRun<typeof Review>(
    run.runId,
  )
  expect(reloaded.step('read').output).toBe('x'.repeat(20_000))
  expect(reloaded.error).toContain('no words')
  expect(reloaded.step('left').error).toContain('no words')
  const seen = listen(reloaded)
  expect(await seen.first('step:completed', 'read')).toMatchObject({ output: 'x'.repeat(20_000) })
  expect(await seen.first('run:failed')).toMatchObject({ error: reloaded.error })
  expect((await client.getRun(run.runId)).status).toBe('failed')
})

it('all listeners of a run share a channel, which is there until the last has gone', async () => {
  const { run, supabase } = await start()
  const channelReady = ready(supabase)
  const [first, second] = [run.on('*', () => undefined), run.on('*', () => undefined)]
  listen(run)
  await channelReady
  first()
  expect(supabase.getChannels()).toHaveLength(1)
  second()
  expect(supabase.getChannels()).toHaveLength(1)
  await run.close()
  expect(supabase.getChannels()).toHaveLength(0)
})

it('more runs than a socket has channels can be followed one after the other', async () => {
  const { client, supabase } = await start()
  for (const run of await client.startFlows<typeof Review>('review', Array(120).fill({ text: 'a' }))) {
    const channelReady = ready(supabase)
    listen(run)
    await channelReady
    expect(supabase.getChannels()).toHaveLength(1)
    await run.close()
  }
})

it('nothing is asked for after the end, and nobody hears of the end early', async () => {
  const { line, run } = await start()
  const order: string[] = []
  run.on('run:completed', () => order.push(...Object.values(run.steps).map(({ status }) => status)))
  const done = run.waitForCompletion()
  await rig.complete(run.runId)
  await done
  expect(order).toEqual(['completed', 'completed', 'completed', 'completed'])
  await run.close()
  const { length } = line.requests
  expect(run.output).toEqual({ report: true })
  listen(await new PgflowClient(await rig.user(run.snapshot.owner_id!)).getRun(run.runId))
  expect(line.requests).toHaveLength(length)
})
