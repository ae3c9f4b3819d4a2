import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { compile, definitionOf, Flow, shapeOf } from './index.ts'

const Everything = new Flow<{ path: string }>({
  slug: 'everything',
  maxAttempts: 5,
  baseDelay: 0,
  timeout: 30,
  startRole: 'authenticated',
  broadcast: 'always',
})
  .step({ slug: 'z', maxAttempts: 1, baseDelay: 2, timeout: 3, startDelay: 4 }, () => 1)
  .step('b', () => 2)
  .step('a', ['z', 'b'], () => 3, { timeout: 7 })

describe('compile', () => {
  it('names what was given and nothing else, in the order of definition', () => {
    expect(compile(Everything)).toMatchInlineSnapshot(`
      "select pgflow.register_flow('{
        "flow_slug": "everything",
        "max_attempts": 5,
        "base_delay": 0,
        "timeout": 30,
        "start_role": "authenticated",
        "broadcast": "always",
        "steps": [
          {"step_slug":"z","deps_slugs":[],"max_attempts":1,"base_delay":2,"timeout":3,"start_delay":4},
          {"step_slug":"b","deps_slugs":[]},
          {"step_slug":"a","deps_slugs":["z","b"],"timeout":7}
        ]
      }');
      "
    `)
  })

  it('says what maps and conditions are', () => {
    const flow = new Flow<{ urls: string[]; note: string }>({ slug: 'f', startDelay: 9 })
      .map({ slug: 'pages', items: 'run.urls', whenExhausted: 'skip', startDelay: 0 }, (url) => url)
      .step({ slug: 'note', runIf: { run: { note: "it's" } }, whenUnmet: 'skip' }, ({ run }) => run.note)
      .map({ slug: 'sizes', dependsOn: ['pages'], runUnless: { pages: ['x'] } }, (page) => page.length)
    expect(compile(flow)).toMatchInlineSnapshot(`
      "select pgflow.register_flow('{
        "flow_slug": "f",
        "steps": [
          {"step_slug":"pages","deps_slugs":[],"step_type":"map","map_source":"run","map_path":"urls","when_exhausted":"skip","start_delay":0},
          {"step_slug":"note","deps_slugs":[],"run_if":{"run":{"note":"it''s"}},"when_unmet":"skip","start_delay":9},
          {"step_slug":"sizes","deps_slugs":["pages"],"step_type":"map","map_source":"pages","run_unless":{"pages":["x"]},"start_delay":9}
        ]
      }');
      "
    `)
  })

  it('declares schedules', () => {
    const flow = new Flow({
      slug: 'f',
      schedulable: true,
      schedules: [
        { slug: 'hours', cron: '@hourly' },
        {
          ...{ slug: 'days', cron: '0 7 * * mon-fri', timeZone: 'Europe/Berlin', input: { at: new Date(0) } },
          ...{ overlap: 'allow', catchUp: 'all', catchUpWindow: '2h', spread: '5m' },
        },
      ],
    }).step('a', () => 1)
    expect(definitionOf(flow)).toMatchObject({
      schedulable: true,
      schedules: [
        { schedule_slug: 'hours', cron: '@hourly' },
        {
          ...{ schedule_slug: 'days', cron: '0 7 * * mon-fri', time_zone: 'Europe/Berlin' },
          ...{ input: { at: '1970-01-01T00:00:00.000Z' } },
          ...{ overlap: 'allow', catch_up: 'all', catch_up_window: 7200, spread: 300 },
        },
      ],
    })
    expect(shapeOf(flow)).toEqual(shapeOf(new Flow({ slug: 'f' }).step('a', () => 1)))
  })

  it('says what limits, deadlines, priorities and singletons are', () => {
    const flow = new Flow<{ tenant: string; urls: string[] }>({
      ...{
        slug: 'f',
        priority: 'low',
        deadline: '2h',
        singleton: { key: 'run.tenant', whenBusy: 'after', wait: '5s' },
      },
      limits: [{ by: 'run.tenant', running: 5 }],
    })
      .map(
        {
          ...{ slug: 'pages', items: 'run.urls', concurrency: 20, whenItemFails: 'collect', tolerate: '5%' },
          ...{ deadline: '1m', limits: [{ name: 'openai', rate: [3000, '1m'] }] },
        },
        (url) => url,
      )
      .map({ slug: 'sizes', items: 'run.urls', whenItemFails: 'collect', tolerate: 10 }, (url) => url.length)
    expect(definitionOf(flow)).toEqual({
      ...{ flow_slug: 'f', priority: 'low', deadline: 7200 },
      ...{ singleton_path: 'run.tenant', singleton_when_busy: 'after', singleton_wait: 5 },
      limits: [{ by_path: 'run.tenant', running: 5 }],
      steps: [
        {
          ...{ step_slug: 'pages', deps_slugs: [], step_type: 'map', map_source: 'run', map_path: 'urls' },
          ...{ concurrency: 20, when_item_fails: 'collect', tolerate_share: 0.05, deadline: 60 },
          limits: [{ limit_slug: 'openai', rate_count: 3000, rate_period: 60 }],
        },
        {
          ...{ step_slug: 'sizes', deps_slugs: [], step_type: 'map', map_source: 'run', map_path: 'urls' },
          ...{ when_item_fails: 'collect', tolerate_count: 10 },
        },
      ],
    })
    expect(definitionOf(new Flow({ slug: 'f', singleton: {} }))).toMatchObject({
      singleton_when_busy: 'return',
    })
    const shape = (whenItemFails: 'fail' | 'collect' | undefined, concurrency: number) =>
      JSON.stringify(
        shapeOf(
          new Flow<string[]>({ slug: 'f', limits: [{ running: concurrency }] }).map(
            { slug: 'a', concurrency, ...(whenItemFails && { whenItemFails }) },
            () => 1,
          ),
        ),
      )
    expect(shape('fail', 1)).toBe(shape(undefined, 2))
    expect(shape('collect', 1)).not.toBe(shape('fail', 1))
  })

  it('gives durations in seconds', () => {
    const flow = new Flow({ slug: 'f', baseDelay: '250ms', timeout: '5m', startDelay: '1d' }).step(
      { slug: 'a', baseDelay: '1.5s', timeout: '2h' },
      () => 1,
    )
    expect(definitionOf(flow)).toMatchObject({
      ...{ base_delay: 0.25, timeout: 300 },
      steps: [{ base_delay: 1.5, timeout: 7200, start_delay: 86_400 }],
    })
  })

  it('leaves every default to the database', () => {
    expect(compile(new Flow({ slug: 'plain' }).step('only', () => 1))).toMatchInlineSnapshot(`
      "select pgflow.register_flow('{
        "flow_slug": "plain",
        "steps": [
          {"step_slug":"only","deps_slugs":[]}
        ]
      }');
      "
    `)
  })

  it('gives the same text each time', () => {
    expect(compile(Everything)).toBe(compile(Everything))
  })

  it('leaves out options that are undefined', () => {
    const options = JSON.parse('{}')
    const flow = new Flow({ slug: 'f', timeout: options.none, broadcast: options.none })
    expect(definitionOf(flow)).toEqual({ flow_slug: 'f', steps: [] })
  })
})

