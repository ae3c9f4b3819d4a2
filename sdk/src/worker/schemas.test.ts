import type { StandardSchemaV1 } from '@standard-schema/spec'
import { type } from 'arktype'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { z } from 'zod'
import { type AnyFlow, Flow, type Json } from '../flow/index.ts'
import { startWorker } from './index.ts'
import { type RunRow, startTestDatabase, type TestDatabase } from './testing/database.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

let flows = 0
const newSlug = () => `schemas_${++flows}`

/** Runs flows of several versions, in one worker, and gives the end of a run of the alias. */
async function endOf(input: Json, ...versions: AnyFlow[]): Promise<RunRow> {
  const worker = await startWorker({ connection: db.url, flows: versions })
  onTestFinished(() => worker.stop({ gracePeriod: 0 }))
  return db.runEnded(await db.startRun(versions[0]!.alias, input))
}

const libraries: [
  string,
  StandardSchemaV1<{ n: number; by?: string | undefined }, { n: number; by: string }>,
  string,
][] = [
  [
    'zod',
    z.object({ n: z.number(), by: z.string().default('me') }),
    '$.n: Invalid input: expected number, received string',
  ],
  [
    'valibot',
    v.object({ n: v.number(), by: v.optional(v.string(), 'me') }),
    '$.n: Invalid type: Expected number but received "1"',
  ],
  ['arktype', type({ n: 'number', by: "string = 'me'" }), '$.n: n must be a number (was a string)'],
]

describe.each(libraries)('A schema of %s', (_, schema, reason) => {
  it('makes the handler’s input of the run’s', async () => {
    const flow = new Flow({ slug: newSlug(), input: schema })
      .step('a', ({ run }) => run)
      .step('b', ['a'], (input) => input)
    expect(await endOf({ n: 1 }, flow)).toMatchObject({
      output: { b: { run: { n: 1, by: 'me' }, a: { n: 1, by: 'me' } } },
    })
  })

  it('fails the step for good where the run’s input is something else', async () => {
    const calls: unknown[] = []
    const flow = new Flow({ slug: newSlug(), input: schema }).step('a', (input) => {
      calls.push(input)
    })
    const run = await endOf({ n: '1' }, flow)
    expect(run).toMatchObject({
      status: 'failed',
      error: expect.stringContaining(
        `step "a" failed: the run’s input is not what the flow takes: ${reason}`,
      ),
    })
    expect(calls).toEqual([])
    expect(await db.tasksOf(run.run_id)).toMatchObject([{ status: 'failed', attempts_count: 1 }])
  })

  it('makes what is stored of the handler’s output', async () => {
    const flow = new Flow<number>({ slug: newSlug() }).step({ slug: 'a', output: schema }, ({ run }) => ({
      n: run,
    }))
    expect(await endOf(2, flow)).toMatchObject({ output: { a: { n: 2, by: 'me' } } })
  })

  it('fails the step for good where the output is something else', async () => {
    const flow = new Flow<number>({ slug: newSlug() }).step({ slug: 'a', output: schema }, () =>
      JSON.parse('{"n": "1"}'),
    )
    const run = await endOf(2, flow)
    expect(run).toMatchObject({
      status: 'failed',
      error: expect.stringContaining(`step "a" failed: its output is not what its schema says: ${reason}`),
    })
    expect(await db.tasksOf(run.run_id)).toMatchObject([{ status: 'failed', attempts_count: 1 }])
  })

  it('is of each item of a map', async () => {
    const flow = new Flow<{ n: number }[]>({ slug: newSlug() }).map(
      { slug: 'items', input: schema, output: schema },
      ({ n, by }) => ({ n: n + 1, by: `${by}!` }),
    )
    const output = [
      { n: 2, by: 'me!' },
      { n: 3, by: 'me!' },
    ]
    expect(await endOf([{ n: 1 }, { n: 2 }], flow)).toMatchObject({ output: { items: output } })
  })
})

it('A schema of a step’s input makes its payload', async () => {
  const input = z.object({ run: z.date(), a: z.string().transform(Number) })
  const flow = new Flow({ slug: newSlug(), input: z.coerce.date<string>() })
    .step('a', ({ run }) => String(run.getUTCFullYear()))
    .step({ slug: 'b', dependsOn: ['a'], input }, async ({ run, a }, { payload }) => {
      expect(await payload()).toEqual({ run, a })
      return run.getUTCFullYear() + a
    })
  expect(await endOf('2000-01-01', flow)).toMatchObject({ output: { b: 4000 } })
})

it('names the item of a map that is not what it should be', async () => {
  const flow = new Flow<unknown[]>({ slug: newSlug() }).map(
    { slug: 'm', input: z.object({ 'a b': z.array(z.int()) }) },
    () => 1,
  )
  expect(await endOf([{ 'a b': [1] }, { 'a b': [1, 0.5] }], flow)).toMatchObject({
    error: expect.stringContaining(
      'its input is not what its schema says: $["a b"][1]: Invalid input: expected int',
    ),
  })
})

it('A schema that throws fails the attempt, which is repeated', async () => {
  let calls = 0
  const flaky: StandardSchemaV1<number> = {
    '~standard': {
      version: 1,
      vendor: 'test',
      validate: async (value) => {
        if (++calls === 1) throw new Error('not today')
        return { value: value as number }
      },
    },
  }
  const flow = new Flow({ slug: newSlug(), input: flaky, baseDelay: 0 }).step('a', ({ run }) => run)
  expect(await endOf(5, flow)).toMatchObject({ status: 'completed', output: { a: 5 } })
  expect(calls).toBe(2)
})

describe('Versions of a flow', () => {
  it('run in one worker, whichever they are', async () => {
    const slug = newSlug()
    const first = new Flow<number>({ slug }).step('a', () => 'first')
    const worker = await startWorker({ connection: db.url, flows: [first] })
    const old = await db.startRun(slug, 1)
    await db.runEnded(old)
    await worker.stop()
    const waiting = await db.startRun(slug, 1)
    const second = new Flow<number>({ slug, version: 2 }).step('b', () => 'second')
    expect(await endOf(1, second, first)).toMatchObject({ output: { b: 'second' } })
    expect(await db.runEnded(waiting)).toMatchObject({ output: { a: 'first' } })
  })

  it('a changed shape stops the start of a worker with words that help', async () => {
    const slug = newSlug()
    await endOf(
      1,
      new Flow<number>({ slug }).step('a', () => 1),
    )
    const changed = new Flow<number>({ slug }).step('b', () => 1)
    await expect(startWorker({ connection: db.url, flows: [changed] })).rejects.toThrow(
      `The worker cannot define the flow "${slug}": the shape of "${slug}" changed: step "a" is gone; step "b" is new. Runs of it go on in the shape they have: give the changed flow a new version (version: 2).`,
    )
  })
})
