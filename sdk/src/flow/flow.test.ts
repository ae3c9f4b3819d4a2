import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { Flow, FlowDefinitionError, type FlowDefinitionErrorCode, type, versionedSlug } from './index.ts'

// as a JavaScript user sees it: the wrong programs below do not compile otherwise
const Untyped = Flow as unknown as new (options: unknown) => any
const start = () => new Untyped({ slug: 'flow' }).step('a', () => 1)
const scheduled = (...schedules: object[]) => {
  return new Untyped({
    slug: 'f',
    schedules: schedules.map((one) => ({ slug: 's', cron: '@daily', ...one })),
  })
}

function errorOf(define: () => unknown): FlowDefinitionError {
  try {
    define()
  } catch (error) {
    expect(error).toBeInstanceOf(FlowDefinitionError)
    return error as FlowDefinitionError
  }
  throw new Error('the definition was accepted')
}

describe('a flow', () => {
  it('keeps its steps in order, with what each was given', () => {
    const read = () => 'text'
    const count = ({ read }: { read: string }) => read.length
    const flow = new Flow<string>({ slug: 'flow', maxAttempts: 2, startRole: 'anon' })
      .step({ slug: 'read', timeout: 5, startDelay: 0 }, read)
      .step('count', ['read'], count, { baseDelay: 0 })
      .step('last', () => null)
    expect(flow.slug).toBe('flow')
    expect(flow.options).toEqual({ maxAttempts: 2, startRole: 'anon' })
    expect([...flow.steps.keys()]).toEqual(['read', 'count', 'last'])
    expect(flow.steps.get('read')).toEqual({
      slug: 'read',
      type: 'single',
      deps: [],
      options: { timeout: 5, startDelay: 0 },
      handler: read,
    })
    expect(flow.steps.get('count')).toMatchObject({
      deps: ['read'],
      options: { baseDelay: 0 },
      handler: count,
    })
    expect(flow.steps.get('last')).toMatchObject({ deps: [], options: {} })
  })

  it('is the same in either form', () => {
    const handler = () => 1
    const flow = new Flow({ slug: 'flow' }).step('a', handler)
    const object = flow.step({ slug: 'b', dependsOn: ['a'], timeout: 9 }, handler)
    const positional = flow.step('b', ['a'], handler, { timeout: 9 })
    expect(object.steps).toEqual(positional.steps)
    const root = flow.step({ slug: 'c', timeout: 9, whenExhausted: 'skip' }, handler)
    expect(flow.step('c', handler, { timeout: 9, whenExhausted: 'skip' }).steps).toEqual(root.steps)
  })

  it('keeps its schemas, and those of its steps', () => {
    const [a, b, c] = [z.object({ url: z.string() }), z.unknown(), z.number()]
    const flow = new Flow({ slug: 'flow', input: a })
      .step({ slug: 'one', input: b, output: c }, () => 1)
      .step('two', ['one'], () => 1, { output: c })
      .step('three', () => 1)
    expect(flow.inputSchema).toBe(a)
    expect(flow.steps.get('one')).toMatchObject({ inputSchema: b, outputSchema: c, options: {} })
    expect(flow.steps.get('two')).toMatchObject({ outputSchema: c, options: {} })
    expect(flow.steps.get('three')).not.toHaveProperty('inputSchema')
    expect(new Flow({ slug: 'flow' })).not.toHaveProperty('inputSchema')
  })

  it('is the same after its types were named', () => {
    const flow = new Flow({ slug: 'flow', timeout: 5 })
    expect(flow.input<{ name: string }>().resources<{ db: string }>()).toBe(flow)
    const schema = new Flow({ slug: 'flow', input: z.string() })
    expect(errorOf(() => schema.input<string>())).toMatchObject({
      code: 'invalid_option',
      message: expect.stringMatching(/has a schema of its input/),
    })
  })

  it('keeps nothing of the type of the progress', () => {
    const flow = new Flow({ slug: 'flow' })
      .step({ slug: 'a', progress: type<string>() }, () => [1])
      .step('b', () => 1, { progress: type<string>(), timeout: 5 })
      .map({ slug: 'c', items: 'a', progress: type<string>() }, () => 1)
    expect([...flow.steps.values()].map(({ options }) => options)).toEqual([{}, { timeout: 5 }, {}])
  })

  it('has a slug of its own for each version, and one alias', () => {
    const second = new Flow({ slug: 'flow', version: 2 }).step('a', () => 1).step('b', () => 2)
    expect(second).toMatchObject({ slug: 'flow_v2', alias: 'flow', options: { version: 2 } })
    for (const first of [new Flow({ slug: 'flow', version: 1 }), new Flow({ slug: 'flow' })]) {
      expect(first).toMatchObject({ slug: 'flow', alias: 'flow' })
    }
    expect(versionedSlug('flow', 12)).toBe('flow_v12')
  })

  it('never changes', () => {
    const first = new Flow({ slug: 'flow' }).step('a', () => 1)
    const options = { timeout: 5, runIf: { run: { tags: ['x'] } } }
    const deps: 'a'[] = ['a']
    const one = first.step('b', deps, () => 2, options)
    const other = first.step('c', () => 3)
    options.timeout = 6
    options.runIf.run.tags.pop()
    deps.pop()
    expect([...first.steps.keys()]).toEqual(['a'])
    expect([...one.steps.keys()]).toEqual(['a', 'b'])
    expect([...other.steps.keys()]).toEqual(['a', 'c'])
    expect(one.steps.get('b')).toMatchObject({
      deps: ['a'],
      options: { timeout: 5, runIf: { run: { tags: ['x'] } } },
    })
    for (const part of [
      one.options,
      one.steps.get('b'),
      one.steps.get('b')?.deps,
      one.steps.get('b')?.options,
    ]) {
      expect(Object.isFrozen(part)).toBe(true)
    }
  })

  it('may have steps named like properties of every object', () => {
    const flow = new Flow({ slug: 'constructor' })
      .step('toString', () => 1)
      .step('__proto__', ['toString'], () => 2)
    expect([...flow.steps.keys()]).toEqual(['toString', '__proto__'])
  })
})

