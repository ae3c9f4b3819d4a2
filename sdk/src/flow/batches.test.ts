import { expect, it } from 'vitest'
import { definitionOf, Flow, shapeOf } from './index.ts'

const Untyped = Flow as unknown as new (options: unknown) => any

const start = () => new Untyped({ slug: 'flow' }).step('a', () => 1)
const batched = (batch: unknown) => start().step({ slug: 'b', batch }, () => [])

it('Only workers know of batches: the definition in the database has none', () => {
  const batch = { size: 10, wait: '1s' }
  const flow = batched(batch)
  const step = flow.steps.get('b')
  batch.size = 11
  expect(step).toMatchObject({ options: {}, batch: { size: 10, wait: '1s' } })
  expect(Object.isFrozen(step.batch)).toBe(true)
  const plain = start().step('b', () => 1)
  expect(definitionOf(flow)).toEqual(definitionOf(plain))
  expect(shapeOf(flow)).toEqual(shapeOf(plain))
})

it.each<[() => unknown, string]>([
  [() => batched(10), "batch of step 'b' is 10: make it an object such as { size: 100"],
  [() => batched({}), "size of batch of step 'b' is null: make it a whole number from 1 to 1,000"],
  [() => batched({ size: 1001 }), 'is 1001: make it a whole number from 1 to 1,000'],
  [() => batched({ size: 0.5 }), 'is 0.5: make it a whole number'],
  [() => batched({ size: 1, wait: '61m' }), "wait of batch of step 'b' is '61m': make it seconds"],
  [() => batched({ size: 1, waits: 1 }), "has no option 'waits': the options are size, wait"],
  [() => start().wait({ slug: 'b', batch: { size: 1 } }), "step 'b' has no option 'batch'"],
  [() => start().sleep({ slug: 'b', for: 1, batch: { size: 1 } }), "step 'b' has no option 'batch'"],
  [() => new Untyped({ slug: 'f', batch: { size: 1 } }), "flow 'f' has no option 'batch'"],
])('A wrong batch is refused, in words: %#', (define, message) => {
  expect(define).toThrow(
    expect.objectContaining({ code: 'invalid_option', message: expect.stringContaining(message) }),
  )
})
