import { describe, expectTypeOf, test } from 'vitest'
import {
  type AnyFlow,
  type Context,
  compile,
  Flow,
  type InputOf,
  type Json,
  type JsonOf,
  type OutputOf,
  type ResourcesOf,
  type StepInputOf,
  type StepOutputOf,
  type StepsOf,
  type,
} from './index.ts'
import type { OnlyJson, OutputFrom } from './json-types.ts'
import type { NewSlug } from './slug-types.ts'
import type { FlowTypeError } from './type-error.ts'
import type { KnownDep } from './types.ts'

interface Heading {
  depth: number
  text: string
}

const Analyze = new Flow<{ path: string }>({ slug: 'analyze', timeout: 60 })
  .step({ slug: 'read', maxAttempts: 2 }, async ({ run }) => ({ text: run.path, at: new Date() }))
  .step('headings', ['read'], ({ read }): Heading[] => [{ depth: 1, text: read.text }], { timeout: 5 })
  .step('noted', ['read'], () => {})
  .step({ slug: 'report', dependsOn: ['headings', 'read'] }, ({ headings }) => headings.length)

type Types = (typeof Analyze)['~types']

describe('payloads', () => {
  test('have the input as run and each dep under its slug, and nothing else', () => {
    Analyze.step({ slug: 'a', dependsOn: ['headings', 'report'] }, (payload) => {
      expectTypeOf(payload).toEqualTypeOf<{ run: { path: string }; headings: Heading[]; report: number }>()
    })
    Analyze.step('a', ['read'], (payload) => {
      expectTypeOf(payload).toEqualTypeOf<{ run: { path: string }; read: { text: string; at: string } }>()
    })
    Analyze.step('a', (payload) => {
      expectTypeOf(payload).toEqualTypeOf<{ run: { path: string } }>()
    })
    // @ts-expect-error report is a step, but not a dep of this one
    Analyze.step('a', ['read'], ({ report }) => report)
    // @ts-expect-error read may not be used as a number
    Analyze.step('a', ['read'], ({ read }) => read.text * 2)
  })

  test('have the input as JSON makes it', () => {
    new Flow<{ at: Date }>({ slug: 'f' }).step('a', ({ run }) => {
      expectTypeOf(run).toEqualTypeOf<{ at: string }>()
    })
    new Flow({ slug: 'f' }).step('a', ({ run }) => {
      expectTypeOf(run).toEqualTypeOf<Json>()
    })
  })

  test('fit a handler defined elsewhere', () => {
    const count = (payload: { headings: readonly { text: string }[] }) => payload.headings.length
    expectTypeOf<StepOutputOf<ReturnType<typeof add>, 'count'>>().toEqualTypeOf<number>()
    function add() {
      return Analyze.step('count', ['headings'], count)
    }
    // @ts-expect-error this handler needs another dep
    Analyze.step('count', ['read'], count)
  })
})

describe('the context', () => {
  test('has what a worker gives', () => {
    Analyze.step('a', (_, context) => {
      expectTypeOf(context).toEqualTypeOf<Context<Record<never, never>, { run: { path: string } }>>()
      expectTypeOf(context.signal).toEqualTypeOf<AbortSignal>()
      expectTypeOf(context.attempt).toEqualTypeOf<number>()
      expectTypeOf(context.log.warn).toBeCallableWith('text', { slug: 'a' })
    })
  })

  test('takes progress of the type that the step names', () => {
    Analyze.step({ slug: 'a', progress: type<{ page: string }>() }, (_, { progress }) => {
      progress(0.5, { page: 'a' })
      // @ts-expect-error a page is a string
      progress(0.5, { page: 1 })
      // @ts-expect-error the data is missing
      progress(0.5)
    })
    Analyze.step('a', ['read'], (_, { progress }) => progress(1, 'page'), { progress: type<string>() })
    Analyze.map({ slug: 'a', items: 'headings', progress: type<number>() }, (_, { progress }) =>
      progress(1, 2),
    )
    Analyze.step('a', (_, { progress }) => {
      progress(0.5)
      progress(0.5, { any: ['thing'] })
    })
    // @ts-expect-error A bigint is not JSON
    Analyze.step('a', () => 1, { progress: type<{ n: bigint }>() })
  })

  test('has the resources that the flow names', () => {
    interface Resources {
      db: { query(text: string): Promise<string[]> }
    }
    const Query = new Flow<string, Resources>({ slug: 'f' }).step('a', async (_, { resources }) =>
      resources.db.query('select 1'),
    )
    expectTypeOf<ResourcesOf<typeof Query>>().toEqualTypeOf<Resources>()
    expectTypeOf<StepOutputOf<typeof Query, 'a'>>().toEqualTypeOf<string[]>()
    // @ts-expect-error this flow names no resources
    Analyze.step('a', (_, { resources }) => resources.db)
  })
})

