import { randomUUID } from 'node:crypto'
import type { SupabaseClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, beforeEach, describe, expect, expectTypeOf, it, onTestFinished } from 'vitest'
import { compile, Flow, type ItemResult } from '../flow/index.ts'
import type { Duration } from '../shared/duration.ts'
import { startWorker } from '../worker/index.ts'
import { PgflowClient } from './client.ts'
import {
  ConflictError,
  ForbiddenError,
  InvalidInputError,
  NotFoundError,
  RunCancelledError,
} from './errors.ts'
import { Recorder, type Review, Rig } from './testing/rig.ts'
import type { RunEvent } from './types.ts'

let rig: Rig
let supabase: SupabaseClient
let client: PgflowClient<{ review: typeof Review }>

beforeAll(async () => {
  rig = await Rig.start()
})
afterAll(() => rig.stop())

beforeEach(async () => {
  supabase = await rig.user()
  client = new PgflowClient(supabase)
})

const start = (metadata?: unknown) => client.startFlow('review', { text: 'some text' }, { metadata })

const recorder = () => new Recorder<RunEvent<typeof Review>>()

/** All that an iterator gives until it ends. */
async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = []
  for await (const item of items) found.push(item)
  return found
}

describe('startFlows', () => {
  it('starts a run for each input, in their order', async () => {
    const inputs = Array.from({ length: 20 }, (_, n) => ({ text: `text ${n}` }))
    const runs = await client.startFlows('review', inputs, { metadata: { batch: 1 } })
    expect(runs.map(({ input }) => input)).toEqual(inputs)
    expect(new Set(runs.map(({ runId }) => runId)).size).toBe(20)
    expect(runs[7]).toMatchObject({ status: 'started', snapshot: { metadata: { batch: 1 } } })
    const done = runs[7]!.waitForCompletion()
    await rig.complete(runs[7]!.runId)
    expect(await done).toEqual({ report: true })
  })

  it('gives the same runs for the same keys, and starts all or none', async () => {
    const idempotencyKeys = ['a', null]
    const inputs = [{ text: 'a' }, { text: 'b' }]
    const first = await client.startFlows('review', inputs, { idempotencyKeys })
    const second = await client.startFlows('review', inputs, { idempotencyKeys })
    expect(second[0]!.runId).toBe(first[0]!.runId)
    expect(second[1]!.runId).not.toBe(first[1]!.runId)
    const other = client.startFlows('review', [{ text: 'c' }, { text: 'c' }], { idempotencyKeys })
    await expect(other).rejects.toThrow(ConflictError)
    expect((await client.listRuns()).runs).toHaveLength(3)
  })

  it('starts nothing for no inputs, and says what is wrong', async () => {
    expect(await client.startFlows('review', [])).toEqual([])
    const unknown = client.startFlows('review', [{ text: 'a' }, { text: 1n as never }])
    await expect(unknown).rejects.toThrow(/\$\[1\]\.text is a bigint/)
    await expect(client.startFlows('review', undefined as never)).rejects.toThrow(InvalidInputError)
    const tooFew = client.startFlows('review', [{ text: 'a' }], { idempotencyKeys: [] })
    await expect(tooFew).rejects.toThrow(InvalidInputError)
  })

  it('asks for the same rights as startFlow', async () => {
    const anybody = new PgflowClient(rig.client())
    await expect(anybody.startFlows('review', [{ text: 'a' }])).rejects.toThrow(ForbiddenError)
  })
})

describe('groups', () => {
  it('are for those whom the project lets start runs in them', async () => {
    const groupId = randomUUID()
    await expect(client.startFlow('review', { text: 'a' }, { groupId })).rejects.toThrow(ForbiddenError)
    await expect(client.startFlows('review', [{ text: 'a' }], { groupId })).rejects.toThrow(ForbiddenError)

    const service = new PgflowClient<{ review: typeof Review }>(
      rig.client({ accessToken: async () => rig.stack.secretKey }),
    )
    const run = await service.startFlow('review', { text: 'a' }, { groupId })
    await service.startFlow('review', { text: 'b' })
    expect(run.snapshot.group_id).toBe(groupId)
    expect((await service.listRuns({ groupId })).runs.map(({ run_id }) => run_id)).toEqual([run.runId])
    expect((await client.listRuns({ groupId })).runs).toEqual([])
  })
})

