import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import type { Json as DatabaseJson, Tables } from '../client/fixtures/project/database.types.ts'
import { Flow, type InputOf, type OutputOf, type ResourcesOf, type StepInputOf } from './index.ts'

const Zod = new Flow({ slug: 'f', input: z.object({ url: z.string(), depth: z.number().default(1) }) })
  .step({ slug: 'page', output: z.object({ text: z.string(), at: z.coerce.date() }) }, ({ run }) => {
    expectTypeOf(run).toEqualTypeOf<{ url: string; depth: number }>()
    return { text: run.url, at: '2000-01-01' }
  })
  .step('size', ['page'], ({ page }) => page.text.length, { output: z.number() })

const Valibot = new Flow({
  slug: 'f',
  input: v.object({ url: v.string(), depth: v.optional(v.number(), 1) }),
})
  .step({ slug: 'page', output: v.object({ text: v.string(), tags: v.array(v.string()) }) }, ({ run }) => {
    expectTypeOf(run).toEqualTypeOf<{ url: string; depth: number }>()
    return { text: run.url, tags: [] }
  })
  .map({ slug: 'tags', items: 'page.tags', output: v.number() }, (tag) => tag.length)

const Ark = new Flow({ slug: 'f', input: type({ url: 'string', depth: 'number = 1' }) }).step(
  { slug: 'page', output: type({ text: 'string', 'note?': 'string' }) },
  ({ run }) => {
    expectTypeOf(run).toEqualTypeOf<{ url: string; depth: number }>()
    return { text: run.url }
  },
)

describe('a schema of the input', () => {
  test('gives the type of what a run is started with', () => {
    type Input = { url: string; depth?: number | undefined }
    expectTypeOf<InputOf<typeof Zod>>().toEqualTypeOf<Input>()
    expectTypeOf<InputOf<typeof Valibot>>().toEqualTypeOf<Input>()
    expectTypeOf<InputOf<typeof Ark>>().toEqualTypeOf<{ url: string; depth?: number }>()
  })

  test('must be of the type that is given beside it', () => {
    const flow = new Flow<{ url: string }, { key: string }>({ slug: 'f', input: z.object({ url: z.url() }) })
    expectTypeOf<InputOf<typeof flow>>().toEqualTypeOf<{ url: string }>()
    expectTypeOf<ResourcesOf<typeof flow>>().toEqualTypeOf<{ key: string }>()
    // @ts-expect-error this schema makes something else
    new Flow<{ url: string }>({ slug: 'f', input: z.object({ path: z.string() }) })
    // @ts-expect-error this is no schema
    new Flow({ slug: 'f', input: { url: 'string' } })
  })
})

describe('a schema', () => {
  const flow = new Flow<{ at: string }>({ slug: 'f' }).step('page', () => JSON.parse('1'))

  test('takes JSON', () => {
    // @ts-expect-error dates arrive as strings
    new Flow({ slug: 'f', input: z.object({ at: z.date() }) })
    new Flow({ slug: 'f', input: z.object({ at: z.coerce.date(), by: v.string() as any }) })
    new Flow({ slug: 'f', input: z.any() })
    new Flow({ slug: 'f', input: z.json() })
    new Flow({ slug: 'f', input: z.looseObject({ a: z.tuple([z.string(), z.number().optional()]) }) })
    new Flow({ slug: 'f', input: v.pipe(v.string(), v.transform(Number)) })
    new Flow({ slug: 'f', input: type('string | number[]') })
    // @ts-expect-error dates arrive as strings
    flow.step({ slug: 's', dependsOn: ['page'], input: z.object({ page: z.date() }) }, () => 1)
    // @ts-expect-error dates arrive as strings
    flow.step('s', ['page'], () => 1, { input: type({ page: { at: 'Date' } }) })
    // @ts-expect-error dates arrive as strings
    flow.map({ slug: 's', items: 'page.list', input: z.array(z.date()) }, () => 1)
  })

  test('may be recursive', () => {
    interface Tree {
      n: number
      children: Tree[]
    }
    const tree = z.object({
      n: z.number(),
      get children() {
        return z.array(tree)
      },
    })
    const flow = new Flow({ slug: 'f', input: tree }).step({ slug: 'a', output: tree }, ({ run }) => run)
    expectTypeOf<OutputOf<typeof flow>['a']['children'][0]['n']>().toEqualTypeOf<number>()
    const typed: z.ZodType<Tree, Tree> = z.lazy(() => tree)
    new Flow({ slug: 'f', input: typed }).step({ slug: 'a', output: typed }, ({ run }) => run)
    const dated: z.ZodType<Tree & { at: Date }, Tree & { at: Date }> = JSON.parse('0')
    // @ts-expect-error dates arrive as strings
    new Flow({ slug: 'f', input: dated })
  })

  test('takes what the step gets', () => {
    flow.step({ slug: 's', dependsOn: ['page'], input: z.object({ page: z.string() }) }, () => 1)
    flow.step({ slug: 's', input: v.looseObject({ run: v.object({ at: v.string() }) }) }, () => 1)
    flow.step({ slug: 's', input: z.unknown() }, () => 1)
    flow.step({ slug: 's', input: z.object({ note: z.string().optional() }) }, () => 1)
    // @ts-expect-error the step's input never has 'page'
    flow.step({ slug: 's', input: z.object({ page: z.string() }) }, () => 1)
    // @ts-expect-error the step's input never has 'pge'
    flow.step('s', ['page'], () => 1, { input: type({ pge: 'string' }) })
  })

  test('makes JSON', () => {
    flow.step({ slug: 's', output: z.date() }, () => new Date())
    // @ts-expect-error a bigint is not JSON
    flow.step({ slug: 's', output: z.object({ n: z.bigint() }) }, () => ({ n: 1n }))
    const output = z.map(z.string(), z.number())
    // @ts-expect-error JSON keeps nothing of a Map
    flow.step('s', ['page'], () => new Map([['a', 1]]), { output })
  })
})

