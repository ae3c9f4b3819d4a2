import { randomUUID } from 'node:crypto'
import { createClient } from '@supabase/supabase-js'
import { createClient as createClient91 } from 'supabase-js-2.91'
import { createClient as createClient100 } from 'supabase-js-2.100'
import { createClient as createClient109 } from 'supabase-js-2.109'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { PgflowClient } from './client.ts'
import { Line, Recorder, type Review, Rig, ready } from './testing/rig.ts'
import type { RunEvent } from './types.ts'

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
})
afterAll(() => rig.stop())

// Behaviour is tested here, types in supabase.test-d.ts.
const versions = [
  ['2.91', createClient91 as unknown as typeof createClient],
  ['2.100', createClient100 as unknown as typeof createClient],
  ['2.109', createClient109 as unknown as typeof createClient],
  ['the current one', createClient],
] as const

describe.each(versions)('with supabase-js %s', (_, create) => {
  const begin = async () => {
    const sub = randomUUID()
    const line = new Line()
    let tokens = 0
    const accessToken = () => rig.stack.signToken({ sub, jti: String(++tokens) })
    const supabase = rig.client({ accessToken, global: { fetch: line.fetch } }, create)
    const client = new PgflowClient<{ review: typeof Review }>(supabase)
    const run = await client.startFlow('review', { text: 'some text' })
    return { supabase, client, line, run, channelReady: ready(supabase) }
  }

  const recorder = () => new Recorder<RunEvent<typeof Review>>()

  it('events come by the channel alone, and the token may be renewed meanwhile', async () => {
    const { supabase, line, run, channelReady } = await begin()
    const seen = recorder()
    run.on('*', seen.take)
    const done = run.waitForCompletion()
    await channelReady
    const [channel] = supabase.getChannels()
    line.broken = () => Promise.reject(new TypeError('fetch failed'))
    await rig.settle(run.runId, 'read', { output: 'some text' })
    await supabase.realtime.setAuth()
    await rig.settle(run.runId, 'left', { output: { words: 9 } })
    await seen.first('step:completed', 'left')
    expect(supabase.getChannels()).toEqual([channel])
    await rig.complete(run.runId, 2)
    expect(await done).toEqual({ report: true })
    expect(seen.events).toEqual(await rig.log(run.runId))
    await run.close()
    expect(supabase.getChannels().length).toBe(0)
  })

  it('events come again after the socket was lost', async () => {
    const { run, channelReady } = await begin()
    const seen = recorder()
    run.on('*', seen.take)
    const done = run.waitForCompletion()
    await channelReady
    rig.stack.realtime.closeSockets()
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    expect(seen.events).toEqual(await rig.log(run.runId))
  })

  it('a run that is closed and looked at again at once is followed on', async () => {
    const { supabase, client, run, channelReady } = await begin()
    run.on('*', () => undefined)
    await channelReady
    const again = await client.getRun(run.runId)
    void run.close()
    const seen = recorder()
    again.on('*', seen.take)
    const done = again.waitForCompletion()
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    expect(seen.events).toEqual(await rig.log(run.runId))
    await again.close()
    expect(supabase.getChannels().length).toBe(0)
  })

  it('events come again after the channel has crashed', async () => {
    const { run, channelReady } = await begin()
    const seen = recorder()
    run.on('*', seen.take)
    const done = run.waitForCompletion()
    await channelReady
    rig.stack.realtime.crashChannels()
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    expect(seen.events).toEqual(await rig.log(run.runId))
  })

  it('a channel that may not be joined is left alone', async () => {
    rig.stack.realtime.refuseJoins('Unauthorized: You do not have permissions', 2)
    const { run, supabase } = await begin()
    const left = new Promise<void>((resolve) => {
      const remove = supabase.removeChannel.bind(supabase)
      supabase.removeChannel = (channel) => {
        resolve()
        return remove(channel)
      }
    })
    const done = run.waitForCompletion()
    await left
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    expect(supabase.getChannels()).toEqual([])
  })
})