describe('definitionOf', () => {
  it('is the same as a JSON value', () => {
    const definition = definitionOf(Everything)
    expect(definition).toEqual({
      flow_slug: 'everything',
      max_attempts: 5,
      base_delay: 0,
      timeout: 30,
      start_role: 'authenticated',
      broadcast: 'always',
      steps: [
        { step_slug: 'z', deps_slugs: [], max_attempts: 1, base_delay: 2, timeout: 3, start_delay: 4 },
        { step_slug: 'b', deps_slugs: [] },
        { step_slug: 'a', deps_slugs: ['z', 'b'], timeout: 7 },
      ],
    })
    expect(JSON.parse(JSON.stringify(definition))).toEqual(definition)
  })
})

describe('a schema', () => {
  it.each([
    ['zod', z.object({ url: z.string(), depth: z.number().default(1) })],
    ['arktype', type({ url: 'string', depth: 'number = 1' })],
  ])('of %s is part of the definition, as JSON Schema', (_, schema) => {
    const flow = new Flow({ slug: 'f', input: schema })
      .step({ slug: 'a', output: schema }, () => ({ url: '', depth: 2 }))
      .step({ slug: 'b', dependsOn: ['a'], input: z.object({ a: schema }) }, () => 1)
    const { input_schema, steps } = definitionOf(flow)
    const properties = { url: { type: 'string' }, depth: expect.objectContaining({ type: 'number' }) }
    expect(input_schema).toMatchObject({ type: 'object', properties, required: ['url'] })
    expect(steps[0]?.output_schema).toMatchObject({ type: 'object', properties })
    expect(steps[0]?.output_schema).toHaveProperty('required', expect.arrayContaining(['depth', 'url']))
    expect(shapeOf(flow)).toMatchObject({ input_schema, steps })
  })

  it('that has no JSON Schema is left out', () => {
    const flow = new Flow({ slug: 'f', input: v.object({ url: v.string() }) }).step(
      { slug: 'a', output: z.object({ at: z.date() }) },
      () => ({ at: new Date() }),
    )
    expect(definitionOf(flow)).toEqual({ flow_slug: 'f', steps: [{ step_slug: 'a', deps_slugs: [] }] })
  })
})

