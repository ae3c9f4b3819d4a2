import type { SupabaseClient } from '@supabase/supabase-js'
import { describe, expectTypeOf, it } from 'vitest'
import { type AnyFlow, Flow, type } from '../flow/index.ts'
import {
  type FlowsOf,
  type Json,
  PgflowClient,
  type Run,
  type RunEvent,
  type RunPage,
  type RunRow,
  type RunSnapshot,
  type RunStep,
  type StepStatus,
} from './index.ts'

const Review = new Flow<{ path: string; since?: Date }>({ slug: 'review' })
  .step('read', async ({ run }) => ({ text: run.path, at: new Date() }))
  .step('words', ['read'], ({ read }) => read.text.length)
  .step('report', ['words'], ({ words }) => words > 0)

const Greet = new Flow<{ name: string }>({ slug: 'greet' }).step('text', ({ run }) => `Hello ${run.name}`)

declare const supabase: SupabaseClient
declare const client: PgflowClient
declare const run: Run<typeof Review>

describe('PgflowClient', () => {
  it('takes the input of the flow, and gives a run of it', () => {
    expectTypeOf(client.startFlow<typeof Review>('review', { path: 'a' })).resolves.toEqualTypeOf<
      Run<typeof Review>
    >()
    expectTypeOf(client.getRun<typeof Review>('id')).resolves.toEqualTypeOf<Run<typeof Review>>()
    // @ts-expect-error: the flow takes a path
    void client.startFlow<typeof Review>('review', { paths: 'a' })
    // @ts-expect-error: the flow takes an input
    void client.startFlow<typeof Review>('review')
  })

  it('takes anything for a flow that it does not know', () => {
    expectTypeOf(client.startFlow('any', 1)).resolves.toEqualTypeOf<Run<AnyFlow>>()
    expectTypeOf(client.getRun('id')).resolves.toEqualTypeOf<Run<AnyFlow>>()
    expectTypeOf(client.listRuns()).resolves.toEqualTypeOf<RunPage<RunRow<AnyFlow>>>()
  })

  it('starts many runs at once', () => {
    expectTypeOf(client.startFlows<typeof Review>('review', [{ path: 'a' }])).resolves.toEqualTypeOf<
      Run<typeof Review>[]
    >()
    // @ts-expect-error: the flow takes a path
    void client.startFlows<typeof Review>('review', [{ path: 'a' }, { paths: 'b' }])
    // @ts-expect-error: an input for each run
    void client.startFlows<typeof Review>('review', { path: 'a' })
  })

  it('lists runs of a flow', async () => {
    const { runs, cursor } = await client.listRuns<typeof Review>({ flowSlug: 'review', status: 'failed' })
    expectTypeOf(runs).toEqualTypeOf<RunRow<typeof Review>[]>()
    expectTypeOf(runs[0]!.output).toEqualTypeOf<{ report: boolean } | null>()
    expectTypeOf(cursor).toEqualTypeOf<string | null>()
    void client.listRuns({ metadata: { document: 7 }, cursor, limit: 10 })
    // @ts-expect-error: no such status
    void client.listRuns({ status: 'created' })
  })
})

