import { randomUUID } from 'node:crypto'
import type { SupabaseClient } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { PgflowError, TimeoutError } from '../shared/errors.ts'
import { PgflowClient } from './client.ts'
import {
  ConflictError,
  ForbiddenError,
  InvalidInputError,
  NotFoundError,
  RunCancelledError,
  RunFailedError,
} from './errors.ts'
import { Recorder, type Review, Rig, ready } from './testing/rig.ts'
import type { RunEvent } from './types.ts'

let rig: Rig
let supabase: SupabaseClient
let client: PgflowClient

beforeAll(async () => {
  rig = await Rig.start()
})
afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllGlobals()
})
afterAll(() => rig.stop())

beforeEach(async () => {
  supabase = await rig.user()
  client = new PgflowClient(supabase)
})

const start = () => client.startFlow<typeof Review>('review', { text: 'some text' })

const recorder = () => new Recorder<RunEvent<typeof Review>>()

/** What a promise is rejected with; listened to from now on, however late it is asked for. */
const errorOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  )

describe('a run', () => {
  it('is followed from its start to its output, every event once and in order', async () => {
    const run = await start()
    expect(run).toMatchObject({
      flowSlug: 'review',
      status: 'started',
      input: { text: 'some text' },
      output: null,
    })
    const all = recorder()
    run.on('*', all.take)
    const done = run.waitForCompletion()

    await rig.complete(run.runId)

    expect(await done).toEqual({ report: true })
    expect(all.events).toEqual(await rig.log(run.runId))
    expect(all.seqs).toEqual(all.events.map((_, index) => index + 1))
    expect(run).toMatchObject({ status: 'completed', output: { report: true }, error: null })
    expect(run.steps.left).toMatchObject({ status: 'completed', output: { words: 9 } })
  })

  it('stands after its events exactly as the database has it', async () => {
    const run = await start()
    const done = run.waitForCompletion()
    await rig.settle(run.runId, 'read', { error: 'not yet' })
    await rig.complete(run.runId)
    await done
    const { data } = await supabase.schema('pgflow_public').rpc('get_run', { run_id: run.runId })
    expect(run.snapshot).toEqual(data)
  })

  it('shows, in each listener, a state that is not older than the event', async () => {
    const run = await start()
    const states: unknown[] = []
    run.on('step:completed', ({ step_slug }) => states.push(run.step(step_slug).status))
    const done = run.waitForCompletion()
    await rig.complete(run.runId)
    await done
    expect(states).toEqual(['completed', 'completed', 'completed', 'completed'])
  })

  it('tells the listeners of a step about that step alone', async () => {
    const run = await start()
    const left = new Recorder<any>()
    run.step('left').on('*', left.take)
    const words: number[] = []
    run.step('left').on('completed', ({ output }) => words.push(output.words))
    const done = run.step('left').waitForCompletion()
    await rig.complete(run.runId)
    expect(await done).toEqual({ words: 9 })
    expect(words).toEqual([9])
    await run.waitForCompletion()
    expect(left.types).toEqual(['step:started', 'step:completed'])
    expect(run.step('left')).toMatchObject({
      slug: 'left',
      status: 'completed',
      output: { words: 9 },
      error: null,
    })
  })

  it('delivers outputs that are too large for an event', async () => {
    const run = await start()
    const large = 'x'.repeat(20_000)
    const all = recorder()
    run.on('*', all.take)
    const done = run.waitForCompletion()
    await rig.settle(run.runId, 'read', { output: large })
    await rig.complete(run.runId, 1)
    await done
    expect(await all.first('step:completed', 'read')).toEqual({
      seq: 3,
      type: 'step:completed',
      step_slug: 'read',
      at: expect.any(String),
      output: large,
    })
    expect(all.seqs).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  })

  it('has a log of any length', async () => {
    const run = await start()
    await rig.sql.unsafe(`
      do $$ begin
        for n in 1..2100 loop
          update pgflow.step_states set progress = to_jsonb(n) where run_id = '${run.runId}' and step_slug = 'read';
        end loop;
      end $$
    `)
    const all = recorder()
    run.on('*', all.take)
    const done = run.waitForCompletion()
    await rig.complete(run.runId)
    await done
    const first = all.seqs[0]!
    expect(all.seqs).toEqual(all.seqs.map((_, index) => first + index))
    expect(all.seqs.at(-1)).toBe(2110)
    expect(all.events.length).toBeGreaterThan(2100)
  })

  it('does not know a step that the flow does not have', async () => {
    const run = await start()
    expect(() => run.step('lef' as 'left')).toThrow(InvalidInputError)
  })
})

