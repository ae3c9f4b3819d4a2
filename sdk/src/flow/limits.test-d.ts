import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { Flow, type ItemResult, type OutputOf, type StepOutputOf } from './index.ts'

interface Input {
  tenant: string
  urls: string[]
  plan: { level: number; note?: string }
}

const Crawl = new Flow({ slug: 'crawl' })
  .input<Input>()
  .step('toc', () => ({ host: 'a', urls: ['b'], deep: { urgent: true } }))
const handler = () => 1

describe('a limit', () => {
  test('is of a step or a map, by a value in its input', () => {
    Crawl.step({ slug: 'a', limits: [{ running: 1 }] }, handler)
    Crawl.step(
      {
        slug: 'a',
        dependsOn: ['toc'],
        limits: [
          { by: 'run.plan.level', running: 1 },
          { by: 'toc.deep.urgent', name: 'openai', rate: [3000, '1m'] },
        ],
        deadline: '2h',
      },
      ({ toc }) => expectTypeOf(toc.host).toEqualTypeOf<string>(),
    )
    Crawl.step('a', ['toc'], handler, { limits: [{ by: 'toc.host', running: 1, rate: [1, 5] }] })
    Crawl.map(
      { slug: 'a', items: 'toc.urls', concurrency: 20, limits: [{ by: 'toc.host', running: 1 }] },
      (url) => expectTypeOf(url).toEqualTypeOf<string>(),
    )
    // @ts-expect-error 'toc' is not among the deps
    Crawl.step({ slug: 'a', limits: [{ by: 'toc.host', running: 1 }] }, handler)
    // @ts-expect-error 'run' has no 'nobody'
    Crawl.step({ slug: 'a', limits: [{ by: 'run.nobody', running: 1 }] }, handler)
    // @ts-expect-error one of them has no such path
    Crawl.step('a', handler, {
      limits: [
        { by: 'run.tenant', running: 1 },
        { by: 'run.x', running: 1 },
      ],
    })
    // @ts-expect-error 'run.urls' is an object
    Crawl.map({ slug: 'a', items: 'run.urls', limits: [{ by: 'run.urls', running: 1 }] }, handler)
    // @ts-expect-error 'run.plan.note' may be missing
    Crawl.step({ slug: 'a', limits: [{ by: 'run.plan.note', running: 1 }] }, handler)
    // @ts-expect-error it limits nothing
    Crawl.step({ slug: 'a', limits: [{ by: 'run.tenant' }] }, handler)
    // @ts-expect-error a rate has a period
    Crawl.step({ slug: 'a', limits: [{ rate: 5 }] }, handler)
    // @ts-expect-error only maps have several items
    Crawl.step({ slug: 'a', concurrency: 2 }, handler)
    // @ts-expect-error a wait has no tasks that workers run
    Crawl.wait({ slug: 'a', limits: [{ running: 1 }] })
    // @ts-expect-error a sleep neither
    Crawl.sleep({ slug: 'a', for: 1, limits: [{ running: 1 }] })
  })

  test("is of a flow, by a value in its run's input", () => {
    new Flow({
      slug: 'f',
      priority: 'low',
      deadline: '2h',
      limits: [{ by: 'run.tenant', running: 5 }],
    }).input<Input>()
    new Flow({ slug: 'f', input: z.object({ id: z.number() }), limits: [{ by: 'run.id', running: 5 }] })
    new Flow<Input>({ slug: 'f', limits: [{ by: 'run.tenant', running: 5 }, { rate: [1, '1s'] }] })
    new Flow<string>({ slug: 'f', limits: [{ by: 'run', running: 1 }] })
    new Flow({ slug: 'f', limits: [{ by: 'run.anything', running: 1 }] }).step('a', handler)
    // @ts-expect-error its input has no 'nobody'
    new Flow({ slug: 'f', limits: [{ by: 'run.nobody', running: 5 }] }).input<Input>()
    // @ts-expect-error nor that of its schema
    new Flow({ slug: 'f', input: z.object({ id: z.number() }), limits: [{ by: 'run.nobody', running: 5 }] })
    // @ts-expect-error nor that of its type
    new Flow<Input>({ slug: 'f', limits: [{ by: 'run.nobody', running: 5 }] })
    // @ts-expect-error it does not look into steps
    new Flow({ slug: 'f', limits: [{ by: 'toc.host', running: 5 }] })
    // @ts-expect-error there are three priorities
    new Flow({ slug: 'f', priority: 'urgent' })
  })
})

