import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { compile, definitionOf, Flow, shapeOf, toMermaid, type } from './index.ts'

const Import = new Flow({ slug: 'import', startDelay: 5 })
  .input<{ id: string }>()
  .sql({ slug: 'read', call: 'public.read_text', output: z.object({ text: z.string().default('') }) })
  .sql({
    ...{ slug: 'saved', call: 'app."saveAll"', dependsOn: ['read'], runUnless: { read: { text: '' } } },
    ...{ maxAttempts: 5, baseDelay: 1, timeout: '5m', startDelay: 0, deadline: '1h', whenExhausted: 'skip' },
    output: type<{ rows: number }>(),
  })

describe('SQL steps', () => {
  it('are defined as the database knows them', () => {
    expect(definitionOf(Import).steps).toEqual([
      {
        ...{
          step_slug: 'read',
          deps_slugs: [],
          step_type: 'sql',
          sql_function: 'public.read_text',
          start_delay: 5,
        },
        output_schema: expect.not.objectContaining({ required: expect.anything() }), // as it is stored
      },
      {
        ...{ step_slug: 'saved', deps_slugs: ['read'], step_type: 'sql', sql_function: 'app."saveAll"' },
        ...{ run_unless: { read: { text: '' } }, when_exhausted: 'skip', max_attempts: 5, base_delay: 1 },
        ...{ timeout: 300, start_delay: 0, deadline: 3600 },
      },
    ])
    expect(compile(Import)).toContain('"sql_function":"app.\\"saveAll\\""')
  })

  it('call another function only in a new version', () => {
    const calling = (call: `public.${string}`, timeout = 60) =>
      shapeOf(new Flow({ slug: 'f' }).sql({ slug: 'a', call, timeout }))
    expect(calling('public.a', 5)).toEqual(calling('public.a', 10))
    expect(calling('public.a')).not.toEqual(calling('public.b'))
  })

  it('are pictured as what they are', () => {
    expect(toMermaid(Import).split('\n').slice(1, 3)).toEqual(['  s_read[("read")]', '  s_saved[("saved")]'])
  })

  const flow = new Flow({ slug: 'f' }) as never as { sql(step: object, handler?: unknown): unknown }

  it.each([
    [{}, /step 's' does not say what it calls: give it the name of a function, such as call/],
    [
      { call: 'save' },
      /call of step 's' is 'save': make it a name with its schema, such as 'public\.save_embeddings'/,
    ],
    [{ call: 'public.save()' }, /is 'public\.save\(\)': make it a name/],
    [{ call: 'public.saveAll' }, /with names that have capitals in quotes/],
    [{ call: 'public.a', limits: [{ running: 1 }] }, /has no option 'limits': the options are maxAttempts/],
    [{ call: 'public.a', batch: { size: 1 } }, /has no option 'batch'/],
  ])('refuse %o', (options, reason) => {
    expect(() => flow.sql({ slug: 's', ...options })).toThrow(reason)
  })
})
