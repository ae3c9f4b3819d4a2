import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { definitionOf, Flow, shapeOf, toMermaid } from './index.ts'

const Agent = new Flow<{ goal: string; n: number }>({ slug: 'agent', startDelay: 5 })
  .step('plan', () => ({ tasks: ['a'] }))
  .loop({ slug: 'by_dep', dependsOn: ['plan'], until: { tasks: [] }, max: 25 }, (state) => state)
  .loop({ slug: 'by_path', start: 'plan.tasks', whenExceeded: 'complete', startDelay: 0 }, (tasks) => tasks)
  .loop({ slug: 'by_run', start: 'run.n', until: 3, whenExceeded: 'fail', output: z.number() }, (n) => n + 1)

describe('Loops', () => {
  it('are defined as the database knows them', () => {
    const until = { tasks: [] as string[] }
    expect(definitionOf(Agent).steps.slice(1)).toEqual([
      {
        ...{ step_slug: 'by_dep', deps_slugs: ['plan'], step_type: 'loop', map_source: 'plan' },
        ...{ loop_until: until, loop_max: 25, start_delay: 5 },
      },
      {
        ...{
          step_slug: 'by_path',
          deps_slugs: ['plan'],
          step_type: 'loop',
          map_source: 'plan',
          map_path: 'tasks',
        },
        ...{ when_exceeded: 'complete', start_delay: 0 },
      },
      {
        ...{ step_slug: 'by_run', deps_slugs: [], step_type: 'loop', map_source: 'run', map_path: 'n' },
        ...{ loop_until: 3, start_delay: 5, output_schema: expect.objectContaining({ type: 'number' }) },
      },
    ])
    const flow = new Flow<{ tasks: string[] }>({ slug: 'f' }).loop({ slug: 'a', until }, () => until)
    const { until: kept } = flow.steps.get('a')!.options
    until.tasks.push('x')
    expect(kept).toEqual({ tasks: [] })
  })

  it('may change how many turns they take without a new version', () => {
    const of = (options: { until: number; max?: number; whenExceeded?: 'complete' }) =>
      shapeOf(new Flow<number>({ slug: 'f' }).loop({ slug: 'a', ...options }, (n) => n))
    expect(of({ until: 1, max: 3 })).toEqual(of({ until: 1 }))
    expect(of({ until: 2 })).not.toEqual(of({ until: 1 }))
    expect(of({ until: 1, whenExceeded: 'complete' })).not.toEqual(of({ until: 1 }))
  })

  it('are pictured as what they are', () => {
    expect(toMermaid(Agent)).toContain('  s_by_dep[/"by_dep"\\]\n')
  })

  const flow = new Flow({ slug: 'f' }).step('a', () => 1).step('b', () => 1) as never as {
    loop(step: object, handler?: unknown): unknown
  }

  it.each([
    [
      { until: 1, dependsOn: ['a', 'b'] },
      /loop step 'l' has several deps: name the one with its first state in start/,
    ],
    [{ until: 1, start: 'a..b' }, /start of step 'l' is 'a\.\.b': make it a path like 'plan\.tasks'/],
    [{ until: 1, start: 'c.d' }, /depends on 'c', but before it the flow has a, b/],
    [{}, /loop step 'l' does not say when it ends: give it until, such as until: \{ done: true \}, or when/],
    [{ until: null }, /until of step 'l' is null: make it JSON other than null/],
    [{ until: 1n }, /until of step 'l' is 1: make it JSON/],
    [{ until: 1, max: 0 }, /max of step 'l' is 0: make it a whole number from 1 to 10,000/],
    [{ until: 1, max: 10_001 }, /max of step 'l' is 10001/],
    [{ until: 1, whenExceeded: 'skip' }, /whenExceeded of step 'l' is 'skip': make it one of fail, complete/],
    [{ until: 1, batch: { size: 2 } }, /has no option 'batch'/],
    [{ until: 1, items: 'a' }, /has no option 'items'/],
  ])('refuse %o', (options, reason) => {
    expect(() => flow.loop({ slug: 'l', ...options }, () => 1)).toThrow(reason)
  })

  it('need a handler', () => {
    expect(() => flow.loop({ slug: 'l', until: 1 })).toThrow(/handler of step 'l' is undefined/)
  })
})