describe('a version', () => {
  it('has its own slug, and names the flow', () => {
    const flow = new Flow({ slug: 'f', version: 2 }).step('a', () => 1)
    expect(definitionOf(flow)).toMatchObject({ flow_slug: 'f_v2', alias: 'f', version: 2 })
    expect(shapeOf(flow).flow_slug).toBe('f_v2')
  })
})

describe('shapeOf', () => {
  it('has the steps and deps in a canonical order, without options', () => {
    const rest = { step_type: 'single', when_unmet: 'skip-cascade', when_exhausted: 'fail' }
    expect(shapeOf(Everything)).toEqual({
      flow_slug: 'everything',
      steps: [
        { step_slug: 'a', deps_slugs: ['b', 'z'], ...rest },
        { step_slug: 'b', deps_slugs: [], ...rest },
        { step_slug: 'z', deps_slugs: [], ...rest },
      ],
    })
  })

  it('is the same text for the same shape, whatever the order and the options', () => {
    const one = new Flow({ slug: 'f' })
      .step('a', () => 1)
      .step('B', () => 1)
      .step('c', ['a', 'B'], () => 1)
    const other = new Flow({ slug: 'f', timeout: 9 })
      .step('B', () => 2)
      .step({ slug: 'a', timeout: 9 }, () => 2)
      .step('c', ['B', 'a'], () => 2)
    expect(JSON.stringify(shapeOf(one))).toBe(JSON.stringify(shapeOf(other)))
  })

  it('does not tell a default from what is not given, nor the orders of keys', () => {
    const one = new Flow<{ a: number; b: number }>({ slug: 'f' }).step(
      { slug: 's', runIf: { run: { a: 1, b: 2 } }, whenUnmet: 'skip-cascade', whenExhausted: 'fail' },
      () => 1,
    )
    const other = new Flow<{ a: number; b: number }>({ slug: 'f' }).step(
      { slug: 's', runIf: { run: { b: 2, a: 1 } } },
      () => 1,
    )
    expect(JSON.stringify(shapeOf(one))).toBe(JSON.stringify(shapeOf(other)))
  })

  it('differs when a condition or the items of a map differ', () => {
    const flow = new Flow<{ a: number[]; b: number[] }>({ slug: 'f' })
    const step = () => 1
    const flows = [
      flow.step({ slug: 's' }, step),
      flow.map({ slug: 's', items: 'run.a' }, step),
      flow.map({ slug: 's', items: 'run.b' }, step),
      flow.step({ slug: 's', runIf: { run: { a: [1] } } }, step),
      flow.step({ slug: 's', runUnless: { run: { a: [1] } } }, step),
      flow.step({ slug: 's', runIf: { run: { a: [1] } }, whenUnmet: 'skip' }, step),
      flow.step({ slug: 's', whenExhausted: 'skip' }, step),
    ]
    expect(new Set(flows.map((flow) => JSON.stringify(shapeOf(flow)))).size).toBe(flows.length)
  })

  it('differs when a dep differs', () => {
    const flow = new Flow({ slug: 'f' }).step('a', () => 1).step('b', () => 1)
    expect(shapeOf(flow.step('c', ['a'], () => 1))).not.toEqual(shapeOf(flow.step('c', ['b'], () => 1)))
  })
})
