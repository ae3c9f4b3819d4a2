import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { Flow, type Json, type OutputOf, type StepOutputOf, type } from './index.ts'

const Publish = new Flow({ slug: 'publish' })
  .input<{ title: string; remind_at: string; at?: string; editor: string }>()
  .step('draft', () => ({ text: 'a', reviewers: ['x'], count: 1, until: 1 }))

describe('a wait', () => {
  test('gives what completes it', () => {
    const flow = Publish.wait({
      slug: 'approval',
      dependsOn: ['draft'],
      output: type<{ approved: boolean }>(),
    })
      .wait({
        slug: 'paid',
        output: z.object({ amount: z.coerce.number<string>(), note: z.string().optional() }),
      })
      .wait({ slug: 'anything' })
      .step('last', ['approval', 'paid', 'anything'], (payload) => {
        expectTypeOf(payload.approval).toEqualTypeOf<{ approved: boolean }>()
        expectTypeOf(payload.paid).toEqualTypeOf<{ amount: string; note?: string }>() // as it was given
        expectTypeOf(payload.anything).toEqualTypeOf<Json>()
      })
    expectTypeOf<StepOutputOf<typeof flow, 'approval'>>().toEqualTypeOf<{ approved: boolean }>()
  })

  test('may be missing where it is skipped after its timeout', () => {
    const flow = Publish.wait({
      slug: 'approval',
      output: type<{ approved: boolean }>(),
      timeout: '48h',
      whenTimedOut: 'skip',
    })
    flow.step('last', ['approval'], ({ approval }) => {
      expectTypeOf(approval).toEqualTypeOf<{ approved: boolean } | undefined>()
    })
    expectTypeOf<OutputOf<typeof flow>['approval']>().toEqualTypeOf<{ approved: boolean } | undefined>()
    Publish.wait({
      slug: 'approval',
      output: type<boolean>(),
      timeout: 60,
      whenTimedOut: { output: false },
    }).step('last', ['approval'], ({ approval }) => {
      expectTypeOf(approval).toEqualTypeOf<boolean>()
    })
    // @ts-expect-error what it completes with is of the type of its output
    Publish.wait({ slug: 'a', output: type<boolean>(), timeout: 60, whenTimedOut: { output: 'no' } })
  })

  test('names who may complete it', () => {
    Publish.wait({ slug: 'a', by: 'owner' })
    Publish.wait({ slug: 'a', by: 'authenticated', notBy: 'owner' })
    Publish.wait({ slug: 'a', by: 'run.editor' })
    const flow = Publish.wait({ slug: 'a', by: 'draft.reviewers' })
    expectTypeOf<keyof OutputOf<typeof flow>>().toEqualTypeOf<'a'>() // it depends on the step
    // @ts-expect-error draft.count is a number
    Publish.wait({ slug: 'a', by: 'draft.count' })
    // @ts-expect-error draft has no 'nobody'
    Publish.wait({ slug: 'a', by: 'draft.nobody' })
    // @ts-expect-error there is no step 'other'
    Publish.wait({ slug: 'a', by: 'other.reviewers' })
    // @ts-expect-error a wait has no handler
    Publish.wait({ slug: 'a' }, () => 1)
    // @ts-expect-error a bigint is not JSON
    Publish.wait({ slug: 'a', output: type<{ n: bigint }>() })
    // @ts-expect-error there is already a step 'draft'
    Publish.wait({ slug: 'draft' })
    // @ts-expect-error a condition is a part of the step's input
    Publish.wait({ slug: 'a', dependsOn: ['draft'], runIf: { draft: { text: 1 } } })
  })
})

describe('a sleep', () => {
  test('has null as output, and a time to wait for', () => {
    Publish.sleep({ slug: 'a', for: '3d' }).step('b', ['a'], ({ a }) => {
      expectTypeOf(a).toEqualTypeOf<null>()
    })
    Publish.sleep({ slug: 'a', until: 'run.remind_at' })
    Publish.sleep({ slug: 'a', until: 'draft.until' })
    // @ts-expect-error run.at may be missing
    Publish.sleep({ slug: 'a', until: 'run.at' })
    // @ts-expect-error draft is an object
    Publish.sleep({ slug: 'a', until: 'draft' })
    // @ts-expect-error it needs one of them
    Publish.sleep({ slug: 'a' })
    // @ts-expect-error it needs one of them, not both
    Publish.sleep({ slug: 'a', for: 1, until: 'run.remind_at' })
  })
})
