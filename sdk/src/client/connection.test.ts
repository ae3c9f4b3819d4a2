import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { createClient, type SupabaseClientOptions } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import WebSocket from 'ws'
import { fetchRun } from '../react/fetch-run.ts'
import { TimeoutError } from '../shared/errors.ts'
import { PgflowClient } from './client.ts'
import { InvalidInputError } from './errors.ts'
import { Line, type Review, Rig } from './testing/rig.ts'

const runId = '0193a1b2-0000-7000-8000-000000000000'

/** A server that takes every request and answers none. */
let silent: Server
const sockets = new Set<Socket>()
let rig: Rig

beforeAll(async () => {
  silent = createServer((socket) => void sockets.add(socket)).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  rig = await Rig.start()
})
afterEach(() => vi.useRealTimers())
afterAll(async () => {
  for (const socket of sockets) socket.destroy()
  silent.close()
  await rig.stop()
})

const hanging = () => new Promise<never>(() => undefined)

/** Clients whose requests hang, each in another way. */
const ways: [string, SupabaseClientOptions<'public'>][] = [
  ['the server accepts and never answers', {}],
  ['fetch never ends and cannot be aborted', { global: { fetch: hanging } }],
  ['the token never comes', { accessToken: hanging }],
]

describe.each(ways)('when %s', (_, options) => {
  const clientOf = (requestTimeout: number) => {
    const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
    const realtime = { transport: WebSocket as never }
    return new PgflowClient(createClient(url, 'key', { ...options, realtime }), { requestTimeout })
  }

  it('each request ends with its deadline', async () => {
    const client = clientOf(0.05)
    const requests = await Promise.allSettled([
      client.startFlow('review', {}),
      client.startFlows('review', [{}]),
      client.getRun(runId),
      client.listRuns(),
      fetchRun(client.lives, runId),
    ])
    for (const request of requests) {
      expect(request).toMatchObject({
        status: 'rejected',
        reason: { name: 'TimeoutError', message: 'The server did not answer within 0.05 s' },
      })
    }
  })

  it('a start says that it may have happened, and what makes it safe to repeat', async () => {
    const hint = expect.stringMatching(/may have started.*idempotencyKey/)
    await expect(clientOf(0.05).startFlow('review', {})).rejects.toMatchObject({ hint })
    await expect(clientOf(0.05).getRun(runId)).rejects.toMatchObject({
      hint: expect.stringContaining('requestTimeout'),
    })
  })

  it("each request ends with the signal's own reason", async () => {
    const client = clientOf(Number.POSITIVE_INFINITY)
    for (const request of [
      (signal: AbortSignal) => client.startFlow('review', {}, { signal }),
      (signal: AbortSignal) => client.startFlows('review', [{}], { signal }),
      (signal: AbortSignal) => client.getRun(runId, { signal }),
      (signal: AbortSignal) => client.listRuns({ signal }),
    ]) {
      const controller = new AbortController()
      const reason = { any: 'thing' }
      const requested = request(controller.signal)
      controller.abort(reason)
      await expect(requested).rejects.toBe(reason)
      await expect(request(controller.signal)).rejects.toBe(reason)
    }
  })
})

describe('a request that hangs', () => {
  const open = async (requestTimeout?: number) => {
    const line = new Line()
    const supabase = await rig.user(undefined, { global: { fetch: line.fetch } })
    const client = new PgflowClient<{ review: typeof Review }>(
      supabase,
      requestTimeout === undefined ? {} : { requestTimeout },
    )
    const run = await client.startFlow('review', { text: 'some text' })
    /** Lets the next request for a function hang. */
    const hangNext = (name: string) =>
      new Promise<void>((resolve) => {
        line.broken = (input, init) => {
          if (!String(input).endsWith(`/${name}`)) return fetch(input, init)
          line.broken = undefined
          resolve()
          return hanging()
        }
      })
    return { client, run, hangNext }
  }

  it('is given up after 15 s by default', async () => {
    const { client, run, hangNext } = await open()
    const hangs = hangNext('get_run')
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const found = Promise.allSettled([client.getRun(run.runId)])
    await hangs
    await vi.advanceTimersByTimeAsync(14_999)
    expect(vi.getTimerCount()).toBe(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(await found).toMatchObject([{ reason: expect.any(TimeoutError) }])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('is not shared with whoever asks later', async () => {
    const { client, run, hangNext } = await open()
    const hangs = hangNext('get_run')
    const first = fetchRun(client.lives, run.runId)
    expect(fetchRun(client.lives, run.runId)).toBe(first)
    await hangs
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 1000 })
    expect((await fetchRun(client.lives, run.runId)).snapshot.run_id).toBe(run.runId)
  })

  it('holds a wait up no longer than its deadline', async () => {
    const { run, hangNext } = await open(0.1)
    const hangs = hangNext('sync')
    const done = run.waitForCompletion()
    await hangs
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
  })

  it('can be ended where it cancels or retries a run', async () => {
    const { run, hangNext } = await open()
    for (const [name, request] of [
      ['cancel_run', (signal: AbortSignal) => run.cancel('no longer needed', { signal })],
      ['retry_run', (signal: AbortSignal) => run.retry({ signal })],
    ] as const) {
      const controller = new AbortController()
      const hangs = hangNext(name)
      const requested = Promise.allSettled([request(controller.signal)])
      await hangs
      controller.abort('enough')
      expect(await requested).toEqual([{ status: 'rejected', reason: 'enough' }])
    }
    await run.cancel('no longer needed')
    expect(run).toMatchObject({ status: 'cancelled', error: 'no longer needed' })
  })

  it('and follows a request that was answered can be ended too', async () => {
    const { client, run, hangNext } = await open()
    const hangs = hangNext('sync')
    run.on('*', () => undefined)
    await hangs
    await rig.settle(run.runId, 'read', { output: 'some text' })
    const controller = new AbortController()
    const found = Promise.allSettled([client.getRun(run.runId, { signal: controller.signal })])
    await client.listRuns()
    controller.abort('enough')
    expect(await found).toEqual([{ status: 'rejected', reason: 'enough' }])
    await run.close()
  })
})

describe('requestTimeout', () => {
  it.each([Number.NaN, -1, 'soon'])('cannot be %s', async (requestTimeout) => {
    const supabase = await rig.user()
    expect(() => new PgflowClient(supabase, { requestTimeout: requestTimeout as never })).toThrow(
      InvalidInputError,
    )
  })
})