describe('a singleton', () => {
  test('has a key in the input, and an answer for a start while it is busy', () => {
    new Flow({ slug: 'f', singleton: {} })
    new Flow({ slug: 'f', singleton: { key: 'run.tenant', whenBusy: 'after', wait: '5s' } }).input<Input>()
    new Flow<Input>({ slug: 'f', singleton: { key: 'run.plan.level', whenBusy: 'reject' } })
    // @ts-expect-error its input has no 'documentId'
    new Flow<Input>({ slug: 'f', singleton: { key: 'run.documentId' } })
    // @ts-expect-error an array is no key
    new Flow({ slug: 'f', singleton: { key: 'run.urls' } }).input<Input>()
    // @ts-expect-error only 'after' waits
    new Flow<Input>({ slug: 'f', singleton: { whenBusy: 'return', wait: '5s' } })
    // @ts-expect-error there is no such answer
    new Flow<Input>({ slug: 'f', singleton: { whenBusy: 'queue' } })
  })
})

describe('a map that collects what fails', () => {
  const flow = Crawl.map(
    { slug: 'sizes', items: 'run.urls', whenItemFails: 'collect', tolerate: '5%' },
    (url) => ({
      length: url.length,
      at: new Date(),
    }),
  ).step('sum', ['sizes'], ({ sizes }) => {
    for (const size of sizes) {
      if (size.status === 'completed') expectTypeOf(size.value.length).toEqualTypeOf<number>()
      else expectTypeOf(size.error).toEqualTypeOf<string>()
      // @ts-expect-error it may have failed
      size.value
    }
    return sizes.length
  })

  test('gives a result for each item', () => {
    type Sizes = (
      | { status: 'completed'; value: { length: number; at: string } }
      | { status: 'failed'; error: string }
    )[]
    expectTypeOf<StepOutputOf<typeof flow, 'sizes'>>().toEqualTypeOf<Sizes>()
    const leaf = Crawl.map(
      { slug: 'm', items: 'run.urls', whenItemFails: 'collect', tolerate: 3 },
      (url) => url,
    )
    expectTypeOf<OutputOf<typeof leaf>['m']>().toEqualTypeOf<ItemResult<string>[]>()
    leaf.map({ slug: 'again', items: 'm' }, (item) => expectTypeOf(item).toEqualTypeOf<ItemResult<string>>())
  })

  test('is told so', () => {
    const plain = Crawl.map(
      { slug: 'm', items: 'run.urls', whenItemFails: 'fail', concurrency: 2 },
      (url) => url,
    )
    expectTypeOf<StepOutputOf<typeof plain, 'm'>>().toEqualTypeOf<string[]>()
    // @ts-expect-error failed items are tolerated only where they are collected
    Crawl.map({ slug: 'm', items: 'run.urls', tolerate: 1 }, handler)
    // @ts-expect-error a share is a percentage
    Crawl.map({ slug: 'm', items: 'run.urls', whenItemFails: 'collect', tolerate: 'five' }, handler)
    // @ts-expect-error there are two ways
    Crawl.map({ slug: 'm', items: 'run.urls', whenItemFails: 'skip' }, handler)
    // @ts-expect-error a step has one task
    Crawl.step({ slug: 'm', whenItemFails: 'collect' }, handler)
  })
})
