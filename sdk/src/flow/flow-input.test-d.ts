import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { Flow, type InputOf, type OutputOf, type ResourcesOf } from './index.ts'

describe('the type of a flow before its first step', () => {
  test('has its slug and version', () => {
    const first = new Flow({ slug: 'f' })
    expectTypeOf(first.slug).toEqualTypeOf<'f'>()
    expectTypeOf(first.alias).toEqualTypeOf<'f'>()
    const second = new Flow({ slug: 'f', version: 2 }).step('a', () => 1)
    expectTypeOf(second.slug).toEqualTypeOf<'f_v2'>()
    expectTypeOf(second.alias).toEqualTypeOf<'f'>()
    const version: number = JSON.parse('2')
    expectTypeOf(new Flow({ slug: 'f', version }).slug).toEqualTypeOf<string>()
    expectTypeOf(new Flow<string>({ slug: 'f', version: 2 }).slug).toEqualTypeOf<string>()
    // @ts-expect-error a version is a number
    new Flow({ slug: 'f', version: '2' })
  })

  test('takes an input and resources', () => {
    const flow = new Flow({ slug: 'f', timeout: 5 })
      .input<{ at: Date }>()
      .resources<{ log: (text: string) => void }>()
      .step('a', ({ run }, { resources }) => {
        expectTypeOf(run).toEqualTypeOf<{ at: string }>()
        resources.log(run.at)
        return run.at
      })
    expectTypeOf(flow.slug).toEqualTypeOf<'f'>()
    expectTypeOf<InputOf<typeof flow>>().toEqualTypeOf<{ at: Date }>()
    const schema = new Flow({ slug: 'f', input: z.object({ n: z.number() }) }).resources<{ db: string }>()
    expectTypeOf<InputOf<typeof schema>>().toEqualTypeOf<{ n: number }>()
    expectTypeOf<ResourcesOf<typeof schema>>().toEqualTypeOf<{ db: string }>()
    // @ts-expect-error it has steps already
    flow.input<string>()
    // @ts-expect-error JSON keeps nothing of this object
    new Flow({ slug: 'f' }).input<Map<string, string>>()
  })

  test('has schedules with an input of its own', () => {
    const cron = '0 7 * * *'
    const flow = new Flow({
      slug: 'f',
      schedules: [{ slug: 's', cron, input: { topics: ['ai'] }, overlap: 'allow', catchUpWindow: '2h' }],
    })
      .input<{ topics: string[] }>()
      .step('a', ({ run }) => run.topics)
    expectTypeOf(flow.slug).toEqualTypeOf<'f'>()
    new Flow<{ n: number }>({ slug: 'f', schedules: [{ slug: 's', cron, input: { n: 1 } }] })
    const input = z.object({ n: z.number() })
    new Flow({ slug: 'f', input, schedules: [{ slug: 's', cron, input: { n: 1 } }] })
    new Flow({ slug: 'f', schedules: [{ slug: 's', cron: '@daily', timeZone: 'Europe/Berlin' }] }).step(
      'a',
      () => 1,
    )
    new Flow<null>({ slug: 'f', schedules: [{ slug: 's', cron }] })
    // @ts-expect-error another input
    new Flow({ slug: 'f', schedules: [{ slug: 's', cron, input: { topics: [1] } }] }).input<{
      topics: string[]
    }>()
    // @ts-expect-error an input is missing
    new Flow({ slug: 'f', schedules: [{ slug: 's', cron }] }).input<{ topics: string[] }>()
    // @ts-expect-error another input
    new Flow<{ n: number }>({ slug: 'f', schedules: [{ slug: 's', cron, input: { n: 'one' } }] })
    // @ts-expect-error an input is missing
    new Flow<{ n: number }>({ slug: 'f', schedules: [{ slug: 's', cron }] })
    // @ts-expect-error another input than the schema's
    new Flow({ slug: 'f', input, schedules: [{ slug: 's', cron, input: { n: '1' } }] })
    // @ts-expect-error four fields
    new Flow({ slug: 'f', schedules: [{ slug: 's', cron: '0 7 * *' }] })
    // @ts-expect-error no such name
    new Flow({ slug: 'f', schedules: [{ slug: 's', cron: '@nightly' }] })
    // @ts-expect-error no such option
    new Flow({ slug: 'f', schedules: [{ slug: 's', cron, overlap: 'wait' }] })
  })

  test('may be made by generic functions', () => {
    function make<const Slug extends string, Input extends { id: string }>(slug: Slug) {
      return new Flow({ slug }).input<Input>().step('id', ({ run }) => run.id)
    }
    const flow = make<'f', { id: string; n: number }>('f')
    expectTypeOf(flow.alias).toEqualTypeOf<'f'>()
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ id: string }>()
  })
})