describe('a listener', () => {
  it('that comes late learns first what stands, then what follows', async () => {
    const run = await start()
    run.on('run:completed', () => undefined)
    await rig.complete(run.runId, 0)
    await run.waitForCompletion()
    const late = recorder()
    run.on('*', late.take)
    await late.first('run:completed')
    expect(late.events).toEqual(
      (await rig.log(run.runId)).filter(({ type }: any) => type.endsWith(':completed')),
    )
  })

  it('that comes in the middle gets nothing twice', async () => {
    const run = await start()
    const early = recorder()
    run.on('*', early.take)
    await rig.settle(run.runId, 'read', { output: 'some text' })
    await early.first('step:started', 'right')
    const late = recorder()
    run.on('*', late.take)
    await rig.complete(run.runId, 1)
    await run.waitForCompletion()
    expect(late.types.slice(0, 4)).toEqual(['run:started', 'step:completed', 'step:started', 'step:started'])
    expect(late.events).toEqual(early.events.filter(({ seq }) => seq !== 2))
  })

  it('learns of a run that was over before, and asks for nothing more', async () => {
    const { runId } = await start()
    await rig.complete(runId)
    const run = await client.getRun<typeof Review>(runId)
    const late = recorder()
    run.on('run:completed', late.take)
    expect(await late.first('run:completed')).toMatchObject({ output: { report: true } })
    expect(supabase.getChannels().length).toBe(0)
  })

  it('is not called before on has returned, nor after its undo', async () => {
    const run = await start()
    await rig.complete(run.runId)
    await run.waitForCompletion()
    const calls: string[] = []
    run.on('run:completed', () => calls.push('called'))
    calls.push('returned')
    const stop = run.on('run:completed', () => calls.push('stopped'))
    stop()
    const last = recorder()
    run.on('*', last.take)
    await last.first('run:completed')
    expect(calls).toEqual(['returned', 'called'])
  })

  describe('that throws', () => {
    const thrown = (index: number) => expect.objectContaining({ message: `thrown ${index}` })

    /** Listeners that fail beside one that does not. */
    async function failing(follower: PgflowClient): Promise<void> {
      const run = await follower.startFlow<typeof Review>('review', { text: 'some text' })
      run.on('run:started', () => {
        throw new Error('thrown 1')
      })
      run.on('run:completed', async () => {
        throw new Error('thrown 2')
      })
      const all = recorder()
      run.on('*', all.take)
      const done = run.waitForCompletion()
      await rig.complete(run.runId)
      expect(await done).toEqual({ report: true })
      expect(all.seqs).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    }

    it('stops nobody else, and is reported to onError', async () => {
      const errors: unknown[] = []
      await failing(new PgflowClient(supabase, { onError: (error) => errors.push(error) }))
      expect(errors).toEqual([thrown(1), thrown(2)])
    })

    it('is written to the console by default, so that it ends no process', async () => {
      const write = vi.spyOn(console, 'error').mockReturnValue()
      await failing(client)
      expect(write.mock.calls).toEqual([[thrown(1)], [thrown(2)]])
    })

    it('is an uncaught error of the page by default', async () => {
      const report = vi.fn()
      vi.stubGlobal('document', { addEventListener: () => undefined, removeEventListener: () => undefined })
      vi.stubGlobal('reportError', report)
      await failing(client)
      expect(report.mock.calls).toEqual([[thrown(1)], [thrown(2)]])
    })
  })
})