describe('PgflowClient that was told of its flows', () => {
  interface Flows {
    review: typeof Review
    greet: typeof Greet
  }
  const typed = new PgflowClient<Flows>(supabase)

  it('knows them by their slugs', () => {
    expectTypeOf(typed.startFlow('review', { path: 'a' })).resolves.toEqualTypeOf<Run<typeof Review>>()
    expectTypeOf(typed.startFlow('greet', { name: 'a' })).resolves.toEqualTypeOf<Run<typeof Greet>>()
    expectTypeOf(typed.startFlows('greet', [{ name: 'a' }])).resolves.toEqualTypeOf<Run<typeof Greet>[]>()
    expectTypeOf(typed.getRun<'greet'>('id')).resolves.toEqualTypeOf<Run<typeof Greet>>()
    expectTypeOf(typed.listRuns({ flowSlug: 'greet' })).resolves.toEqualTypeOf<
      RunPage<RunRow<typeof Greet>>
    >()
    // @ts-expect-error: that is what the other flow takes
    void typed.startFlow('greet', { path: 'a' })
    // @ts-expect-error: there is no such flow
    void typed.startFlow('greed', { name: 'a' })
    // @ts-expect-error: there is no such flow
    void typed.startFlow('greed', {} as never)
    // @ts-expect-error: there is no such flow
    void typed.startFlows('greed', [{ name: 'a' }])
    // @ts-expect-error: there is no such flow
    void typed.getRun<'greed'>('id')
    // @ts-expect-error: there is no such flow
    void typed.listRuns({ flowSlug: 'greed' })
    // @ts-expect-error: a flow is the type of a flow
    new PgflowClient<{ review: string }>(supabase)
  })

  it('still takes a flow by its type', () => {
    expectTypeOf(typed.startFlow<typeof Review>('review_2', { path: 'a' })).resolves.toEqualTypeOf<
      Run<typeof Review>
    >()
    expectTypeOf(typed.getRun<typeof Review>('id')).resolves.toEqualTypeOf<Run<typeof Review>>()
  })

  it('finds a run of one of them', async () => {
    expectTypeOf(typed.getRun('id')).resolves.toEqualTypeOf<Run<typeof Review> | Run<typeof Greet>>()
    expectTypeOf(typed.listRuns()).resolves.toEqualTypeOf<
      RunPage<RunRow<typeof Review> | RunRow<typeof Greet>>
    >()
    const single = new PgflowClient<{ review: typeof Review }>(supabase)
    expectTypeOf(single.getRun('id')).resolves.toEqualTypeOf<Run<typeof Review>>()
  })
})

describe('the slug of a flow', () => {
  const Crawl = new Flow({ slug: 'crawl' }).input<{ url: string }>().step('page', ({ run }) => run.url)
  const First = new Flow({ slug: 'report' }).input<{ text: string }>().step('words', ({ run }) => run.text)
  const Second = new Flow({ slug: 'report', version: 2 }).input<{ page: number }>().step('all', () => 1)
  const Tenth = new Flow({ slug: 'report', version: 10 }).input<{ book: string }>().step('all', () => [1])
  type All = FlowsOf<[typeof Crawl, typeof Second, typeof Tenth, typeof First]>

  it('is checked where the type has it', () => {
    void client.startFlow<typeof Crawl>('crawl', { url: 'a' })
    void client.startFlow<typeof Second>('report', { page: 1 })
    void client.startFlow<typeof Second>('report_v2', { page: 1 })
    // @ts-expect-error: the slug is crawl
    void client.startFlow<typeof Crawl>('crwal', { url: 'a' })
    // @ts-expect-error: the slug is crawl
    void client.startFlows<typeof Crawl>('crwal', [{ url: 'a' }])
    // @ts-expect-error: the slug is crawl
    void client.listRuns<typeof Crawl>({ flowSlug: 'crwal' })
    // @ts-expect-error: that is another version
    void client.startFlow<typeof Second>('report_v3', { page: 1 })
  })

  it('makes the map of flows, with the newest version of each', () => {
    expectTypeOf<All>().toEqualTypeOf<{ readonly crawl: typeof Crawl; readonly report: typeof Tenth }>()
    expectTypeOf<
      FlowsOf<{ Crawl: typeof Crawl; Second: typeof Second; helper: () => void; limit: 7 }>
    >().toEqualTypeOf<{
      readonly crawl: typeof Crawl
      readonly report: typeof Second
    }>()
    type Module = typeof import('./fixtures/flows.ts')
    expectTypeOf<FlowsOf<Module>>().toEqualTypeOf<{
      readonly crawl: Module['Crawl']
      readonly report: Module['Report']
    }>()
  })

  it('is known to a client with such a map', () => {
    const typed = new PgflowClient<All>(supabase)
    expectTypeOf(typed.startFlow('crawl', { url: 'a' })).resolves.toEqualTypeOf<Run<typeof Crawl>>()
    expectTypeOf(typed.startFlow('report', { book: 'a' })).resolves.toEqualTypeOf<Run<typeof Tenth>>()
    void typed.startFlow<typeof First>('report', { text: 'a' })
    // @ts-expect-error: there is no such flow
    void typed.startFlow('crwal', { url: 'a' })
    // @ts-expect-error: that is what the first version takes
    void typed.startFlow('report', { text: 'a' })
  })

  it('is missing where the input was given as a type argument', () => {
    // @ts-expect-error: the slug of one of these flows is not in its type
    new PgflowClient<FlowsOf<[typeof Crawl, typeof Greet]>>(supabase)
    void client.startFlow<typeof Greet>('any', { name: 'a' })
  })
})

