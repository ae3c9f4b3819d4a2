import { describe, expectTypeOf, test } from 'vitest'
import type { Json as DatabaseJson, Tables } from '../client/fixtures/project/database.types.ts'
import { Flow, type Json, type JsonOf, type OutputOf, type StepInputOf, type StepOutputOf } from './index.ts'

type Document = Tables<'documents'>
type Article = Tables<{ schema: 'api' }, 'articles'>

declare const json: DatabaseJson
declare const document: Document

describe("the Json of Supabase's generator", () => {
  test('is kept as it is', () => {
    expectTypeOf<JsonOf<DatabaseJson>>().toEqualTypeOf<DatabaseJson>()
    expectTypeOf<JsonOf<NonNullable<DatabaseJson>>>().toEqualTypeOf<NonNullable<DatabaseJson>>()
    expectTypeOf<JsonOf<DatabaseJson[]>>().toEqualTypeOf<DatabaseJson[]>()
    expectTypeOf<JsonOf<{ a: DatabaseJson; b?: DatabaseJson }>>().toEqualTypeOf<{
      a: DatabaseJson
      b?: DatabaseJson
    }>()
    expectTypeOf<JsonOf<Document>>().toEqualTypeOf<Document>()
    expectTypeOf<JsonOf<DatabaseJson | Date>>().toEqualTypeOf<DatabaseJson>()
  })

  test('may be the input of a flow, and what its handlers return', () => {
    const flow = new Flow<DatabaseJson>({ slug: 'f' })
      .step('same', ({ run }) => run)
      .step('list', ['same'], async ({ run, same }) => [run, same])
      .map({ slug: 'each', items: 'list' }, (item) => item)
      .map({ slug: 'inside', items: 'same.any.path' }, (item) => item)
    expectTypeOf<StepInputOf<typeof flow, 'same'>['run']>().toEqualTypeOf<DatabaseJson>()
    expectTypeOf<OutputOf<typeof flow>['each']>().toEqualTypeOf<DatabaseJson[]>()
  })

  test('may be a part of the input and of payloads', () => {
    const flow = new Flow<{ payload: DatabaseJson; meta?: DatabaseJson; list: DatabaseJson[] }>({ slug: 'f' })
      .step('got', ({ run }) => ({ payload: run.payload, meta: run.meta }))
      .map({ slug: 'items', items: 'run.list' }, (item) => ({ item }))
      .step(
        { slug: 'both', dependsOn: ['got', 'items'], runIf: { got: { payload: { any: ['thing'] } } } },
        ({ got, items }) => ({ ...got, items }),
      )
    expectTypeOf<StepOutputOf<typeof flow, 'both'>>().toEqualTypeOf<{
      payload: DatabaseJson
      meta?: DatabaseJson
      items: { item: DatabaseJson }[]
    }>()
  })
})

describe('a row with jsonb columns', () => {
  test('may be returned, and arrives in dependents', () => {
    new Flow<{ id: number }>({ slug: 'f' })
      .step('document', async () => document)
      .step('documents', () => [document])
      .step('none', async (): Promise<Document | null> => null)
      .step('article', (): Article => JSON.parse('{}'))
      .map({ slug: 'bodies', items: 'documents' }, ({ title, body }) => ({ title, body }))
      .step('all', ['document', 'documents', 'none', 'article', 'bodies'], (payload) => {
        expectTypeOf(payload.document).toEqualTypeOf<Document>()
        expectTypeOf(payload.documents).toEqualTypeOf<Document[]>()
        expectTypeOf(payload.none).toEqualTypeOf<Document | null>()
        expectTypeOf(payload.article).toEqualTypeOf<Article>()
        expectTypeOf(payload.document.tags).toEqualTypeOf<DatabaseJson | null>()
        expectTypeOf(payload.bodies[0]!.title).toEqualTypeOf<string>()
        return payload
      })
  })

  test('may be the input of a flow', () => {
    interface Change {
      type: 'INSERT' | 'UPDATE'
      record: Document
      old_record: Document | null
    }
    const flow = new Flow<Change>({ slug: 'f' })
      .step(
        { slug: 'body', runIf: { run: { type: 'INSERT', record: { title: 'a' } } } },
        ({ run }) => run.record,
      )
      .map({ slug: 'tags', items: 'run.record.body' }, (tag) => tag)
    expectTypeOf<StepOutputOf<typeof flow, 'body'>>().toEqualTypeOf<Document>()
  })
})