describe('a flow says', () => {
  test('its input', () => {
    expectTypeOf<InputOf<typeof Analyze>>().toEqualTypeOf<{ path: string }>()
    expectTypeOf<InputOf<AnyFlow>>().toEqualTypeOf<unknown>()
  })

  test('its output, from the steps on which no other depends', () => {
    expectTypeOf<OutputOf<typeof Analyze>>().toEqualTypeOf<{ noted: null; report: number }>()
    expectTypeOf<OutputOf<AnyFlow>>().toEqualTypeOf<{ [slug: string]: unknown }>()
  })

  test('the output of each step', () => {
    expectTypeOf<StepsOf<typeof Analyze>>().toEqualTypeOf<{
      read: { text: string; at: string }
      headings: Heading[]
      noted: null
      report: number
    }>()
    expectTypeOf<keyof StepsOf<typeof Analyze>>().toEqualTypeOf<'read' | 'headings' | 'noted' | 'report'>()
    expectTypeOf<StepOutputOf<typeof Analyze, 'read'>>().toEqualTypeOf<{ text: string; at: string }>()
    // @ts-expect-error there is no such step
    expectTypeOf<StepOutputOf<typeof Analyze, 'none'>>().toBeUnknown()
  })

  test('the input of each step', () => {
    expectTypeOf<StepInputOf<typeof Analyze, 'report'>>().toEqualTypeOf<{
      run: { path: string }
      read: { text: string; at: string }
      headings: Heading[]
    }>()
    expectTypeOf<StepInputOf<typeof Analyze, 'read'>>().toEqualTypeOf<{ run: { path: string } }>()
  })

  test('nothing of its types to what takes any flow', () => {
    expectTypeOf(Analyze).toExtend<AnyFlow>()
    expectTypeOf(compile).toBeCallableWith(Analyze)
  })
})

describe('a dep', () => {
  test('must be an earlier step', () => {
    type None = FlowTypeError<"There is no step 'raed' before this one: define it first, or correct its name">
    expectTypeOf<KnownDep<keyof Types['steps'], 'read' | 'raed'>>().toEqualTypeOf<'read' | None>()
    // @ts-expect-error There is no step 'raed' before this one
    Analyze.step({ slug: 'a', dependsOn: ['raed', 'read'] }, () => 1)
    // @ts-expect-error There is no step 'raed' before this one
    Analyze.step('a', ['raed'], () => 1)
    // @ts-expect-error There is no step 'a' before this one
    Analyze.step('a', ['a'], () => 1)
    // @ts-expect-error There is no step 'run' before this one
    Analyze.step('a', ['run'], () => 1)
  })
})