describe('a schema of an output', () => {
  test('gives what dependents get, as JSON', () => {
    expectTypeOf<OutputOf<typeof Zod>>().toEqualTypeOf<{ size: number }>()
    expectTypeOf<StepInputOf<typeof Zod, 'size'>>().toEqualTypeOf<{
      run: { url: string; depth: number }
      page: { text: string; at: string }
    }>()
    expectTypeOf<OutputOf<typeof Valibot>>().toEqualTypeOf<{ tags: number[] }>()
    expectTypeOf<OutputOf<typeof Ark>>().toEqualTypeOf<{ page: { text: string; note?: string } }>()
  })

  test('says what the handler may return', () => {
    const flow = new Flow<string>({ slug: 'f' })
    const output = z.object({ kind: z.enum(['a', 'b']) })
    flow.step({ slug: 's', output }, async () => ({ kind: 'a' }))
    flow.step('s', [], ({ run }) => ({ kind: run ? 'a' : 'b' }), { output })
    // @ts-expect-error 'c' is none of the kinds
    flow.step({ slug: 's', output }, () => ({ kind: 'c' }))
    // @ts-expect-error a kind is missing
    flow.step('s', [], async () => ({}), { output })
    // @ts-expect-error 'c' is none of the kinds
    flow.map({ slug: 's', items: 'a', output }, () => ({ kind: 'c' }))
  })
})

describe('a schema of what a step gets', () => {
  const flow = new Flow<unknown>({ slug: 'f' }).step('page', () => ({ text: 'a', links: ['b'] }))

  test('gives what its handler gets', () => {
    const input = z.object({ run: z.object({ at: z.coerce.date() }), page: z.object({ text: z.string() }) })
    const next = flow.step({ slug: 's', dependsOn: ['page'], input }, (payload) => {
      expectTypeOf(payload).toEqualTypeOf<{ run: { at: Date }; page: { text: string } }>()
      return payload.run.at
    })
    expectTypeOf<StepInputOf<typeof next, 's'>>().toEqualTypeOf<z.infer<typeof input>>()
    expectTypeOf<OutputOf<typeof next>>().toEqualTypeOf<{ s: string }>()
  })

  test('is of an item in a map', () => {
    const next = flow.map({ slug: 's', items: 'page.links', input: z.string().transform(Number) }, (link) => {
      expectTypeOf(link).toEqualTypeOf<number>()
    })
    expectTypeOf<StepInputOf<typeof next, 's'>>().toEqualTypeOf<number>()
    expectTypeOf<OutputOf<typeof next>>().toEqualTypeOf<{ s: null[] }>()
  })
})
test("a schema of Supabase's Json, or of a row with it, is one", () => {
  const json = z.custom<DatabaseJson>()
  const row = z.custom<Tables<'documents'>>()
  const flow = new Flow({ slug: 'f', input: z.object({ json, row }) })
    .step({ slug: 'a', output: json }, ({ run }) => run.json)
    .step({ slug: 'b', dependsOn: ['a'], input: z.object({ a: json }), output: row }, () => JSON.parse('{}'))
  expectTypeOf<InputOf<typeof flow>>().toEqualTypeOf<{ json: DatabaseJson; row: Tables<'documents'> }>()
  expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ b: Tables<'documents'> }>()
})