describe('a type that refers to itself', () => {
  type Value = string | Date | Value[] | { [key: string]: Value | undefined }
  interface Tree {
    at: Date
    value: DatabaseJson
    parent: Tree | undefined
    children?: Tree[]
    named: Record<string, Tree>
  }
  interface List<T> {
    value: T
    next: List<T> | null
    nested?: List<T[]>
  }
  type Never = bigint | readonly Never[] | { readonly [key: string]: Never }
  const value = {} as Value
  const tree = {} as Tree
  const list = {} as List<DatabaseJson>
  const never = {} as Never

  test('may be an input and an output', () => {
    const flow = new Flow<Value>({ slug: 'f' })
      .step('same', ({ run }) => run)
      .step('values', ['same'], ({ run, same }) => ({ run, same, value, values: [value] }))
    expectTypeOf<string>().toExtend<OutputOf<typeof flow>['values']['value']>()
    expectTypeOf<Date>().not.toExtend<OutputOf<typeof flow>['values']['value']>()

    const trees = new Flow<Tree>({ slug: 'f' })
      .step('same', ({ run }) => run)
      .step('next', ['same'], async ({ same }) => ({ same, tree, list }))
    type Output = OutputOf<typeof trees>['next']
    expectTypeOf<NonNullable<Output['same']['parent']>['named'][string]['at']>().toEqualTypeOf<string>()
    expectTypeOf<NonNullable<Output['tree']['children']>[0]['at']>().toEqualTypeOf<string>()
    expectTypeOf<NonNullable<NonNullable<Output['list']['next']>['nested']>['value']>().toEqualTypeOf<
      DatabaseJson[]
    >()
  })

  test('must be JSON all the way', () => {
    // @ts-expect-error A bigint is not JSON
    new Flow<string>({ slug: 'f' }).step('a', () => never)
    // @ts-expect-error A bigint is not JSON
    new Flow<Never>({ slug: 'f' })
  })
})

describe('the input of a flow', () => {
  test('is JSON', () => {
    // @ts-expect-error JSON keeps nothing of this object
    new Flow<{ m: Map<string, number> }>({ slug: 'f' })
    // @ts-expect-error JSON keeps nothing of this object
    new Flow<string | Set<string>>({ slug: 'f' })
    // @ts-expect-error A function is not JSON
    new Flow<{ list: { call: () => void }[] }>({ slug: 'f' })
    // @ts-expect-error A bigint is not JSON
    new Flow<{ a: string } | { b: bigint }>({ slug: 'f' })
    // @ts-expect-error A symbol is not JSON
    new Flow<symbol>({ slug: 'f' })
    // @ts-expect-error A promise is not JSON
    new Flow<{ later: Promise<string> }>({ slug: 'f' })
    // @ts-expect-error JSON keeps nothing of an Error
    new Flow<{ error: Error }>({ slug: 'f' })
    // @ts-expect-error An item of an array cannot be undefined
    new Flow<(string | undefined)[]>({ slug: 'f' })
    // @ts-expect-error A run has an input
    new Flow<undefined>({ slug: 'f' })
    // @ts-expect-error A run has an input
    new Flow<void>({ slug: 'f' })
  })

  test('is anything that JSON keeps or writes', () => {
    new Flow<{ at: Date; url: URL; none: undefined; maybe?: string; unknown: unknown; any: any }>({
      slug: 'f',
    })
    new Flow<any>({ slug: 'f' })
    new Flow<unknown>({ slug: 'f' })
    new Flow<null>({ slug: 'f' })
    new Flow<Json>({ slug: 'f' })
  })
})

test('a generic function may make flows', () => {
  interface Dated {
    id: string
    at: Date
  }
  function withId<Input extends { id: string }>(slug: string) {
    return new Flow<Input>({ slug })
      .step('id', ({ run }) => run.id)
      .step('length', ['id'], ({ id }) => id.length)
  }
  function dated<Input extends Dated>() {
    return new Flow<Input>({ slug: 'f' })
      .step('same', ({ run }) => run)
      .step('at', ({ run }) => ({ at: run.at.slice(0, 10), run }))
      .step('size', ['at'], ({ at }) => at.at.length)
  }
  function any<Input>() {
    return new Flow<Input>({ slug: 'f' }).step('same', ({ run }) => [run])
  }
  const flow = withId<{ id: string; more: number }>('f')
  expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ length: number }>()
  expectTypeOf<OutputOf<ReturnType<typeof dated<Dated>>>['size']>().toEqualTypeOf<number>()
  expectTypeOf<OutputOf<ReturnType<typeof any<{ a: 1 }>>>>().toEqualTypeOf<{ same: { a: 1 }[] }>()
})
