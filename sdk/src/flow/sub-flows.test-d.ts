import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { startWorker } from '../worker/index.ts'
import {
  type AnyFlow,
  type ChildFlowOf,
  Flow,
  type ItemResult,
  type Json,
  type MapProgress,
  type OutputOf,
  type StepInputOf,
  type StepOutputOf,
  type StepProgressOf,
  type,
} from './index.ts'

const Line = new Flow({ slug: 'line' })
  .input<{ sku: string; count: number; at?: Date }>()
  .step('price', ({ run }) => run.count * 3)
  .step({ slug: 'gift', runIf: { run: { count: 100 } } }, () => 'pen')

const Order = new Flow({ slug: 'order' })
  .input<{
    lines: { sku: string; count: number }[]
    first: { sku: string; count: number }
    note: string
    odd: { sku: string; count: string }
  }>()
  .step('check', () => ({
    line: { sku: 'a', count: 1, more: true },
    maybe: undefined as { sku: string; count: number } | undefined,
  }))

type LineOutput = { price: number; gift?: string }

describe('a sub-flow', () => {
  test('gives the output of its run', () => {
    const flow = Order.flow({ slug: 'one', flow: Line, input: 'run.first' })
      .flow({
        slug: 'two',
        flow: Line,
        input: 'check.line',
        whenUnmet: 'skip',
        runIf: { check: { line: { sku: 'a' } } },
      })
      .step('last', ['one', 'two'], ({ one, two }) => {
        expectTypeOf(one).toEqualTypeOf<LineOutput>()
        expectTypeOf(two).toEqualTypeOf<LineOutput | undefined>()
      })
    expectTypeOf<StepOutputOf<typeof flow, 'one'>>().toEqualTypeOf<LineOutput>()
    expectTypeOf<StepInputOf<typeof flow, 'one'>>().toEqualTypeOf<{
      sku: string
      count: number
      at?: string
    }>()
    expectTypeOf<StepProgressOf<typeof flow, 'one'>>().toEqualTypeOf<null>()
    expectTypeOf<ChildFlowOf<typeof flow, 'one'>>().toEqualTypeOf<typeof Line>()
    expectTypeOf<ChildFlowOf<typeof flow, 'check'>>().toEqualTypeOf<never>()
    expectTypeOf<keyof OutputOf<typeof flow>>().toEqualTypeOf<'last'>() // check is a dep of two
  })

  test("gets the output of the only dep, or the run's input", () => {
    new Flow({ slug: 'f' }).input<{ sku: string; count: number }>().flow({ slug: 'a', flow: Line })
    const flow = new Flow({ slug: 'f' }).step('b', () => ({ sku: 'a', count: 1 }))
    flow.flow({ slug: 'a', flow: Line, dependsOn: ['b'] })
    flow.flow({ slug: 'a', flow: Line }) // The run's input is known at run time only.
    // @ts-expect-error 'run' has no sku
    Order.flow({ slug: 'a', flow: Line })
    // @ts-expect-error it has several deps
    Order.step('b', () => 1).flow({ slug: 'a', flow: Line, dependsOn: ['check', 'b'] })
  })

  test('gets what its flow takes', () => {
    // @ts-expect-error 'run.note' is a string
    Order.flow({ slug: 'a', flow: Line, input: 'run.note' })
    // @ts-expect-error its count is a string
    Order.flow({ slug: 'a', flow: Line, input: 'run.odd' })
    // @ts-expect-error 'check.maybe' may be missing
    Order.flow({ slug: 'a', flow: Line, input: 'check.maybe' })
    // @ts-expect-error 'check' has no 'none'
    Order.flow({ slug: 'a', flow: Line, input: 'check.none' })
    // @ts-expect-error there is no step 'none'
    Order.flow({ slug: 'a', flow: Line, input: 'none' })
    // @ts-expect-error there is already a step 'check'
    Order.flow({ slug: 'check', flow: Line, input: 'run.first' })
    // @ts-expect-error a sub-flow has no attempts of its own
    Order.flow({ slug: 'a', flow: Line, input: 'run.first', maxAttempts: 3 })
    // @ts-expect-error a sub-flow has no handler
    Order.flow({ slug: 'a', flow: Line, input: 'run.first' }, () => 1)
    const Parsed = new Flow({
      slug: 'parsed',
      input: z.object({ n: z.coerce.number<string>(), x: z.string().default('') }),
    }).step('a', ({ run }) => run.n)
    const flow = new Flow({ slug: 'f' })
      .step('text', () => ({ n: '1' }))
      .step('number', () => ({ n: 1 }))
      .step('any', () => JSON.parse('{}'))
    flow.flow({ slug: 'a', flow: Parsed, input: 'text' })
    flow.flow({ slug: 'a', flow: Parsed, input: 'any.x' })
    // @ts-expect-error its flow takes what its schema takes
    flow.flow({ slug: 'a', flow: Parsed, input: 'number' })
  })

  test('may be named by its slug', () => {
    const Tree = new Flow({ slug: 'tree' })
      .input<{ url: string; depth: number }>()
      .step('links', ({ run }) => [{ url: run.url, depth: run.depth + 1 }])
      .flowMap({ slug: 'below', flow: 'tree', items: 'links', output: type<{ pages: number }>() })
      .flow({ slug: 'elsewhere', flow: 'other', input: 'run.depth' })
    expectTypeOf<StepOutputOf<typeof Tree, 'below'>>().toEqualTypeOf<{ pages: number }[]>()
    expectTypeOf<StepOutputOf<typeof Tree, 'elsewhere'>>().toEqualTypeOf<Json>()
    expectTypeOf<ChildFlowOf<typeof Tree, 'below'>>().toEqualTypeOf<AnyFlow>()
    Order.flow({ slug: 'a', flow: 'x', output: z.object({ at: z.string() }), input: 'run.note' })
    // @ts-expect-error a flow that calls itself gets what it takes
    Tree.flow({ slug: 'a', flow: 'tree', input: 'run.url' })
    // @ts-expect-error the flow says what it gives
    Order.flow({ slug: 'a', flow: Line, input: 'run.first', output: type<number>() })
    // @ts-expect-error a bigint is not JSON
    Order.flow({ slug: 'a', flow: 'x', output: type<bigint>() })
  })

  test('knows its options', () => {
    Order.flow({
      ...{
        slug: 'a',
        flow: Line,
        input: 'run.first',
        whenParentEnds: 'leave',
        startDelay: '1m',
        deadline: '1h',
      },
      ...{ whenExhausted: 'skip', limits: [{ by: 'run.note', running: 1 }] },
    } as const)
    // @ts-expect-error it is cancelled or left
    Order.flow({ slug: 'a', flow: Line, input: 'run.first', whenParentEnds: 'fail' })
  })

  test('needs the resources of its flow', () => {
    const Mail = new Flow<string>({ slug: 'mail' })
    const Mailing = new Flow<string, { mail: (text: string) => void }>({ slug: 'mailing' }).step('a', () => 1)
    const flow = Mail.flow({ slug: 'a', flow: Mailing })
    const connection = 'postgresql://…'
    void startWorker({ connection, flows: [flow], resources: { mail: (_text: string) => {} } })
    // @ts-expect-error mail is missing
    void startWorker({ connection, flows: [flow] })
  })
})