describe('limits', () => {
  it('refuse what is too much, and say so', async () => {
    const many = Array.from({ length: 1001 }, () => ({ text: 'a' }))
    await expect(client.startFlows('review', many)).rejects.toThrow(/1001 inputs are too many/)
    const large = client.startFlow('review', { text: 'x'.repeat(1_048_577) })
    await expect(large).rejects.toBeInstanceOf(InvalidInputError)
    await expect(large).rejects.toMatchObject({ code: 'PT413', status: 413 })
  })
})

describe('a delay', () => {
  it('has the first step wait', async () => {
    const { runId } = await client.startFlow('review', { text: 'a' }, { delay: '1h' })
    const [message] = await rig.sql`
      select q.vt > now() + interval '59 minutes' as waits
      from pgmq.q_review q where q.message ->> 'run_id' = ${runId}
    `
    expect(message).toEqual({ waits: true })
    for (const delay of [-1, 0.5, '500ms', 'soon', Number.NaN] as Duration[]) {
      await expect(client.startFlow('review', { text: 'a' }, { delay })).rejects.toMatchObject({
        ...{
          name: 'InvalidInputError',
          message: `delay is ${typeof delay === 'string' ? `'${delay}'` : delay}`,
          hint: expect.stringContaining('seconds'),
        },
      })
    }
  })
})

describe('listRuns', () => {
  it('gives the own runs, the newest first, as rows', async () => {
    const first = await start()
    const second = await start({ document: 7 })
    await rig.complete(first.runId)
    const { runs, cursor } = await client.listRuns()
    expect(runs.map(({ run_id }) => run_id)).toEqual([second.runId, first.runId])
    expect(cursor).toBeNull()
    const { seq, steps, ...row } = (await client.getRun(first.runId)).snapshot
    expect(runs[1]).toEqual(row)
    expect(runs[1]!.output).toEqual({ report: true })
    expect((await new PgflowClient(await rig.user()).listRuns()).runs).toEqual([])
  })

  it('filters by flow, status and metadata', async () => {
    const [first, second] = [await start({ document: 7, tags: ['a'] }), await start({ document: 8 })]
    await rig.complete(first.runId)
    const idsOf = async (options: Parameters<typeof client.listRuns>[0]) =>
      (await client.listRuns(options)).runs.map(({ run_id }) => run_id)
    expect(await idsOf({ status: 'completed' })).toEqual([first.runId])
    expect(await idsOf({ status: 'started', flowSlug: 'review' })).toEqual([second.runId])
    expect(await idsOf({ metadata: { tags: ['a'] } })).toEqual([first.runId])
    expect(await idsOf({ metadata: { document: 8 } })).toEqual([second.runId])
    expect((await new PgflowClient(supabase).listRuns({ flowSlug: 'other' })).runs).toEqual([])
  })

  it('pages to the end by its cursor', async () => {
    const runs = await client.startFlows(
      'review',
      Array.from({ length: 5 }, () => ({ text: 'a' })),
    )
    const pages: string[][] = []
    let cursor: string | null = null
    do {
      const page: Awaited<ReturnType<typeof client.listRuns>> = await client.listRuns({ limit: 2, cursor })
      pages.push(page.runs.map(({ run_id }) => run_id))
      cursor = page.cursor
    } while (cursor !== null)
    expect(pages.map((page) => page.length)).toEqual([2, 2, 1])
    expect(new Set(pages.flat())).toEqual(new Set(runs.map(({ runId }) => runId)))
    expect((await client.listRuns({ limit: 5 })).cursor).toBe(pages[2]![0])
    expect(await client.listRuns({ limit: 5, cursor: pages[2]![0]! })).toEqual({ runs: [], cursor: null })
    expect((await client.listRuns({ limit: 1_000_000 })).cursor).toBeNull()
    await expect(client.listRuns({ cursor: randomUUID() })).rejects.toThrow(NotFoundError)
  })

  it('gives everybody’s runs to a secret key, or those of one user', async () => {
    const { runId, snapshot } = await start()
    const service = new PgflowClient(rig.client({ accessToken: async () => rig.stack.secretKey }))
    const ids = ({ runs }: Awaited<ReturnType<typeof service.listRuns>>) => runs.map(({ run_id }) => run_id)
    expect(ids(await service.listRuns())[0]).toBe(runId)
    expect(ids(await service.listRuns({ ownerId: snapshot.owner_id! }))).toEqual([runId])
  })
})