describe('a slug', () => {
  test('is new', () => {
    type Taken = FlowTypeError<"The flow already has a step 'read': give this one another slug">
    expectTypeOf<NewSlug<keyof Types['steps'], 'read'>>().toEqualTypeOf<Taken>()
    // @ts-expect-error The flow already has a step 'read'
    Analyze.step({ slug: 'read' }, () => 1)
    // @ts-expect-error The flow already has a step 'read'
    Analyze.step('read', () => 1)
    // @ts-expect-error The flow already has a step 'read'
    Analyze.step('read', ['headings'], () => 1)
  })

  test('has letters, digits and underscores', () => {
    type Slug128 =
      'aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb'
    type Character<
      C extends string,
      S extends string,
    > = FlowTypeError<`The slug '${S}' has a '${C}': use only letters, digits and underscores`>
    expectTypeOf<NewSlug<keyof Types['steps'], '_aZ09'>>().toEqualTypeOf<'_aZ09'>()
    expectTypeOf<NewSlug<keyof Types['steps'], Slug128>>().toEqualTypeOf<Slug128>()
    expectTypeOf<NewSlug<keyof Types['steps'], `${Slug128}c`>>().toEqualTypeOf<
      FlowTypeError<'A slug has at most 128 characters'>
    >()
    expectTypeOf<NewSlug<keyof Types['steps'], 'a-b'>>().toEqualTypeOf<Character<'-', 'a-b'>>()
    expectTypeOf<NewSlug<keyof Types['steps'], 'é'>>().toEqualTypeOf<Character<'é', 'é'>>()
    expectTypeOf<NewSlug<keyof Types['steps'], ''>>().toEqualTypeOf<FlowTypeError<'A slug cannot be empty'>>()
    expectTypeOf<NewSlug<keyof Types['steps'], '1a'>>().toEqualTypeOf<
      FlowTypeError<"The slug '1a' starts with a digit: start it with a letter or an underscore">
    >()
    expectTypeOf<NewSlug<keyof Types['steps'], 'run'>>().toEqualTypeOf<
      FlowTypeError<"'run' is the name of the run's input: give the step another slug">
    >()
    // @ts-expect-error The slug 'a-b' has a '-'
    Analyze.step('a-b', () => 1)
    // @ts-expect-error 'run' is the name of the run's input
    Analyze.step({ slug: 'run' }, () => 1)
  })

  test('that is known at run time only is checked then', () => {
    const slug: string = 'a'
    const dep: string = 'read'
    expectTypeOf(Analyze.step(slug, [dep], () => 1)).toExtend<AnyFlow>()
  })
})

describe('options', () => {
  test('have their names and types', () => {
    // @ts-expect-error Did you mean to write 'maxAttempts'?
    Analyze.step({ slug: 'a', maxAttempt: 3 }, () => 1)
    // @ts-expect-error seconds are a number
    Analyze.step('a', ['read'], () => 1, { timeout: '5' })
    // @ts-expect-error the flow decides who starts it
    Analyze.step({ slug: 'a', startRole: 'anon' }, () => 1)
    new Flow<string>({ slug: 'f', maxAttempts: 1, baseDelay: 0.5, timeout: 9, startDelay: 1, version: 2 })
    // @ts-expect-error conditions are of steps
    new Flow<string>({ slug: 'f', runIf: {} })
    // @ts-expect-error there is no such role
    new Flow<string>({ slug: 'f', startRole: 'admin' })
    // @ts-expect-error a flow has a slug
    new Flow<string>({ timeout: 5 })
    // @ts-expect-error a step has a handler
    Analyze.step('a')
  })

  test('follow the handler of a step without deps', () => {
    const flow = new Flow<{ deep: boolean }>({ slug: 'f' }).step('a', ({ run }) => run.deep, {
      timeout: 5,
      runIf: { run: { deep: true } },
      whenUnmet: 'skip',
    })
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ a?: boolean }>()
    // @ts-expect-error 'run.deep' is never 1
    Analyze.step('b', () => 1, { runIf: { run: { deep: 1 } } })
    // @ts-expect-error Did you mean to write 'timeout'?
    Analyze.step('b', () => 1, { timeOut: 1 })
  })
})

