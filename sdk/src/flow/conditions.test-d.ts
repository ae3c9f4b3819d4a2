import { describe, expectTypeOf, test } from 'vitest'
import { Flow, type Json, type OutputOf, type StepInputOf, type StepOptions } from './index.ts'

interface Order {
  kind: 'book' | 'film'
  paid: boolean
  count: number
  note?: string
  tags: ('new' | 'sale')[]
  rows: { id: number; name: string }[]
  at: Date
  size: { unit: 'cm'; width: number } | { unit: 'in'; inches: number }
}

const Shop = new Flow<Order>({ slug: 'shop' })
  .step('check', () => ({ ok: true as boolean, code: 7 }))
  .step('words', () => ['a', 'b'])

const none = () => 1

describe('a condition', () => {
  test('is a part of what the step can get', () => {
    Shop.step({ slug: 'a', runIf: { run: { kind: 'book', paid: true } } }, none)
    Shop.step({ slug: 'a', runUnless: { run: { note: 'x', count: 5 } } }, none)
    Shop.step({ slug: 'a', runIf: { run: { tags: ['sale'], rows: [{ id: 1 }] } } }, none)
    Shop.step({ slug: 'a', runIf: { run: { size: { unit: 'in', inches: 3 } } } }, none)
    Shop.step({ slug: 'a', runIf: { run: { at: '2000-01-01' } } }, none)
    Shop.step({ slug: 'a', runIf: {} }, none)
    Shop.step({ slug: 'a', dependsOn: ['check'], runIf: { check: { ok: true } } }, none)
    Shop.step('a', ['check', 'words'], none, { runUnless: { words: ['a'], check: { code: 1 } } })
    Shop.map({ slug: 'a', items: 'words', runIf: { words: ['b'] } }, none)
    new Flow({ slug: 'f' }).step({ slug: 'a', runIf: { run: { any: ['thing'] } } }, none)
    new Flow<any>({ slug: 'f' }).step({ slug: 'a', runIf: { run: { any: ['thing'] } } }, none)
    const fragment: Json = JSON.parse('{}')
    Shop.step({ slug: 'a', runIf: { run: fragment } }, none)
    const paid: boolean = JSON.parse('true')
    const kind: string = JSON.parse('"book"')
    Shop.step({ slug: 'a', runIf: { run: { paid, kind } } }, none)
  })

  test('does not compile if no input contains it', () => {
    // @ts-expect-error 'run.kind' is never "song"
    Shop.step({ slug: 'a', runIf: { run: { kind: 'song' } } }, none)
    // @ts-expect-error 'run.paid' is never "yes"
    Shop.step({ slug: 'a', runUnless: { run: { paid: 'yes' } } }, none)
    // @ts-expect-error the step's input never has 'run.king'
    Shop.step({ slug: 'a', runIf: { run: { king: 'book' } } }, none)
    // @ts-expect-error the step's input never has 'check': it is no dep
    Shop.step({ slug: 'a', runIf: { check: { ok: true } } }, none)
    // @ts-expect-error 'check.code' is never true
    Shop.step('a', ['check'], none, { runIf: { check: { code: true } } })
    // @ts-expect-error 'run.tags' never contains this array
    Shop.step({ slug: 'a', runIf: { run: { tags: ['old'] } } }, none)
    // @ts-expect-error 'run.tags' is never "new": it is an array
    Shop.step({ slug: 'a', runIf: { run: { tags: 'new' } } }, none)
    // @ts-expect-error 'run.rows' never contains this array
    Shop.step({ slug: 'a', runIf: { run: { rows: [{ id: 1 }, { id: 'x' }] } } }, none)
    // @ts-expect-error 'run.size' never has all of this at once
    Shop.step({ slug: 'a', runIf: { run: { size: { unit: 'cm', inches: 3 } } } }, none)
    // @ts-expect-error 'words' never contains this array
    Shop.map({ slug: 'a', items: 'words', runIf: { words: [1] } }, none)
    // @ts-expect-error a condition is an object
    Shop.step({ slug: 'a', runIf: 'run' }, none)
    // @ts-expect-error there is no such end
    Shop.step({ slug: 'a', whenUnmet: 'stop' }, none)
  })
})

describe('a step that may be skipped', () => {
  const runIf = { run: { paid: true } } as const

  test('alone is optional for its dependents', () => {
    const flow = Shop.step({ slug: 'bill', runIf, whenUnmet: 'skip' }, () => ({ sum: 1 }))
    flow.step('next', ['bill', 'words'], (payload) => {
      expectTypeOf<Omit<typeof payload, 'run'>>().toEqualTypeOf<{ words: string[]; bill?: { sum: number } }>()
      // @ts-expect-error the bill may be missing
      return payload.bill.sum
    })
    const exhausted = Shop.step({ slug: 'bill', whenExhausted: 'skip' }, () => 1).step(
      'next',
      ['bill'],
      ({ bill }) => bill,
    )
    expectTypeOf<StepInputOf<typeof exhausted, 'next'>['bill']>().toEqualTypeOf<number | undefined>()
  })

  test('alone does not make its dependents optional', () => {
    const flow = Shop.step({ slug: 'bill', runIf, whenUnmet: 'skip' }, none).step('next', ['bill'], none)
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{
      check: { ok: boolean; code: number }
      words: string[]
      next: number
    }>()
  })

  test('with its dependents is there when they run, and makes them optional', () => {
    const flow = Shop.step({ slug: 'bill', runIf }, none)
      .step('next', ['bill', 'check', 'words'], none)
      .map({ slug: 'last', items: 'words', dependsOn: ['next'] }, none)
    expectTypeOf<StepInputOf<typeof flow, 'next'>['bill']>().toEqualTypeOf<number>()
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ last?: number[] }>()
  })

  test('is optional in the output of the flow', () => {
    const flow = new Flow<Order>({ slug: 'f' })
      .step({ slug: 'a', runIf, whenUnmet: 'skip' }, none)
      .step({ slug: 'b', runUnless: runIf }, none)
      .step({ slug: 'c', whenExhausted: 'skip-cascade' }, none)
      .step({ slug: 'd', runIf, whenUnmet: 'fail' }, none)
      .step({ slug: 'e', whenUnmet: 'skip' }, none)
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{
      a?: number
      b?: number
      c?: number
      d: number
      e: number
    }>()
  })

  test('is one whose options are known at run time only', () => {
    const options: StepOptions = JSON.parse('{}')
    const flow = new Flow<Order>({ slug: 'f' }).step('a', [], none, options).step('b', ['a'], ({ a }) => a)
    expectTypeOf<StepInputOf<typeof flow, 'b'>['a']>().toEqualTypeOf<number | undefined>()
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ b?: number | null }>()
  })

  test('may be the source of a map, which has no items then', () => {
    const flow = Shop.step({ slug: 'more', runIf, whenUnmet: 'skip' }, () => [1]).map(
      { slug: 'a', items: 'more' },
      (item) => {
        expectTypeOf(item).toEqualTypeOf<number>()
        return item
      },
    )
    expectTypeOf<OutputOf<typeof flow>['a']>().toEqualTypeOf<number[]>()
  })
})
