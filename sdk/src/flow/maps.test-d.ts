import { describe, expectTypeOf, test } from 'vitest'
import { Flow, type Json, type OutputOf, type StepInputOf, type StepOutputOf } from './index.ts'

interface Page {
  url: string
  at: Date
}

const Crawl = new Flow<{ urls: string[]; since?: Date[]; title: string }>({ slug: 'crawl' })
  .map({ slug: 'pages', items: 'run.urls' }, async (url): Promise<Page> => ({ url, at: new Date() }))
  .step('toc', ['pages'], ({ pages }) => ({
    deep: { links: pages.map(({ url }) => ({ url })), pair: [1, 'a'] as [number, string] },
    count: pages.length,
    note: null,
    maybe: pages.length > 0 ? ['a'] : null,
    either: pages.length > 0 ? ['a'] : [1],
  }))

describe('a map', () => {
  test('gets items, and gives the array of its outputs', () => {
    expectTypeOf<StepInputOf<typeof Crawl, 'pages'>>().toEqualTypeOf<string>()
    expectTypeOf<StepOutputOf<typeof Crawl, 'pages'>>().toEqualTypeOf<{ url: string; at: string }[]>()
    expectTypeOf<OutputOf<typeof Crawl>>().toExtend<{ toc: { count: number } }>()
  })

  test('goes over the output of a dep, or an array in it', () => {
    Crawl.map({ slug: 'a', items: 'pages' }, (item) => {
      expectTypeOf(item).toEqualTypeOf<{ url: string; at: string }>()
    })
    Crawl.map({ slug: 'a', dependsOn: ['pages'] }, (item) => {
      expectTypeOf(item).toEqualTypeOf<{ url: string; at: string }>()
    })
    Crawl.map({ slug: 'a', items: 'toc.deep.links' }, (item) => {
      expectTypeOf(item).toEqualTypeOf<{ url: string }>()
    })
    Crawl.map({ slug: 'a', items: 'toc.deep.pair' }, (item) => {
      expectTypeOf(item).toEqualTypeOf<string | number>()
    })
    Crawl.map({ slug: 'a', items: 'toc.either', dependsOn: ['pages'] }, (item, { taskIndex, payload }) => {
      expectTypeOf(item).toEqualTypeOf<string | number>()
      expectTypeOf(payload()).resolves.toExtend<{
        run: { title: string }
        pages: { url: string; at: string }[]
        toc: { count: number }
      }>()
      expectTypeOf(taskIndex).toEqualTypeOf<number>()
    })
  })

  test("goes over the run's input where it has no dep", () => {
    new Flow<Date[]>({ slug: 'f' }).map({ slug: 'a' }, (item) => {
      expectTypeOf(item).toEqualTypeOf<string>()
    })
    new Flow<Date[]>({ slug: 'f' }).map({ slug: 'a', items: 'run' }, (item) => {
      expectTypeOf(item).toEqualTypeOf<string>()
    })
  })

  test('goes over what is known at run time only', () => {
    const flow = new Flow({ slug: 'f' }).step('a', () => JSON.parse('[]'))
    flow.map({ slug: 'b' }, (item) => {
      expectTypeOf(item).toEqualTypeOf<Json>()
    })
    flow.map({ slug: 'b', items: 'run.x.y' }, (item) => {
      expectTypeOf(item).toEqualTypeOf<Json>()
    })
    flow.map({ slug: 'b', items: 'a.x' }, (item) => {
      expectTypeOf(item).toBeAny()
    })
    new Flow<{ list: unknown }>({ slug: 'f' }).map({ slug: 'b', items: 'run.list' }, (item) => {
      expectTypeOf(item).toEqualTypeOf<Json>()
    })
  })

  test('is a dep like others', () => {
    const flow = Crawl.map({ slug: 'sizes', items: 'pages' }, ({ url }) => url.length)
      .map({ slug: 'labels', items: 'sizes' }, (size) => `${size}`)
      .step('all', ['labels', 'sizes'], (payload) => {
        expectTypeOf(payload).toEqualTypeOf<{
          run: { urls: string[]; since?: string[]; title: string }
          sizes: number[]
          labels: string[]
        }>()
        return payload.labels
      })
    expectTypeOf<keyof OutputOf<typeof flow>>().toEqualTypeOf<'toc' | 'all'>()
  })

  test('needs an array', () => {
    const none = () => 1
    // @ts-expect-error 'toc.count' is a number
    Crawl.map({ slug: 'a', items: 'toc.count' }, none)
    // @ts-expect-error 'toc' is an object
    Crawl.map({ slug: 'a', items: 'toc' }, none)
    // @ts-expect-error 'toc' is an object
    Crawl.map({ slug: 'a', dependsOn: ['toc'] }, none)
    // @ts-expect-error 'toc' has no 'links'
    Crawl.map({ slug: 'a', items: 'toc.links' }, none)
    // @ts-expect-error 'toc.maybe' may be null
    Crawl.map({ slug: 'a', items: 'toc.maybe' }, none)
    // @ts-expect-error 'run.since' may be missing
    Crawl.map({ slug: 'a', items: 'run.since' }, none)
    // @ts-expect-error 'run' is an object
    Crawl.map({ slug: 'a' }, none)
    // @ts-expect-error 'run.title' is a string
    Crawl.map({ slug: 'a', items: 'run.title' }, none)
    // @ts-expect-error it has several deps
    Crawl.map({ slug: 'a', dependsOn: ['pages', 'toc'] }, none)
    // @ts-expect-error there is no step 'none'
    Crawl.map({ slug: 'a', items: 'none.urls' }, none)
    // @ts-expect-error the flow already has a step 'toc'
    Crawl.map({ slug: 'toc', items: 'pages' }, none)
    // @ts-expect-error items are strings
    Crawl.map({ slug: 'a', items: 'run.urls' }, (url: number) => url)
    // @ts-expect-error a bigint is not JSON
    Crawl.map({ slug: 'a', items: 'run.urls' }, () => 1n)
    // @ts-expect-error a single step has no items
    Crawl.step({ slug: 'a', items: 'run.urls' }, none)
  })
})