describe('a run of a flow is a run of any flow', () => {
  interface Input {
    text: string
  }
  const Other = new Flow({ slug: 'other' })
    .input<Input>()
    .step('a', ({ run }) => run, { whenExhausted: 'skip' })
  const Untyped = new Flow({ slug: 'untyped' }).map({ slug: 'a' }, (item) => item)

  it('with its rows, snapshots and events', () => {
    expectTypeOf<Run<typeof Review>>().toExtend<Run>()
    expectTypeOf<RunRow<typeof Review>>().toExtend<RunRow>()
    expectTypeOf<RunSnapshot<typeof Review>>().toExtend<RunSnapshot>()
    expectTypeOf<RunEvent<typeof Review>>().toExtend<RunEvent>()
    expectTypeOf<RunPage<RunRow<typeof Review>>>().toExtend<RunPage>()
    expectTypeOf<Run<typeof Other> | Run<typeof Untyped>>().toExtend<Run>()
    expectTypeOf<RunSnapshot<typeof Other> | RunSnapshot<typeof Untyped>>().toExtend<RunSnapshot>()
    const runs: Run[] = [run, {} as Run<typeof Other>]
    const steps: RunStep[] = [run.step('words'), {} as RunStep]
    expectTypeOf(runs[0]!.input).toEqualTypeOf<unknown>()
    expectTypeOf(steps[0]!.output).toEqualTypeOf<unknown>()
  })

  it('and not the other way round', () => {
    expectTypeOf<Run>().not.toExtend<Run<typeof Review>>()
    expectTypeOf<RunRow>().not.toExtend<RunRow<typeof Review>>()
    expectTypeOf<RunSnapshot>().not.toExtend<RunSnapshot<typeof Review>>()
    expectTypeOf<Run<typeof Other>>().not.toExtend<Run<typeof Review>>()
  })
})