describe('cancel', () => {
  it('ends the run for all who look at it', async () => {
    const run = await start()
    const seen = recorder()
    run.on('*', seen.take)
    const done = expect(run.waitForCompletion()).rejects.toThrow(RunCancelledError)
    await run.cancel('no longer needed')
    expect(run).toMatchObject({ status: 'cancelled', error: 'no longer needed' })
    expect(run.step('read').status).toBe('cancelled')
    await done
    expect(seen.events).toEqual(await rig.log(run.runId))
    expect(supabase.getChannels().length).toBe(0)
  })

  it('needs no reason, and nobody who looks', async () => {
    const run = await start()
    await run.cancel()
    expect(run).toMatchObject({ status: 'cancelled', error: null })
    await expect(run.waitForCompletion()).rejects.toMatchObject({ message: 'The run was cancelled' })
  })

  it('is a conflict when the run is over', async () => {
    const run = await start()
    await rig.complete(run.runId)
    await expect(run.cancel()).rejects.toThrow(ConflictError)
  })

  it('with undo, undoes what has completed, in a run that says so', async () => {
    const undo = new Flow({ slug: 'review_undo' }).step('read', () => null)
    await rig.sql.unsafe(compile(undo))
    await rig.sql`update pgflow.flows set undo_flow = 'review_undo' where flow_slug = 'review'`
    onTestFinished(async () => {
      await rig.sql`update pgflow.flows set undo_flow = null where flow_slug = 'review'`
    })
    const run = await start()
    await rig.settle(run.runId, 'read', { output: 'some text' })
    await run.cancel('too late', { undo: true })
    await rig.sql`select pgflow.tick()`
    const { snapshot } = await client.getRun(run.runId)
    const undoing = await client.getRun(snapshot.undone_by!)
    expect(undoing).toMatchObject({
      snapshot: { undoes: run.runId, undone_by: null },
      input: { outputs: { read: 'some text' }, error: 'too late' },
    })
    await expect(run.retry()).rejects.toThrow(`run ${undoing.runId} undoes it`)
  })
})

describe('retry', () => {
  it('makes the run live again, and its listeners go on', async () => {
    const run = await start()
    const seen = recorder()
    run.on('*', seen.take)
    await rig.settle(run.runId, 'read', { output: 'some text' })
    await rig.settle(run.runId, 'left', { error: 'no words', permanent: true })
    await expect(run.waitForCompletion()).rejects.toThrow('no words')

    await run.retry()
    expect(run).toMatchObject({ status: 'started', error: null })
    expect(run.step('left')).toMatchObject({ error: null, output: null })
    expect(run.step('read').output).toBe('some text')
    const done = run.waitForCompletion()
    await rig.complete(run.runId, 1)
    expect(await done).toEqual({ report: true })
    expect(seen.events).toEqual(await rig.log(run.runId))
    expect(seen.types.filter((type) => type.startsWith('run:'))).toEqual([
      'run:started',
      'run:failed',
      'run:retried',
      'run:completed',
    ])
    expect(supabase.getChannels().length).toBe(0)
  })

  it('makes it live for all who look at it, whoever has retried it', async () => {
    const run = await start()
    const seen = recorder()
    run.on('*', seen.take)
    await run.cancel()
    await seen.first('step:cancelled', 'report')
    await rig.sql`select pgflow.retry_run(${run.runId})`
    const again = await client.getRun(run.runId)
    const done = again.waitForCompletion()
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    expect(seen.events).toEqual(await rig.log(run.runId))
  })

  it('repeats the items of a map that have failed, those that it then tolerates too', async () => {
    const broken = new Set(['bb', 'ccc'])
    const Pages = new Flow<string[]>({ slug: 'pages', startRole: 'authenticated', maxAttempts: 1 })
      .map({ slug: 'sizes', whenItemFails: 'collect', tolerate: 1 }, (page) => {
        if (broken.has(page)) throw new Error(`no ${page}`)
        return page.length
      })
      .step('errors', ['sizes'], ({ sizes }) => sizes.map((size) => size.status === 'failed' && size.error))
    const worker = await startWorker({ connection: rig.stack.dbUrl, flows: [Pages] })
    onTestFinished(() => worker.stop())
    const run = await client.startFlow<typeof Pages>('pages', ['a', 'bb', 'ccc', 'dddd'])
    await expect(run.waitForCompletion()).rejects.toThrow(
      /^step "sizes" failed: 2 of its 4 items failed, and it tolerates 1; the first error: no (bb|ccc)$/,
    )
    broken.delete('bb')
    await run.retry()
    const failed = { status: 'failed', error: 'no ccc' }
    expect(await run.waitForCompletion()).toEqual({ errors: [false, false, failed.error, false] })
    const { output } = run.step('sizes')
    expectTypeOf(output).toEqualTypeOf<ItemResult<number>[] | null>()
    expect(output).toEqual([
      ...[1, 2].map((value) => ({ status: 'completed', value })),
      failed,
      { status: 'completed', value: 4 },
    ])
  })

  it('leaves nothing of the failure for a listener that comes late', async () => {
    const run = await start()
    await rig.settle(run.runId, 'read', { error: 'no such file', permanent: true })
    await expect(run.waitForCompletion()).rejects.toThrow('no such file')
    await run.retry()
    const late = recorder()
    run.on('*', late.take)
    await late.first('step:started', 'read')
    expect(late.types).toEqual(['run:retried', 'step:started'])
  })

  it('is a conflict when the run has not failed', async () => {
    const run = await start()
    await expect(run.retry()).rejects.toThrow(ConflictError)
    expect(run.status).toBe('started')
  })
})