describe('waiting', () => {
  it('rejects when the run fails, with the step that failed', async () => {
    const run = await start()
    const errors = Promise.all([
      errorOf(run.waitForCompletion()),
      errorOf(run.step('report').waitForCompletion()),
      errorOf(run.step('read').waitForCompletion()),
    ])
    await rig.settle(run.runId, 'read', { error: 'no such file', permanent: true })
    for (const error of await errors) {
      expect(error).toBeInstanceOf(RunFailedError)
      expect(error).toMatchObject({ code: 'run_failed', runId: run.runId, stepSlug: 'read' })
      expect(error).toHaveProperty('message', expect.stringContaining('no such file'))
    }
    expect(run.status).toBe('failed')
  })

  it('rejects when the run is cancelled', async () => {
    const run = await start()
    const error = errorOf(run.waitForCompletion())
    await rig.sql`
      update pgflow.runs set status = 'cancelled', error = 'by hand', cancelled_at = now() where run_id = ${run.runId}
    `
    expect(await error).toBeInstanceOf(RunCancelledError)
    expect(await error).toHaveProperty('message', 'by hand')
  })

  it('settles at once for a run that was over before', async () => {
    const failed = await start()
    await rig.settle(failed.runId, 'read', { error: 'no such file', permanent: true })
    const found = await client.getRun<typeof Review>(failed.runId)
    await expect(found.waitForCompletion()).rejects.toThrow('no such file')
    await expect(found.step('left').waitForCompletion()).rejects.toThrow(RunFailedError)

    const completed = await start()
    await rig.complete(completed.runId)
    expect(await (await client.getRun(completed.runId)).waitForCompletion()).toEqual({ report: true })
    expect(supabase.getChannels().length).toBe(0)
  })

  it('ends with its time, and the run object can go on', async () => {
    const run = await start()
    const late = run.waitForCompletion({ timeout: '1ms' })
    await expect(late).rejects.toThrow(TimeoutError)
    expect(supabase.getChannels().length).toBe(0)
    await expect(run.waitForCompletion({ timeout: Number.NaN })).rejects.toMatchObject({
      ...{ name: 'InvalidInputError', message: 'timeout is NaN', hint: expect.stringContaining("'5m'") },
    })
    const done = run.waitForCompletion({ timeout: Number.POSITIVE_INFINITY })
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
  })

  it("ends with the signal's own reason, also when it is aborted already", async () => {
    const run = await start()
    const controller = new AbortController()
    const reason = { any: 'thing' }
    const done = run.waitForCompletion({ signal: controller.signal })
    controller.abort(reason)
    await expect(done).rejects.toBe(reason)
    await expect(run.waitForCompletion({ signal: controller.signal })).rejects.toBe(reason)
    await expect(run.step('read').waitForCompletion({ signal: controller.signal })).rejects.toBe(reason)
    expect(supabase.getChannels().length).toBe(0)
  })

  it('ends when the run object is closed, as does everything else of it', async () => {
    const run = await start()
    const all = recorder()
    run.on('*', all.take)
    const error = errorOf(run.waitForCompletion())
    await all.first('run:started')
    await run.close()
    expect(await error).toMatchObject({ code: 'closed' })
    await run.close()
    expect(supabase.getChannels().length).toBe(0)
    expect(() => run.on('*', all.take)).toThrow(PgflowError)
    await expect(run.waitForCompletion()).rejects.toMatchObject({ code: 'closed' })
  })

  it('ends when the run is deleted', async () => {
    const run = await start()
    const all = recorder()
    run.on('*', all.take)
    const error = errorOf(run.waitForCompletion())
    await all.first('run:started')
    await rig.sql`delete from pgflow.runs where run_id = ${run.runId}`
    expect(await error).toBeInstanceOf(NotFoundError)
  })
})

describe('sharing', () => {
  it('has one channel for all who look at a run, until the last has gone', async () => {
    const first = await start()
    const second = await client.getRun<typeof Review>(first.runId)
    const third = await new PgflowClient(supabase).getRun<typeof Review>(first.runId)
    const [a, b, c] = [recorder(), recorder(), recorder()]
    const channelReady = ready(supabase)
    first.on('*', a.take)
    second.on('*', b.take)
    third.on('*', c.take)
    await channelReady
    await rig.settle(first.runId, 'read', { output: 'some text' })
    await Promise.all([a, b, c].map((one) => one.first('step:started', 'right')))
    expect(supabase.getChannels()).toHaveLength(1)
    await first.close()
    await second.close()
    expect(supabase.getChannels()).toHaveLength(1)
    const done = third.waitForCompletion()
    await rig.complete(first.runId, 1)
    expect(await done).toEqual({ report: true })
    expect(supabase.getChannels().length).toBe(0)
    expect(a.seqs).toEqual([1, 2, 3, 4, 5])
    expect(c.events).toEqual(await rig.log(first.runId))
  })

  it('shows a run that was fetched again as new as it was fetched', async () => {
    const run = await start()
    await rig.complete(run.runId)
    expect(run.status).toBe('started')
    const again = await client.getRun<typeof Review>(run.runId)
    expect([run.status, again.status]).toEqual(['completed', 'completed'])
  })

  it('leaves the channel with await using', async () => {
    const { runId } = await start()
    {
      await using run = await client.getRun<typeof Review>(runId)
      const channelReady = ready(supabase)
      run.on('*', () => undefined)
      await channelReady
      expect(supabase.getChannels().length).toBe(1)
    }
    expect(supabase.getChannels().length).toBe(0)
  })

  it('leaves nothing behind after many runs', async () => {
    for (let round = 0; round < 50; round++) {
      const run = await start()
      run.on('*', () => undefined)
      const error = errorOf(run.waitForCompletion())
      await run.close()
      expect(await error).toMatchObject({ code: 'closed' })
    }
    expect(supabase.getChannels().length).toBe(0)
  })
})

