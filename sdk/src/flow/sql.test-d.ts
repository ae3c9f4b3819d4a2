import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { Flow, type Json, type OutputOf, type StepOutputOf, type } from './index.ts'

const Import = new Flow({ slug: 'import' })
  .input<{ id: string }>()
  .step('read', () => ({ text: 'a', tags: ['b'] }))

describe('an SQL step', () => {
  test('gives what its function is said to return', () => {
    const flow = Import.sql({
      slug: 'saved',
      call: 'public.save',
      dependsOn: ['read'],
      output: type<{ rows: number }>(),
    })
      .sql({ slug: 'checked', call: 'app.check', output: z.object({ note: z.string().optional() }) })
      .sql({ slug: 'anything', call: 'app."doIt"' })
      .step('last', ['saved', 'checked', 'anything'], (payload) => {
        expectTypeOf(payload.saved).toEqualTypeOf<{ rows: number }>()
        expectTypeOf(payload.checked).toEqualTypeOf<{ note?: string }>()
        expectTypeOf(payload.anything).toEqualTypeOf<Json>()
      })
    expectTypeOf<StepOutputOf<typeof flow, 'saved'>>().toEqualTypeOf<{ rows: number }>()
  })

  test('may be skipped', () => {
    const flow = Import.sql({
      ...{ slug: 'saved', call: 'public.save', dependsOn: ['read'], output: type<number>() },
      runIf: { read: { tags: ['b'] } },
      whenUnmet: 'skip',
    })
    expectTypeOf<OutputOf<typeof flow>['saved']>().toEqualTypeOf<number | undefined>()
    const alone = new Flow({ slug: 'alone' }).sql({ slug: 'a', call: 'public.a', output: type<1>() })
    expectTypeOf<OutputOf<typeof alone>>().toEqualTypeOf<{ a: 1 }>()
  })

  test('is wrong where it could not work', () => {
    // @ts-expect-error the function has no schema
    Import.sql({ slug: 'a', call: 'save' })
    // @ts-expect-error it calls nothing
    Import.sql({ slug: 'a' })
    // @ts-expect-error there is no step 'other'
    Import.sql({ slug: 'a', call: 'public.a', dependsOn: ['other'] })
    // @ts-expect-error there is already a step 'read'
    Import.sql({ slug: 'read', call: 'public.a' })
    // @ts-expect-error it has no handler
    Import.sql({ slug: 'a', call: 'public.a' }, () => 1)
    // @ts-expect-error it has no limits
    Import.sql({ slug: 'a', call: 'public.a', limits: [{ running: 1 }] })
    // @ts-expect-error a bigint is not JSON
    Import.sql({ slug: 'a', call: 'public.a', output: type<{ n: bigint }>() })
    // @ts-expect-error a condition is a part of the step's input
    Import.sql({ slug: 'a', call: 'public.a', dependsOn: ['read'], runIf: { read: { text: 1 } } })
  })
})
