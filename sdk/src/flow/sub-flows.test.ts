import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type AnyFlow, definitionOf, Flow, relatedFlows, shapeOf, toMermaid, type } from './index.ts'

const Line = new Flow({ slug: 'line', version: 2 }).input<{ sku: string }>().step('price', () => 1)

const Order = new Flow({ slug: 'order', startDelay: 5, timeout: 9 })
  .input<{ lines: { sku: string }[]; first: { sku: string } }>()
  .flow({ slug: 'first', flow: Line, input: 'run.first' })
  .flowMap({
    ...{ slug: 'lines', flow: Line, items: 'run.lines', concurrency: 2, startDelay: 0 },
    ...({
      whenItemFails: 'collect',
      tolerate: '5%',
      whenParentEnds: 'leave',
      whenExhausted: 'skip',
    } as const),
  })
  .flow({ slug: 'sum', flow: 'sums', dependsOn: ['lines'], output: z.object({ total: z.number() }) })

describe('sub-flows', () => {
  it('are defined as the database knows them', () => {
    expect(definitionOf(Order).steps).toEqual([
      {
        ...{ step_slug: 'first', deps_slugs: [], child_flow: 'line', start_delay: 5 },
        ...{ map_source: 'run', map_path: 'first' },
      },
      {
        ...{ step_slug: 'lines', deps_slugs: [], step_type: 'map', map_source: 'run', map_path: 'lines' },
        ...{ child_flow: 'line', when_parent_ends: 'leave', start_delay: 0, when_exhausted: 'skip' },
        ...{ concurrency: 2, when_item_fails: 'collect', tolerate_share: 0.05 },
      },
      {
        ...{
          step_slug: 'sum',
          deps_slugs: ['lines'],
          child_flow: 'sums',
          map_source: 'lines',
          start_delay: 5,
        },
        output_schema: expect.objectContaining({ required: ['total'] }),
      },
    ])
  })

  it('may change what happens when their parent ends without a new version, but not their flow', () => {
    const other = (flow: string, whenParentEnds: 'cancel' | 'leave') =>
      shapeOf(new Flow({ slug: 'f' }).flow({ slug: 'a', flow, whenParentEnds, output: type<number>() }))
    expect(other('x', 'leave')).toEqual(other('x', 'cancel'))
    expect(other('y', 'cancel')).not.toEqual(other('x', 'cancel'))
  })

  it('are pictured with their flows', () => {
    expect(toMermaid(Order).split('\n').slice(1, 5)).toEqual([
      '  s_first{{"first → line"}}',
      '  s_lines[["lines → line"]]',
      '  s_sum{{"sum → sums"}}',
      '  s_lines --> s_sum',
    ])
  })

  const flow = new Flow({ slug: 'f' }).step('a', () => 1).step('b', () => 1) as never as {
    flow(step: object): unknown
    flowMap(step: object): unknown
  }
  const Single = new Flow({ slug: 'single', singleton: {} }).step('a', () => 1)

  it.each([
    [{}, /flow of step 's' is undefined: make it a flow, or the slug of one/],
    [{ flow: 'a-b' }, /flow of step 's' is 'a-b': make it a flow/],
    [{ flow: () => 1 }, /make it a flow, or the slug of one/],
    [{ flow: Single }, /starts the flow 'single', which has a singleton/],
    [{ flow: 'x', dependsOn: ['a', 'b'] }, /sub-flow step 's' has several deps: name the one with its input/],
    [{ flow: 'x', input: 'c.y' }, /depends on 'c'/],
    [{ flow: 'x', input: 'a..y' }, /input of step 's' is 'a\.\.y': make it a path/],
    [{ flow: 'x', items: 'run.y' }, /has no option 'items': the options are runIf/],
    [{ flow: 'x', timeout: 1 }, /has no option 'timeout'/],
    [{ flow: 'x', concurrency: 1 }, /has no option 'concurrency'/],
    [
      { flow: 'x', whenParentEnds: 'fail' },
      /whenParentEnds of step 's' is 'fail': make it one of cancel, leave/,
    ],
  ])('refuse %o', (options, reason) => {
    expect(() => flow.flow({ slug: 's', ...options })).toThrow(reason)
  })

  it.each([
    [{ flow: 'x', input: 'run' }, /has no option 'input'/],
    [{ flow: 'x', tolerate: 1 }, /has tolerate, but fails with its first failed item/],
    [{ flow: 'x', maxAttempts: 1 }, /has no option 'maxAttempts'/],
    [
      { flow: 'x', limits: [{ by: 'c.x', running: 1 }] },
      /by of limit 1 of step 's' is 'c\.x': begin it with run/,
    ],
  ])('in maps refuse %o', (options, reason) => {
    expect(() => flow.flowMap({ slug: 's', ...options })).toThrow(reason)
  })
})

describe('related flows', () => {
  const slugs = (flows: readonly AnyFlow[]) => relatedFlows(flows).map(({ slug }) => slug)
  const Middle = new Flow<{ sku: string }>({ slug: 'middle' }).flow({ slug: 'a', flow: Line })
  const Top = new Flow<{ sku: string }>({ slug: 'top' })
    .flow({ slug: 'a', flow: Middle })
    .flow({ slug: 'b', flow: Line, input: 'run' })
    .flow({ slug: 'c', flow: 'top', input: 'run' })

  it('are those that steps have as values, children first, each once', () => {
    expect(slugs([Top, Middle, Line])).toEqual(['line_v2', 'middle', 'top'])
    expect(slugs([Line])).toEqual(['line_v2'])
    const Elsewhere = new Flow({ slug: 'elsewhere' }).flow({ slug: 'a', flow: 'line' })
    expect(slugs([Elsewhere, Line])).toEqual(['line_v2', 'elsewhere'])
  })

  it('are refused where two have one slug', () => {
    const Other = new Flow({ slug: 'middle' }).step('a', () => 1)
    expect(() => relatedFlows([Top, Other])).toThrow(
      expect.objectContaining({
        code: 'duplicate_flow',
        message: expect.stringContaining("two different flows 'middle'"),
      }),
    )
  })
})