describe('a map', () => {
  const flow = new Flow<{ urls: string[] }>({ slug: 'flow' })
    .step('toc', () => ({ deep: { urls: ['a'] } }))
    .step('list', () => [1])

  it('goes over what items names, and waits for the step that has it', () => {
    const maps = flow
      .map({ slug: 'a', items: 'run.urls' }, (url) => url)
      .map({ slug: 'b', items: 'toc.deep.urls', timeout: 5 }, (url) => url)
      .map({ slug: 'c', items: 'list', dependsOn: ['toc', 'list'] }, (item) => item)
      .map({ slug: 'd', items: 'list', dependsOn: ['toc'] }, (item) => item)
    expect(maps.steps.get('a')).toMatchObject({
      type: 'map',
      deps: [],
      items: { source: 'run', path: 'urls' },
    })
    expect(maps.steps.get('b')).toMatchObject({
      deps: ['toc'],
      items: { source: 'toc', path: 'deep.urls' },
      options: { timeout: 5 },
    })
    expect(maps.steps.get('c')).toMatchObject({ deps: ['toc', 'list'], items: { source: 'list' } })
    expect(maps.steps.get('d')).toMatchObject({ deps: ['toc', 'list'], items: { source: 'list' } })
    expect(flow.steps.size).toBe(2)
  })

  it("goes over its only dep, or over the run's input", () => {
    const overDep = flow.map({ slug: 'a', dependsOn: ['list'] }, (item) => item)
    expect(overDep.steps.get('a')).toMatchObject({ deps: ['list'], items: { source: 'list' } })
    const overRun = new Flow<string[]>({ slug: 'flow' }).map({ slug: 'a' }, (item) => item)
    expect(overRun.steps.get('a')).toMatchObject({ deps: [], items: { source: 'run' } })
    expect(overRun.steps.get('a')?.items).not.toHaveProperty('path')
  })
})

