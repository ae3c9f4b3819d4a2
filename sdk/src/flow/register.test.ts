import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { startTestDatabase, type TestDatabase } from '../worker/testing/database.ts'
import { type AnyFlow, compile, definitionOf, Flow, shapeOf } from './index.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

const Note = z.object({ text: z.string().default('it\'s $1 \\ "quoted"') })

const flows: AnyFlow[] = [
  new Flow({ slug: 'plain' }).step('only', () => 1),
  new Flow<{ urls: string[]; note?: string }>({
    slug: 'branches',
    timeout: 7,
    startDelay: 2,
    broadcast: 'always',
  })
    .step({ slug: 'z', maxAttempts: 1, baseDelay: 0.5, startDelay: 4 }, () => ['x'])
    .map({ slug: 'pages', items: 'run.urls', whenExhausted: 'skip' }, (url) => url)
    .map({ slug: 'sizes', dependsOn: ['z', 'pages'], items: 'pages', runUnless: { z: ['y'] } }, () => 1)
    .step({ slug: 'B', dependsOn: ['z'], runIf: { run: { note: "it's" } }, whenUnmet: 'fail' }, () => 1)
    .step('last', ['sizes', 'B'], () => 1),
  new Flow({ slug: 'schemas', input: Note }).step(
    { slug: 'a', input: z.object({ run: Note }), output: Note },
    ({ run }) => run,
  ),
  new Flow({
    slug: 'scheduled',
    schedulable: true,
    schedules: [{ slug: 'nightly', cron: '30 2 * * *', timeZone: 'Europe/Berlin', input: [1], spread: '1m' }],
  }).step('a', () => 1),
  new Flow<{ tenant: string; urls: string[] }>({
    ...{ slug: 'limited', priority: 'high', deadline: '1d' },
    ...{
      singleton: { key: 'run.tenant', whenBusy: 'after', wait: 5 },
      limits: [{ by: 'run.tenant', running: 5 }],
    },
  })
    .map(
      { slug: 'pages', items: 'run.urls', concurrency: 3, whenItemFails: 'collect', tolerate: '7%' },
      () => 1,
    )
    .map(
      { slug: 'sizes', dependsOn: ['pages'], items: 'run.urls', whenItemFails: 'collect', tolerate: 2 },
      () => 1,
    )
    .step(
      { slug: 'last', deadline: 9, limits: [{ name: 'openai', rate: [3000, '1m'], running: 1 }] },
      () => 1,
    ),
  new Flow<{ n: number; done?: { by: null } }>({ slug: 'loops' })
    .loop({ slug: 'a', until: { done: { by: null } }, max: 7, limits: [{ running: 1 }] }, (state) => state)
    .loop({ slug: 'b', start: 'a.n', whenExceeded: 'complete' }, (n) => n),
  new Flow({ slug: 'schemas', version: 3 }).step('b', () => 1),
  new Flow<{ urls: string[] }>({ slug: 'parent' })
    .flow({ slug: 'one', flow: 'plain', startDelay: 3, whenExhausted: 'skip', limits: [{ running: 1 }] })
    .flowMap({
      ...{ slug: 'each', flow: 'scheduled', items: 'run.urls', dependsOn: ['one'], concurrency: 2 },
      ...({ whenItemFails: 'collect', tolerate: 1, whenParentEnds: 'leave' } as const),
    }),
]

async function inDatabase(slug: string): Promise<{ definition: object; shape: object }> {
  const [row] = await db.sql<{ definition: object; shape: object }[]>`
    select definition, pgflow.flow_shape(definition) as shape
    from pgflow.flow_definition(${slug}) definition`
  return row!
}

describe.each(flows)('The compiled flow $slug', (flow) => {
  it('is in the database what it is here, however often it is run', async () => {
    for (let time = 0; time < 2; time++) {
      await db.sql.unsafe(compile(flow))
      const { definition, shape } = await inDatabase(flow.slug)
      const { steps, ...options } = definitionOf(flow)
      expect(definition).toMatchObject(options)
      expect((definition as typeof options).steps).toMatchObject(
        steps.map((step) => ({ ...step, deps_slugs: step.deps_slugs.toSorted() })),
      )
      expect(shape).toEqual(shapeOf(flow))
    }
  })
})

it('A change of options is taken over, a change of shape is refused in words', async () => {
  const flow = new Flow({ slug: 'changing' }).step('a', () => 1).step('b', () => 1)
  await db.sql.unsafe(compile(flow.step('c', ['a'], () => 1)))
  await db.sql.unsafe(compile(flow.step('c', ['a'], () => 1, { timeout: 5 })))
  expect((await inDatabase('changing')).definition).toMatchObject({ steps: [{}, {}, { timeout: 5 }] })
  await expect(db.sql.unsafe(compile(flow.step('c', ['a', 'b'], () => 1)))).rejects.toMatchObject({
    code: 'PT409',
    message: 'the shape of "changing" changed: step "c" now depends on "b"',
    hint: expect.stringContaining('version: 2'),
  })
})