describe('a map of flows', () => {
  test('gives the outputs of its runs', () => {
    const flow = Order.flowMap({ slug: 'lines', flow: Line, items: 'run.lines', concurrency: 3 }).flowMap({
      slug: 'some',
      flow: Line,
      items: 'run.lines',
      whenItemFails: 'collect',
      tolerate: '5%',
    })
    expectTypeOf<StepOutputOf<typeof flow, 'lines'>>().toEqualTypeOf<LineOutput[]>()
    expectTypeOf<StepOutputOf<typeof flow, 'some'>>().toEqualTypeOf<ItemResult<LineOutput>[]>()
    expectTypeOf<StepProgressOf<typeof flow, 'lines'>>().toEqualTypeOf<MapProgress>()
    new Flow<{ sku: string; count: number }[]>({ slug: 'f' }).flowMap({ slug: 'a', flow: Line })
  })

  test('gets items that its flow takes', () => {
    // @ts-expect-error 'run.first' is an object
    Order.flowMap({ slug: 'a', flow: Line, items: 'run.first' })
    // @ts-expect-error 'run' is an object
    Order.flowMap({ slug: 'a', flow: Line })
    const flow = new Flow<{ names: string[]; odd: { sku: number }[] }>({ slug: 'f' })
    // @ts-expect-error an item is a string
    flow.flowMap({ slug: 'a', flow: Line, items: 'run.names' })
    // @ts-expect-error an item has no count
    flow.flowMap({ slug: 'a', flow: Line, items: 'run.odd' })
    // @ts-expect-error a map has items
    Order.flowMap({ slug: 'a', flow: Line, input: 'run.lines' })
    // @ts-expect-error failed items are tolerated with 'collect' only
    Order.flowMap({ slug: 'a', flow: Line, items: 'run.lines', tolerate: 1 })
  })
})
