import type { SupabaseClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { fetchRun } from '../react/fetch-run.ts'
import { PgflowClient } from './client.ts'
import { InvalidInputError } from './errors.ts'
import type { Run } from './run.ts'
import { Line, type Review, Rig } from './testing/rig.ts'

let rig: Rig
let line: Line
let supabase: SupabaseClient
/** As programs without types call it. */
let client: any
let run: any

beforeAll(async () => {
  rig = await Rig.start()
  line = new Line()
  supabase = await rig.user(undefined, { global: { fetch: line.fetch } })
  client = new PgflowClient(supabase)
  run = (await client.startFlow('review', { text: 'some text' })) as Run<typeof Review>
})
beforeEach(() => line.requests.splice(0))
afterAll(() => rig.stop())

const controller = new AbortController()

describe('what cannot be used is refused before anything is sent', () => {
  it.each<[string, () => Promise<unknown>, string, string]>([
    ['no run id', () => client.getRun(undefined), 'runId is undefined', 'UUID'],
    ['an empty run id', () => client.getRun(''), "runId is ''", 'UUID'],
    ['another id', () => client.getRun('run 7'), "runId is 'run 7'", 'UUID'],
    ['a run id in a list', () => client.getRun([run.runId]), 'runId is an array', 'UUID'],
    ['a run id of a hook', () => fetchRun(client.lives, '7'), "runId is '7'", 'UUID'],
    ['no slug', () => client.startFlow(undefined, 1), 'flowSlug is undefined', 'the slug of a flow'],
    ['a slug with a space', () => client.startFlow('not a slug', 1), "flowSlug is 'not a slug'", 'letters'],
    ['a slug with a digit', () => client.startFlows('1st', []), "flowSlug is '1st'", 'not a digit'],
    ['a long slug', () => client.startFlow('x'.repeat(129), 1), `'${'x'.repeat(100)}…'`, '128'],
    ['no input', () => client.startFlow('review'), 'input is undefined', 'null where it takes none'],
    ['one input for many', () => client.startFlows('review', 1), 'inputs is 1', 'an array'],
    ['a key', () => client.startFlow('review', 1, { idempotencyKey: 7 }), 'idempotencyKey is 7', 'a text'],
    ['a delay', () => client.startFlow('review', 1, { delay: 0.5 }), 'delay is 0.5', 'whole seconds'],
    [
      'a priority',
      () => client.startFlow('review', 1, { priority: 'urgent' }),
      "priority is 'urgent'",
      "'high'",
    ],
    ['another delay', () => client.startFlow('review', 1, { delay: 'soon' }), "delay is 'soon'", "'5m'"],
    [
      'a schema',
      () => client.startFlow('review', 1, { schema: {} }),
      'schema is an object',
      'Standard Schema',
    ],
    [
      'a signal',
      () => client.getRun(run.runId, { signal: controller }),
      'signal is an object',
      'AbortSignal',
    ],
    ['a status', () => client.listRuns({ status: 'done' }), "status is 'done'", "'completed'"],
    ['no limit', () => client.listRuns({ limit: Number.NaN }), 'limit is NaN', 'whole number'],
    ['a limit of 0', () => client.listRuns({ limit: 0 }), 'limit is 0', 'at least 1'],
    ['a limit of 1.5', () => client.listRuns({ limit: 1.5 }), 'limit is 1.5', 'whole number'],
    ['an owner', () => client.listRuns({ ownerId: 'me' }), "ownerId is 'me'", 'the id of a user'],
    ['a cursor', () => client.listRuns({ cursor: 2 }), 'cursor is 2', 'page before'],
    ['a time', () => run.waitForCompletion({ timeout: Number.NaN }), 'timeout is NaN', "'5m'"],
    ['a time of a step', () => run.step('read').waitForCompletion({ timeout: -1 }), 'timeout is -1', "'5m'"],
    ['a negative number', () => run.events({ after: -5 }).next(), 'after is -5', 'seq'],
    ['no number', () => run.events({ after: Number.NaN }).next(), 'after is NaN', 'seq'],
    ['a text for a number', () => run.events({ after: 'x' }).next(), "after is 'x'", 'seq'],
    ['a reason', () => run.cancel({ reason: 'done' }), 'reason is an object', 'a text'],
    ['an undo', () => run.cancel('done', { undo: 'yes' }), "undo is 'yes'", 'true or false'],
  ])('%s', async (_, call, message, hint) => {
    const error = await call().catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(InvalidInputError)
    expect(error).toMatchObject({
      code: 'PT400',
      message: expect.stringContaining(message),
      hint: expect.stringContaining(hint),
    })
    expect(line.requests).toEqual([])
  })

  it.each<[string, () => Promise<unknown>, string]>([
    ['startFlow', () => client.startFlow('review', 1, { idempotencykey: 'a' }), 'idempotencyKey, metadata'],
    [
      'startFlows',
      () => client.startFlows('review', [], { idempotencyKey: 'a' }),
      'idempotencyKeys, metadata',
    ],
    ['getRun', () => client.getRun(run.runId, { timeout: 1 }), 'signal.'],
    [
      'listRuns',
      () => client.listRuns({ state: 'failed' }),
      'flowSlug, status, metadata, ownerId, groupId, children, cursor, limit',
    ],
    ['waitForCompletion', () => run.waitForCompletion({ timeOut: 1 }), 'timeout, signal'],
    ['events', () => run.events({ from: 1 }).next(), 'after, signal'],
    ['cancel', () => run.cancel('done', { timeout: 1 }), 'reason, undo, signal'],
    ['retry', () => run.retry({ toString: 1 }), 'signal.'],
  ])('an option that %s does not have, with those that it has', async (_, call, hint) => {
    const error = await call().catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(InvalidInputError)
    expect(error).toMatchObject({
      message: expect.stringMatching(/^There is no option '\w+'$/),
      hint: expect.stringContaining(`The options are: ${hint}`),
    })
    expect(line.requests).toEqual([])
  })

  it('an event that there is not, with those that there are', () => {
    expect(() => run.on('step:complete', () => undefined)).toThrow(
      expect.objectContaining({
        name: 'InvalidInputError',
        message: "There is no event 'step:complete'",
        hint:
          'The names are: run:started, run:completed, run:failed, run:cancelled, run:retried, run:waiting, run:begun, step:started, ' +
          "step:completed, step:failed, step:cancelled, step:skipped, step:progress, step:retrying, step:admitted, and '*' for all.",
      }),
    )
    expect(() => run.step('read').on('complete', () => undefined)).toThrow(
      expect.objectContaining({
        message: "There is no event 'complete'",
        hint: expect.stringContaining(
          'started, completed, failed, cancelled, skipped, progress, retrying, admitted',
        ),
      }),
    )
    expect(supabase.getChannels().length).toBe(0)
  })

  it('an invalid date in an input, instead of null', async () => {
    const started = client.startFlow('review', { at: [new Date(Number.NaN)] })
    await expect(started).rejects.toMatchObject({
      name: 'InvalidInputError',
      message: 'The input is not JSON: $.at[0] is an invalid Date, which JSON would make null',
    })
    expect(line.requests).toEqual([])
  })
})

it('A client can be made while a framework prerenders a page, which refuses random values and the time', () => {
  const supabase = rig.client()
  const spies = [
    vi.spyOn(crypto, 'randomUUID'),
    vi.spyOn(crypto, 'getRandomValues'),
    vi.spyOn(Math, 'random'),
    vi.spyOn(Date, 'now'),
  ]
  onTestFinished(() => void vi.restoreAllMocks())
  new PgflowClient(supabase)
  for (const spy of spies) expect(spy).not.toHaveBeenCalled()
})

describe('what can be used', () => {
  it('is an option that is undefined', async () => {
    const options = { idempotencyKey: undefined, delay: undefined, schema: undefined, signal: undefined }
    const started = await client.startFlow('review', { text: 'some text' }, options)
    expect((await client.listRuns({ cursor: null, status: undefined })).runs).toContainEqual(
      expect.objectContaining({ run_id: started.runId }),
    )
  })

  it.each([0, '0s', 3, '1m'])('is a delay of %s', async (delay) => {
    expect(await client.startFlow('review', { text: 'some text' }, { delay })).toMatchObject({
      status: 'started',
    })
  })
})