describe('events', () => {
  it('gives the whole log, and ends with the run', async () => {
    const run = await start()
    await rig.settle(run.runId, 'read', { output: 'some text' })
    const events = all(run.events())
    await rig.complete(run.runId, 1)
    expect(await events).toEqual(await rig.log(run.runId))
    expect(supabase.getChannels().length).toBe(0)
  })

  it.each([0, 1, 5, 9, 10, 99])('goes on after event %i of a run that is over', async (after) => {
    const { runId } = await start()
    await rig.complete(runId)
    const run = await client.getRun(runId)
    expect(await all(run.events({ after }))).toEqual((await rig.log(runId)).slice(after))
  })

  it('goes on in the middle, through what has been and what comes', async () => {
    const { runId } = await start()
    const first = await client.getRun(runId)
    let after = 0
    for await (const { seq } of first.events()) {
      after = seq
      if (seq === 2) break
    }
    await first.close()
    await rig.settle(runId, 'read', { output: 'x'.repeat(20_000) })
    const second = await new PgflowClient(await rig.user(first.snapshot.owner_id!)).getRun(runId)
    const rest = all(second.events({ after }))
    await rig.complete(runId, 1)
    expect((await rest).map(({ seq }) => seq)).toEqual([3, 4, 5, 6, 7, 8, 9, 10])
    expect((await rest)[0]).toMatchObject({ type: 'step:completed', output: 'x'.repeat(20_000) })
  })

  it('waits for whoever iterates', async () => {
    const run = await start()
    const events = run.events()
    expect(await events.next()).toMatchObject({ value: { type: 'run:started' } })
    await rig.complete(run.runId)
    await run.waitForCompletion()
    expect(await all(events)).toEqual((await rig.log(run.runId)).slice(1))
  })

  it('lets go of the run when it is left', async () => {
    const run = await start()
    for await (const _ of run.events()) break
    await run.close()
    expect(supabase.getChannels().length).toBe(0)
  })

  it("throws the signal's reason, or that the run object was closed", async () => {
    const run = await start()
    const controller = new AbortController()
    const aborted = all(run.events({ after: 2, signal: controller.signal }))
    controller.abort('that is enough')
    await expect(aborted).rejects.toBe('that is enough')
    const closed = expect(all(run.events({ after: 2 }))).rejects.toMatchObject({ code: 'closed' })
    await run.close()
    await closed
    expect(supabase.getChannels().length).toBe(0)
  })
})