describe('Run', () => {
  it('has the input and output as JSON keeps them', () => {
    expectTypeOf(run.input).toEqualTypeOf<{ path: string; since?: string }>()
    expectTypeOf(run.output).toEqualTypeOf<{ report: boolean } | null>()
    expectTypeOf(run.waitForCompletion()).resolves.toEqualTypeOf<{ report: boolean }>()
  })

  it('knows its steps', () => {
    expectTypeOf(run.steps).toHaveProperty('words')
    expectTypeOf(run.steps.read.output).toEqualTypeOf<{ text: string; at: string } | null>()
    expectTypeOf(run.steps.read.status).toEqualTypeOf<StepStatus>()
    expectTypeOf(run.step('words').output).toEqualTypeOf<number | null>()
    expectTypeOf(run.step('words').slug).toEqualTypeOf<'words'>()
    expectTypeOf(run.step('words').waitForCompletion()).resolves.toEqualTypeOf<number>()
    // @ts-expect-error: there is no such step
    run.step('word')
  })

  it('has its steps in the snapshot, told apart by their slugs', () => {
    const step = run.snapshot.steps[0]!
    expectTypeOf(step.step_slug).toEqualTypeOf<'read' | 'words' | 'report'>()
    if (step.step_slug === 'words') expectTypeOf(step.output).toEqualTypeOf<number | null>()
  })

  it('tells of events by their types', () => {
    run.on('step:completed', (event) => {
      expectTypeOf(event.type).toEqualTypeOf<'step:completed'>()
      expectTypeOf(event.step_slug).toEqualTypeOf<'read' | 'words' | 'report'>()
      if (event.step_slug === 'report') expectTypeOf(event.output).toEqualTypeOf<boolean>()
    })
    run.on('run:completed', (event) => {
      expectTypeOf(event.step_slug).toEqualTypeOf<null>()
      expectTypeOf(event.output).toEqualTypeOf<{ report: boolean }>()
    })
    run.on('run:retried', (event) => expectTypeOf(event.step_slugs).toEqualTypeOf<readonly string[]>())
    run.on('run:failed', (event) => expectTypeOf(event.error).toEqualTypeOf<string>())
    run.on('step:progress', (event) => expectTypeOf(event.progress).toEqualTypeOf<Exclude<Json, null>>())
    run.on('*', (event) => {
      expectTypeOf(event).toEqualTypeOf<RunEvent<typeof Review>>()
      if (event.type === 'step:retrying') expectTypeOf(event.retry_at).toEqualTypeOf<string>()
      // @ts-expect-error: only some events have an output
      void event.output
    })
    // @ts-expect-error: there is no such type
    run.on('step:done', () => undefined)
    expectTypeOf(run.on('*', () => undefined)).toEqualTypeOf<() => void>()
  })

  it('iterates over its events', async () => {
    for await (const event of run.events({ after: 3, signal: AbortSignal.timeout(1) })) {
      expectTypeOf(event).toEqualTypeOf<RunEvent<typeof Review>>()
    }
  })

  it('can be cancelled and retried', () => {
    expectTypeOf(run.cancel('enough')).resolves.toBeVoid()
    expectTypeOf(run.retry()).resolves.toBeVoid()
  })

  it('tells of the events of one step', () => {
    run.step('words').on('completed', (event) => {
      expectTypeOf(event.output).toEqualTypeOf<number>()
      expectTypeOf(event.step_slug).toEqualTypeOf<'words'>()
    })
    run.step('words').on('retrying', (event) => expectTypeOf(event.retries).toEqualTypeOf<number>())
    run.step('words').on('admitted', (event) => expectTypeOf(event.waits_for).toEqualTypeOf<'run' | null>())
    run.step('words').on('*', (event) => {
      if (event.type === 'step:completed') expectTypeOf(event.output).toEqualTypeOf<number>()
    })
    // @ts-expect-error: that is an event of runs
    run.step('words').on('retried', () => undefined)
  })

  it('has the progress that its steps report', () => {
    interface Page {
      title: string
      at: Date
      size?: number
    }
    const Book = new Flow({ slug: 'book' })
      .input<string[]>()
      .step({ slug: 'read', progress: type<Page>() }, () => 1)
      .map({ slug: 'pages', items: 'run', progress: type<Page>() }, () => 1)
      .map({ slug: 'counted', items: 'run' }, () => 1)
      .step('end', () => 1)
    type Stored = { title: string; at: string; size?: number }
    const book = {} as Run<typeof Book>
    expectTypeOf(book.step('read').progress!.data).toEqualTypeOf<Stored>()
    expectTypeOf(book.steps.read.progress!.value).toEqualTypeOf<number>()
    expectTypeOf(book.step('end').progress).toEqualTypeOf<Json>()
    const { progress } = book.step('counted')
    if (progress !== null && 'done' in progress) expectTypeOf(progress.total).toEqualTypeOf<number>()
    else expectTypeOf(progress?.data).toEqualTypeOf<Json | undefined>()
    book.step('read').on('progress', ({ progress }) => expectTypeOf(progress.data).toEqualTypeOf<Stored>())
    book.on('step:progress', (event) => {
      if (event.step_slug === 'read') expectTypeOf(event.progress.data).toEqualTypeOf<Stored>()
      if (event.step_slug === 'pages' && 'data' in event.progress) {
        expectTypeOf(event.progress.task_index).toEqualTypeOf<number>()
      }
    })
    expectTypeOf<Run<typeof Book>>().toExtend<Run>()
    expectTypeOf({} as Run['steps'][string]['progress']).toEqualTypeOf<unknown>()
  })

  it('goes to functions that take a run of any flow', () => {
    const show = <F extends AnyFlow>({ runId, status, error }: Run<F>) => `${runId} ${status} ${error}`
    show(run)
    show({} as Run)
  })

  it('of an unknown flow has steps that may be there', () => {
    const unknown = {} as Run
    expectTypeOf(unknown.steps.any?.output).toEqualTypeOf<unknown>()
    unknown.on('step:completed', (event) => {
      expectTypeOf(event.step_slug).toEqualTypeOf<string>()
      expectTypeOf(event.output).toEqualTypeOf<unknown>()
    })
    expectTypeOf(unknown.step('any').waitForCompletion()).resolves.toEqualTypeOf<unknown>()
  })
})
