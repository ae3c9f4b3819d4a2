import { describe, expect, it } from 'vitest'
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
      "select pgflow.create_flow(flow_slug => 'everything', max_attempts => 5, base_delay => 0, timeout => 30, start_role => 'authenticated', broadcast => 'always');
      select pgflow.add_step(flow_slug => 'everything', step_slug => 'z', max_attempts => 1, base_delay => 2, timeout => 3, start_delay => 4);
      select pgflow.add_step(flow_slug => 'everything', step_slug => 'b');
      select pgflow.add_step(flow_slug => 'everything', step_slug => 'a', deps_slugs => array['z', 'b']::text[], timeout => 7);
      "
    `)
  })

  it('says what maps and conditions are', () => {
    const flow = new Flow<{ urls: string[]; note: string }>({ slug: 'f', startDelay: 9 })
      .map({ slug: 'pages', items: 'run.urls', whenExhausted: 'skip', startDelay: 0 }, (url) => url)
      .step({ slug: 'note', runIf: { run: { note: "it's" } }, whenUnmet: 'skip' }, ({ run }) => run.note)
      .map({ slug: 'sizes', dependsOn: ['pages'], runUnless: { pages: ['x'] } }, (page) => page.length)
    expect(compile(flow)).toMatchInlineSnapshot(`
      "select pgflow.create_flow(flow_slug => 'f');
      select pgflow.add_step(flow_slug => 'f', step_slug => 'pages', start_delay => 0, step_type => 'map', map_source => 'run', map_path => 'urls', when_exhausted => 'skip');
      select pgflow.add_step(flow_slug => 'f', step_slug => 'note', start_delay => 9, run_if => '{"run":{"note":"it''s"}}'::jsonb, when_unmet => 'skip');
      select pgflow.add_step(flow_slug => 'f', step_slug => 'sizes', deps_slugs => array['pages']::text[], start_delay => 9, step_type => 'map', map_source => 'pages', run_unless => '{"pages":["x"]}'::jsonb);
      "
    `)
  })

  it('leaves every default to the database', () => {
    expect(compile(new Flow({ slug: 'plain' }).step('only', () => 1))).toMatchInlineSnapshot(`
      "select pgflow.create_flow(flow_slug => 'plain');
      select pgflow.add_step(flow_slug => 'plain', step_slug => 'only');
      "
    `)
  })

  it('gives the same text each time', () => {
    expect(compile(Everything)).toBe(compile(Everything))
  })

  it('leaves out options that are undefined', () => {
    const options = JSON.parse('{}')
    const flow = new Flow({ slug: 'f', timeout: options.none, broadcast: options.none })
    expect(compile(flow)).toBe("select pgflow.create_flow(flow_slug => 'f');\n")
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

describe('a version', () => {
  it('has its own slug, and names the flow', () => {
    const flow = new Flow({ slug: 'f', version: 2 }).step('a', () => 1)
    expect(definitionOf(flow)).toMatchObject({ flow_slug: 'f_v2', alias: 'f', version: 2 })
    expect(shapeOf(flow).slug).toBe('f_v2')
  })
})

describe('shapeOf', () => {
  it('has the steps and deps in a canonical order, without options', () => {
    expect(shapeOf(Everything)).toEqual({
      slug: 'everything',
      steps: [
        { slug: 'a', type: 'single', deps: ['b', 'z'] },
        { slug: 'b', type: 'single', deps: [] },
        { slug: 'z', type: 'single', deps: [] },
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
