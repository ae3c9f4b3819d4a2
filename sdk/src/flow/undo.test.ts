import { describe, expect, it } from 'vitest'
import { compile, definitionOf, Flow, relatedFlows, undoFlowOf } from './index.ts'

const undo = () => undefined

// hotel → rates → car ↘
//       ↘ flights (map) → charge → mail, where rates and mail cannot be undone
const Trip = new Flow({
  slug: 'trip',
  version: 2,
  maxAttempts: 5,
  timeout: '2m',
  deadline: '1h',
  limits: [{ running: 1 }],
})
  .input<{ city: string; flights: string[] }>()
  .step({ slug: 'hotel', timeout: '5m' }, ({ run }) => run.city, { undo })
  .step({ slug: 'rates', dependsOn: ['hotel'] }, () => 1)
  .step({ slug: 'car', dependsOn: ['rates'], undo: { handler: undo, maxAttempts: 10 } }, () => 1)
  .map(
    { slug: 'flights', dependsOn: ['hotel'], items: 'run.flights', concurrency: 2, undo },
    (flight) => flight,
  )
  .step({ slug: 'charge', dependsOn: ['car', 'flights'], baseDelay: '1s', undo }, () => 1)
  .step({ slug: 'mail', dependsOn: ['charge'] }, () => 1)

describe('undoFlowOf', () => {
  it('has the steps with an undo, each after those that depend on it', () => {
    expect(definitionOf(undoFlowOf(Trip)!)).toEqual({
      ...{ flow_slug: 'trip_undo_v2', alias: 'trip_undo', version: 2, max_attempts: 5, timeout: 120 },
      steps: [
        { step_slug: 'charge', deps_slugs: [], ...when('charge'), base_delay: 1 },
        {
          ...{ step_slug: 'flights', deps_slugs: ['charge'], ...when('flights'), concurrency: 2 },
          ...{ step_type: 'map', map_source: 'run', map_path: 'outputs.flights' },
        },
        { step_slug: 'car', deps_slugs: ['charge'], ...when('car'), max_attempts: 10 },
        { step_slug: 'hotel', deps_slugs: ['flights', 'car'], ...when('hotel'), timeout: 300 },
      ],
    })
    expect(undoFlowOf(Trip)).toBe(undoFlowOf(Trip))
  })

  it('is named by its flow, and none where nothing can be undone', () => {
    expect(definitionOf(Trip)).toMatchObject({ flow_slug: 'trip_v2', undo_flow: 'trip_undo_v2' })
    expect(undoFlowOf(new Flow({ slug: 'a' }).step('b', () => 1))).toBeUndefined()
    expect(compile(new Flow({ slug: 'a' }).step('b', () => 1))).not.toContain('undo')
  })

  it('comes before its flow, once', () => {
    expect(relatedFlows([Trip, Trip]).map(({ slug }) => slug)).toEqual(['trip_undo_v2', 'trip_v2'])
    expect(relatedFlows([Trip, undoFlowOf(Trip)!])).toHaveLength(2)
  })

  it.each([0, 1])('takes a slug that no other flow may have', (first) => {
    const Short = new Flow({ slug: 'trip' }).step('a', () => 1, { undo })
    const Other = new Flow({ slug: 'trip_undo' }).step('a', () => 1)
    expect(() => relatedFlows(first === 0 ? [Short, Other] : [Other, Short])).toThrow(
      "The flow 'trip_undo' has the slug of the flow that undoes 'trip': give it another one.",
    )
  })
})

describe('the option undo', () => {
  it.each([
    [() => new Flow({ slug: 'f' }).step('a', () => 1, { undo: 'no' as never }), "The undo of step 'a' is"],
    [
      () => new Flow({ slug: 'f' }).step('a', () => 1, { undo: { maxAttempts: 2 } as never }),
      "The undo of step 'a' is undefined",
    ],
    [
      () => new Flow({ slug: 'f' }).step('a', () => 1, { undo: { handler: undo, maxAttempts: 0 } }),
      "The option maxAttempts of undo of step 'a' is 0",
    ],
    [() => new Flow({ slug: 'f' }).wait({ slug: 'a', undo } as never), "step 'a'"],
    [
      () => new Flow({ slug: 'f' }).step({ slug: 'a' }, () => 1, { timeout: 1 } as never),
      'options after its handler',
    ],
  ])('is refused where it cannot work: %s', (define, message) => {
    expect(define).toThrow(message)
  })
})

function when(slug: string) {
  return { run_if: { run: { completed: { [slug]: true } } }, when_unmet: 'skip' }
}
