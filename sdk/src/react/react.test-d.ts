import { describe, expectTypeOf, it } from 'vitest'
import type { PgflowClient, PgflowError, Run, RunRow, RunSnapshot, RunStatus } from '../client/index.ts'
import { Flow, type Json, type StepInputOf } from '../flow/index.ts'
import { PgflowProvider, useFlow, useRun, useRuns, useStartFlow, useWaits } from './index.ts'

const Review = new Flow<{ path: string; since?: Date }>({ slug: 'review' })
  .step('read', async ({ run }) => ({ text: run.path, at: new Date() }))
  .step('report', ['read'], ({ read }) => read.text.length > 0)

it('PgflowProvider takes any client', () => {
  PgflowProvider({ client: {} as PgflowClient })
  PgflowProvider({ client: {} as PgflowClient<{ review: typeof Review }> })
})

describe('useRun', () => {
  it('knows the run by the type of its flow', () => {
    const { run, error, step } = useRun<typeof Review>('id')
    expectTypeOf(run).toEqualTypeOf<RunSnapshot<typeof Review> | null>()
    expectTypeOf(run!.output).toEqualTypeOf<{ report: boolean } | null>()
    expectTypeOf(step('read')!.output).toEqualTypeOf<{ text: string; at: string } | null>()
    expectTypeOf(error).toEqualTypeOf<PgflowError | null>()
    // @ts-expect-error: there is no such step
    step('reed')
  })

  it('takes a run of the flow to begin with', () => {
    useRun<typeof Review>(null, { initialRun: {} as RunSnapshot<typeof Review> })
    useRun<typeof Review>('id', { initialRun: undefined, enabled: undefined })
    useRun<typeof Review>(undefined)
    // @ts-expect-error: a run of some other flow
    useRun<typeof Review>('id', { initialRun: { output: { other: 1 } } })
  })

  it('takes any run, if it does not know the flow', () => {
    const { run, step } = useRun('id')
    expectTypeOf(run!.input).toEqualTypeOf<unknown>()
    step('any')
  })
})

describe('useRun with select', () => {
  it('gives what select returns', () => {
    const { selected, error } = useRun('id', { select: (run) => run.status })
    expectTypeOf(selected).toEqualTypeOf<RunStatus | null>()
    expectTypeOf(error).toEqualTypeOf<PgflowError | null>()
  })

  it('knows the flow from the parameter of select', () => {
    const { selected } = useRun('id', {
      select: (run: RunSnapshot<typeof Review>) => run.output?.report,
      onCompleted: (run) => expectTypeOf(run).toEqualTypeOf<RunSnapshot<typeof Review>>(),
      enabled: true,
    })
    expectTypeOf(selected).toEqualTypeOf<boolean | undefined | null>()
    const named = useRun<RunSnapshot<typeof Review>, RunStatus>('id', { select: (run) => run.status })
    expectTypeOf(named.selected).toEqualTypeOf<RunStatus | null>()
  })

  it('says where the flow has to be named', () => {
    // @ts-expect-error: TypeScript infers all type arguments or none
    useRun<typeof Review>('id', { select: (run) => run.status })
  })

  it('does not give the rest of the run, which may be out of date', () => {
    const state = useRun('id', { select: (run) => run.status })
    expectTypeOf(state).not.toHaveProperty('run')
    expectTypeOf(state).not.toHaveProperty('step')
  })
})

describe('useFlow', () => {
  it('takes the input of the flow, and follows a run of it', () => {
    const { start, run, status, step } = useFlow<typeof Review>('review', {
      onCompleted: (run) => expectTypeOf(run.output!.report).toEqualTypeOf<boolean>(),
      onFailed: ({ error }) => expectTypeOf(error).toEqualTypeOf<string | null>(),
    })
    expectTypeOf(start({ path: 'a' })).resolves.toEqualTypeOf<Run<typeof Review> | null>()
    expectTypeOf(run).toEqualTypeOf<RunSnapshot<typeof Review> | null>()
    expectTypeOf(status).toEqualTypeOf<RunStatus | 'idle' | 'starting'>()
    // @ts-expect-error: there is no such step
    step('reed')
    // @ts-expect-error: the flow takes a path
    void start({ paths: 'a' })
  })
})

describe('useStartFlow', () => {
  it('takes the input of the flow, and gives a run of it', () => {
    const { start, run } = useStartFlow<typeof Review>('review')
    expectTypeOf(start({ path: 'a' })).resolves.toEqualTypeOf<Run<typeof Review> | null>()
    expectTypeOf(run).toEqualTypeOf<Run<typeof Review> | null>()
    // @ts-expect-error: the flow takes a path
    void start({ paths: 'a' })
    const Named = new Flow({ slug: 'named', version: 2 }).input<{ path: string }>().step('a', () => 1)
    useStartFlow<typeof Named>('named')
    useStartFlow<typeof Named>('named_v2')
    // @ts-expect-error: no flow has this slug
    useStartFlow<typeof Named>('nmaed')
  })
})

describe('useRuns', () => {
  it('lists runs of the flow', () => {
    const { runs } = useRuns<typeof Review>({ flowSlug: 'review', status: 'failed' })
    expectTypeOf(runs).toEqualTypeOf<readonly RunRow<typeof Review>[] | null>()
    // @ts-expect-error: there is no such status
    useRuns({ status: 'broken' })
  })
})

describe('useWaits', () => {
  it('gives what the steps get, where the caller says of which step they are', () => {
    const Publish = Review.wait({ slug: 'approval', dependsOn: ['read'], by: 'authenticated' })
    const { waits } = useWaits<StepInputOf<typeof Publish, 'approval'>>()
    expectTypeOf(waits![0]!.input.read).toEqualTypeOf<{ text: string; at: string }>()
    expectTypeOf(useWaits().waits![0]!.input).toEqualTypeOf<Json>()
  })
})