describe('starting', () => {
  it('is one request', async () => {
    const requests: string[] = []
    const watched = await rig.user(randomUUID(), {
      global: {
        fetch: (url, init) => {
          requests.push(new URL(String(url)).pathname)
          return fetch(url, init)
        },
      },
    })
    await new PgflowClient(watched).startFlow<typeof Review>('review', { text: 'some text' })
    expect(requests).toEqual(['/rest/v1/rpc/start_flow'])
    expect(watched.getChannels().length).toBe(0)
  })

  it('keeps metadata, and gives the same run for the same key', async () => {
    const options = { idempotencyKey: 'document-7', metadata: { document: 7 } }
    const run = await client.startFlow<typeof Review>('review', { text: 'a' }, options)
    expect(run.snapshot).toMatchObject({ idempotency_key: 'document-7', metadata: { document: 7 } })
    const again = await client.startFlow<typeof Review>('review', { text: 'a' }, options)
    expect(again.runId).toBe(run.runId)
    const other = client.startFlow<typeof Review>('review', { text: 'b' }, options)
    await expect(other).rejects.toThrow(ConflictError)
  })

  it('says what is wrong', async () => {
    const missing = client.startFlow('no_such_flow', {})
    await expect(missing).rejects.toThrow(NotFoundError)
    await expect(missing).rejects.toMatchObject({ code: 'PT404', status: 404, hint: expect.any(String) })
    await expect(client.startFlow('not a slug', {})).rejects.toThrow(InvalidInputError)
    await expect(client.getRun(randomUUID())).rejects.toThrow(NotFoundError)
    await expect(client.getRun('not a uuid')).rejects.toThrow(PgflowError)
    await expect(new PgflowClient(rig.client()).startFlow('review', {})).rejects.toThrow(ForbiddenError)
  })

  const cycle: Record<string, unknown> = {}
  cycle.self = cycle
  it.each([
    ['nothing', undefined],
    ['a bigint', { n: 1n }],
    ['a cycle', cycle],
    ['a function', () => undefined],
    ['a NUL', ['\0']],
    ['half a surrogate pair', '\ud800'],
    ['not a number', Number.NaN],
  ])('sends nothing when the input is %s', async (_, input) => {
    const offline = await rig.user(randomUUID(), {
      global: { fetch: () => Promise.reject(new Error('nothing should be sent')) },
    })
    const started = new PgflowClient(offline).startFlow('review', input)
    await expect(started).rejects.toThrow(InvalidInputError)
  })

  it('says that the server cannot be reached', async () => {
    const offline = await rig.user(randomUUID(), {
      global: { fetch: () => Promise.reject(new TypeError('fetch failed')) },
    })
    const started = new PgflowClient(offline).startFlow('review', {})
    await expect(started).rejects.toMatchObject({ code: 'unreachable', status: undefined })
  })
})

describe('a user who has signed in', () => {
  it('follows their own runs', async () => {
    const signedIn = rig.client({ auth: { persistSession: false } })
    const { data } = await signedIn.auth.signInAnonymously()
    const run = await new PgflowClient(signedIn).startFlow<typeof Review>('review', { text: 'some text' })
    expect(run.snapshot.owner_id).toBe(data.user?.id)
    const channelReady = ready(signedIn)
    const done = run.waitForCompletion()
    await channelReady
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    await signedIn.auth.stopAutoRefresh()
  })
})

describe('another user', () => {
  it('cannot get, join or await the run', async () => {
    const run = await start()
    const stranger = await rig.user()
    await expect(new PgflowClient(stranger).getRun(run.runId)).rejects.toThrow(NotFoundError)

    await stranger.realtime.setAuth()
    const refused = new Promise<Error | undefined>((resolve, reject) => {
      stranger
        .channel(`pgflow:user:${run.snapshot.owner_id}`, { config: { private: true } })
        .subscribe((status, error) => (status === 'SUBSCRIBED' ? reject(status) : resolve(error)))
    })
    expect((await refused)?.message).toMatch(/^Unauthorized/)
    await stranger.removeAllChannels()
  })

  it('is refused in the middle too, when the user of the client changes', async () => {
    let token = await rig.stack.signToken({ sub: randomUUID() })
    const changing = new PgflowClient(rig.client({ accessToken: async () => token }))
    const run = await changing.startFlow<typeof Review>('review', { text: 'some text' })
    token = await rig.stack.signToken({ sub: randomUUID() })
    await expect(run.waitForCompletion()).rejects.toThrow(NotFoundError)
  })
})