describe('an output', () => {
  test('is as JSON makes it', () => {
    expectTypeOf<OutputFrom<void>>().toEqualTypeOf<null>()
    expectTypeOf<OutputFrom<undefined>>().toEqualTypeOf<null>()
    expectTypeOf<OutputFrom<Promise<void>>>().toEqualTypeOf<null>()
    expectTypeOf<OutputFrom<string | undefined>>().toEqualTypeOf<string | null>()
    expectTypeOf<OutputFrom<Promise<{ at: Date }>>>().toEqualTypeOf<{ at: string }>()
    expectTypeOf<OutputFrom<{ a: 1 } | { b: Date }>>().toEqualTypeOf<{ a: 1 } | { b: string }>()
    expectTypeOf<OutputFrom<never>>().toEqualTypeOf<never>()
  })

  test('keeps what is JSON already', () => {
    type Kept = {
      a: 'x' | 1
      b: [number, string?]
      c: readonly boolean[]
      d?: { e: null }
      [key: `n_${string}`]: unknown
    }
    expectTypeOf<JsonOf<Json>>().toEqualTypeOf<Json>()
    expectTypeOf<JsonOf<Heading>>().toEqualTypeOf<Heading>()
    expectTypeOf<JsonOf<'a' | 1 | null>>().toEqualTypeOf<'a' | 1 | null>()
    expectTypeOf<JsonOf<Pick<Kept, 'a' | 'b' | 'c' | 'd'>>>().toEqualTypeOf<
      Pick<Kept, 'a' | 'b' | 'c' | 'd'>
    >()
    expectTypeOf<JsonOf<Record<string, number>>>().toEqualTypeOf<Record<string, number>>()
  })

  test('has strings for dates, optional properties for undefined, Json for unknown', () => {
    expectTypeOf<JsonOf<{ a: Date; b: string | undefined; c?: Date; d: unknown }>>().toEqualTypeOf<{
      a: string
      b?: string
      c?: string
      d?: Json
    }>()
    expectTypeOf<JsonOf<Date[]>>().toEqualTypeOf<string[]>()
    expectTypeOf<JsonOf<[Date, number]>>().toEqualTypeOf<[string, number]>()
    expectTypeOf<JsonOf<Record<string, Date>>>().toEqualTypeOf<Record<string, string>>()
    expectTypeOf<JsonOf<{ toJSON(): { at: Date } }>>().toEqualTypeOf<{ at: string }>()
    expectTypeOf<JsonOf<unknown>>().toEqualTypeOf<Json>()
    expectTypeOf<JsonOf<any>>().toBeAny()
    expectTypeOf<JsonOf<{ a: any }>>().toEqualTypeOf<{ a: any }>()
  })

  test('may refer to its own type', () => {
    interface Tree {
      at: Date
      children: Tree[]
    }
    const flow = new Flow<string>({ slug: 'f' }).step('a', (): Tree => ({ at: new Date(), children: [] }))
    expectTypeOf<StepOutputOf<typeof flow, 'a'>['children'][0]['children'][0]['at']>().toEqualTypeOf<string>()
  })

  test('is JSON', () => {
    expectTypeOf<OnlyJson<bigint>>().toEqualTypeOf<FlowTypeError<'A bigint is not JSON: make it a string'>>()
    // @ts-expect-error A function is not JSON
    Analyze.step('a', () => () => 1)
    // @ts-expect-error A symbol is not JSON
    Analyze.step('a', () => Symbol('s'))
    // @ts-expect-error A bigint is not JSON
    Analyze.step('a', () => ({ a: { b: 1n } }))
    // @ts-expect-error A bigint is not JSON
    Analyze.step('a', async () => ({ a: { b: 1n } }))
    // @ts-expect-error A function is not JSON
    Analyze.step('a', ['read'], ({ read }) => ({ ...read, again: () => 1 }))
    // @ts-expect-error JSON keeps nothing of an Error
    Analyze.step('a', () => ({ error: new Error('x') }))
    // @ts-expect-error JSON keeps nothing of this object
    Analyze.step('a', () => new Map([[1, 2]]))
    // @ts-expect-error JSON keeps nothing of this object
    Analyze.step('a', () => ({ words: new Set(['a']) }))
    // @ts-expect-error An item of an array cannot be undefined
    Analyze.step('a', () => [1, undefined])
    Analyze.step('a', () => ({ date: new Date(), url: new URL('http://a'), none: undefined }))
    Analyze.step('a', () => JSON.parse('1'))
    Analyze.step('a', (): unknown => 1)
  })
})