describe('slugs', () => {
  it.each(['a', '_', '_1', 'A9_z', 'Run', 'x'.repeat(128)])('%s is one', (slug) => {
    expect(new Untyped({ slug }).step(slug, () => 1).steps.has(slug)).toBe(true)
  })

  it.each<[unknown, RegExp]>([
    ['', /use letters/],
    ['run', /input of a run/],
    ['1a', /no digit at the start/],
    ['a-b', /use letters/],
    ['a b', /use letters/],
    ['a\n', /use letters/],
    ['é', /use letters/],
    ["a'; drop table x; --", /use letters/],
    ['x'.repeat(129), /129 characters/],
    [undefined, /a slug is a string/],
    [null, /a slug is a string/],
    [7, /a slug is a string/],
    [['a'], /a slug is a string/],
  ])('%j is none', (slug, reason) => {
    for (const define of [
      () => new Untyped({ slug }),
      () => start().step({ slug }, () => 1),
      () => start().step(slug, ['a'], () => 1),
    ]) {
      expect(errorOf(define)).toMatchObject({ code: 'invalid_slug', message: expect.stringMatching(reason) })
    }
  })
})

describe('a wrong definition', () => {
  it.each<[FlowDefinitionErrorCode, () => unknown, RegExp]>([
    [
      'duplicate_step',
      () => start().step('a', () => 1),
      /already has a step 'a': give this one another slug/,
    ],
    ['unknown_dep', () => start().step('b', ['x', 'a'], () => 1), /depends on 'x', .* has a: define/],
    ['unknown_dep', () => start().step('b', ['b'], () => 1), /depends on 'b'/],
    ['unknown_dep', () => start().step({ slug: 'b', dependsOn: ['run'] }, () => 1), /depends on 'run'/],
    ['unknown_dep', () => start().step('b', [undefined], () => 1), /depends on undefined/],
    ['unknown_dep', () => new Untyped({ slug: 'f' }).step('b', ['a'], () => 1), /has no step/],
    ['duplicate_dep', () => start().step('b', ['a', 'a'], () => 1), /'a' twice/],
    ['invalid_handler', () => start().step('b'), /handler of step 'b' is undefined: give it a function/],
    ['invalid_handler', () => start().step('b', ['a'], { timeout: 1 }), /is an object/],
    ['invalid_handler', () => start().step({ slug: 'b' }, 'x'), /is 'x'/],
    [
      'invalid_option',
      () => start().step({ slug: 'b', dependsOn: 'a' }, () => 1),
      /dependsOn .* an array of slugs/,
    ],
    ['invalid_option', () => start().step('b', 'a', () => 1), /dependsOn .* an array of slugs/],
    ['invalid_option', () => start().step('b', () => 1, { timeOut: 1 }), /no option 'timeOut'/],
    [
      'invalid_option',
      () => start().step({ slug: 'b' }, () => 1, { timeout: 1 }),
      /options after its handler: give them in the object/,
    ],
    [
      'invalid_option',
      () => start().step({ slug: 'b', maxAttempt: 1 }, () => 1),
      /no option 'maxAttempt': .*maxAttempts/,
    ],
    [
      'invalid_option',
      () => start().step({ slug: 'b', startRole: 'anon' }, () => 1),
      /no option 'startRole'/,
    ],
    ['invalid_option', () => start().step({ slug: 'b', toString: 1 }, () => 1), /no option 'toString'/],
    ['invalid_option', () => new Untyped({ slug: 'f', runIf: {} }), /flow 'f' has no option 'runIf'/],
    [
      'invalid_option',
      () => new Untyped({ slug: 'f', startRole: 'admin' }),
      /one of service_role, authenticated, anon/,
    ],
    [
      'invalid_option',
      () => new Untyped({ slug: 'f', broadcast: true }),
      /is true: .*watched, always, never/,
    ],
    ['invalid_slug', () => new Untyped({ slug: 'f'.repeat(126), version: 2 }), /129 characters/],
    ['invalid_option', () => new Untyped({ slug: 'f', schedulable: 1 }), /schedulable .* true or false/],
    ['invalid_option', () => new Untyped({ slug: 'f', schedules: {} }), /schedules .* an array of schedules/],
    ['invalid_slug', () => scheduled({ slug: 'a-b' }), /'a-b' cannot be the slug of a schedule/],
    ['invalid_option', () => scheduled({}, {}), /flow 'f' already has a schedule 's'/],
    ['invalid_option', () => scheduled({ cron: undefined }), /cron of schedule 's' of flow 'f' is ''/],
    ['invalid_option', () => scheduled({ cron: '* * * *' }), /is '\* \* \* \*': .* with five fields/],
    ['invalid_option', () => scheduled({ timeZone: 'Mars/Base' }), /timeZone .* the name of a time zone/],
    ['invalid_option', () => scheduled({ spread: '2d' }), /spread .* a day at most/],
    ['invalid_option', () => scheduled({ catchUpWindow: 0.5 }), /catchUpWindow .* whole seconds/],
    ['invalid_option', () => scheduled({ overlap: 'wait' }), /one of skip, allow, cancel/],
    ['invalid_option', () => scheduled({ input: () => 1 }), /input of schedule 's' .* JSON/],
    ['invalid_option', () => scheduled({ timezone: 'UTC' }), /no option 'timezone': .*timeZone/],
    ['invalid_option', () => new Untyped({ slug: 'f', version: 0 }), /version .* a whole number, 1 or more/],
    ['invalid_option', () => new Untyped({ slug: 'f', input: {} }), /input of flow 'f' .* Standard Schema/],
    [
      'invalid_option',
      () => start().step({ slug: 'b', output: 1 }, () => 1),
      /output of step 'b' is 1: .*Schema/,
    ],
    [
      'invalid_option',
      () => start().step({ slug: 'b', runIf: [1] }, () => 1),
      /runIf of step 'b' .* a part of \{ run: …/,
    ],
    ['invalid_option', () => start().step({ slug: 'b', runUnless: { a: 1n } }, () => 1), /of JSON values/],
    [
      'invalid_option',
      () => start().step({ slug: 'b', whenUnmet: 'stop' }, () => 1),
      /is 'stop': make it one of fail, skip, skip-cascade/,
    ],
    ['invalid_option', () => start().step({ slug: 'b', items: 'a' }, () => 1), /no option 'items'/],
    ['unknown_dep', () => start().map({ slug: 'b', items: 'x.y' }, () => 1), /depends on 'x'/],
    [
      'invalid_option',
      () => start().map({ slug: 'b', items: 'a..y' }, () => 1),
      /items of step 'b' is 'a..y': make it a path/,
    ],
    [
      'invalid_option',
      () =>
        start()
          .step('b', () => 1)
          .map({ slug: 'c', dependsOn: ['a', 'b'] }, () => 1),
      /step 'c' has several deps: name the one/,
    ],
    ...(
      [
        [{ priority: 'urgent' }, /one of high, normal, low/],
        [{ deadline: '0s' }, /deadline of flow 'f' .* whole seconds, 1 or more/],
        [{ singleton: 'run.x' }, /singleton of flow 'f' is 'run.x': make it an object/],
        [
          { singleton: { whenBusy: 'queue' } },
          /whenBusy of singleton of flow 'f' .* return, reject, replace, after/,
        ],
        [{ singleton: { wait: 1 } }, /singleton of flow 'f' has wait: give it whenBusy: 'after'/],
        [{ singleton: { key: 'a.x' } }, /key of singleton of flow 'f' is 'a.x': begin it with run/],
        [{ limits: [1] }, /limits of flow 'f' .* an array of limits/],
        [{ limits: [{}] }, /limit 1 of flow 'f' has neither running nor rate/],
        [{ limits: [{ running: 0 }] }, /running of limit 1 of flow 'f' is 0/],
        [{ limits: [{ rate: [1, 0.5] }] }, /rate of limit 1 .* \[3000, '1m'\]/],
        [{ limits: [{ running: 1, by: 'a.x' }] }, /by of limit 1 of flow 'f' is 'a.x': begin it with run/],
        [{ limits: [{ running: 1, name: 'a:b' }] }, /name of limit 'a:b' .* without a colon/],
        [{ limits: Array(2).fill({ running: 1, name: 'x' }) }, /the limit 'x' of flow 'f' twice/],
        [{ limits: Array(4).fill({ running: 1 }) }, /has 4 limits, .* three at most/],
      ] as const
    ).map(([options, message]): [FlowDefinitionErrorCode, () => unknown, RegExp] => [
      'invalid_option',
      () => new Untyped({ slug: 'f', ...options }),
      message,
    ]),
    ...(
      [
        [{ concurrency: 0 }, /concurrency of step 'b' is 0/],
        [{ deadline: '367d' }, /deadline of step 'b' .* a year at most/],
        [{ whenItemFails: 'skip' }, /whenItemFails .* one of fail, collect/],
        [{ tolerate: 1 }, /step 'b' has tolerate, .* whenItemFails: 'collect'/],
        [{ whenItemFails: 'collect', tolerate: '101%' }, /tolerate .* a share of at most 100%/],
        [
          { limits: [{ running: 1, by: 'ab.x' }] },
          /by of limit 1 of step 'b' is 'ab.x': begin it with run, a/,
        ],
        [{ concurrency: 1, limits: Array(3).fill({ running: 1 }) }, /step 'b' has 4 limits/],
      ] as const
    ).map(([options, message]): [FlowDefinitionErrorCode, () => unknown, RegExp] => [
      'invalid_option',
      () => start().map({ slug: 'b', items: 'a', ...options }, () => 1),
      message,
    ]),
    ['invalid_option', () => start().step({ slug: 'b', concurrency: 1 }, () => 1), /no option 'concurrency'/],
    ['invalid_option', () => start().wait({ slug: 'b', limits: [] }), /no option 'limits'/],
  ])('%s: %s', (code, define, message) => {
    expect(errorOf(define)).toMatchObject({ code, message: expect.stringMatching(message) })
  })
})

describe('numbers', () => {
  const define = (name: string, value: unknown) => start().step({ slug: 'b', [name]: value }, () => 1)
  const none = [2_147_483_648, Number.NaN, Number.POSITIVE_INFINITY, '3', null, 3n, true]

  it.each<[string, number]>([
    ['timeout', 1],
    ['startDelay', 0],
  ])('%s is a duration of whole seconds, %d or more, a year at most', (name, least) => {
    for (const value of [least, least + 1, '5m', '1.5h', '366d', undefined]) {
      expect(define(name, value).steps.get('b').options[name]).toBe(value)
    }
    for (const value of [least - 1, 1.5, '500ms', '367d', '5 m', 'soon', ...none]) {
      expect(errorOf(() => define(name, value)).code).toBe('invalid_option')
    }
  })

  it('maxAttempts is a whole number, 1 or more', () => {
    for (const value of [1, 2, 2_147_483_647, undefined]) {
      expect(define('maxAttempts', value).steps.get('b').options.maxAttempts).toBe(value)
    }
    for (const value of [0, 1.5, '5m', ...none]) {
      expect(errorOf(() => define('maxAttempts', value)).code).toBe('invalid_option')
    }
  })

  it('baseDelay is a duration, fractions of seconds included', () => {
    for (const value of [0, 0.25, 5, '250ms', '1h', undefined]) {
      expect(define('baseDelay', value).steps.get('b').options.baseDelay).toBe(value)
    }
    for (const value of [-0.1, '-1s', '367d', ...none]) {
      expect(errorOf(() => define('baseDelay', value)).code).toBe('invalid_option')
    }
  })

  it.each(['maxAttempts', 'baseDelay', 'timeout'])('%s is an option of the flow too', (name) => {
    expect(errorOf(() => new Untyped({ slug: 'f', [name]: -1 })).message).toMatch(
      new RegExp(`^The option ${name} of flow 'f' is -1: make it .*number`),
    )
  })
})
