import './testing/page.ts'
import type { SupabaseClient } from '@supabase/supabase-js'
import { cleanup, configure, render, screen, waitFor } from '@testing-library/react'
import { type ReactNode, StrictMode } from 'react'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { PgflowClient, type RunSnapshot } from '../client/index.ts'
import { Line, type Review, Rig } from '../client/testing/rig.ts'
import {
  type FlowState,
  PgflowProvider,
  type RunState,
  type RunsState,
  type SelectedRun,
  type StartFlow,
  type UseFlowOptions,
  type UseRunOptions,
  useFlow,
  useRun,
  useRuns,
  useStartFlow,
} from './index.ts'

// A page that shares its processors with other tests may take more than a second.
configure({ asyncUtilTimeout: 10_000 })

type ReviewRun = RunSnapshot<typeof Review>

let rig: Rig
let line: Line
let supabase: SupabaseClient
let client: PgflowClient

beforeAll(async () => {
  rig = await Rig.start()
})
afterAll(() => rig.stop())

beforeEach(async () => {
  line = new Line()
  supabase = await rig.user(undefined, { global: { fetch: line.fetch } })
  client = new PgflowClient(supabase)
})
afterEach(cleanup)

const start = async () => (await client.startFlow<typeof Review>('review', { text: 'some text' })).runId

const snapshot = async (runId: string) => (await client.getRun<typeof Review>(runId)).snapshot

const provided = (children: ReactNode) => <PgflowProvider client={client}>{children}</PgflowProvider>

const strict = (children: ReactNode) => <StrictMode>{provided(children)}</StrictMode>

const text = () => screen.getByRole('status').textContent

const requestsOf = (name: string) => line.requests.filter((request) => request === name)

/** Sends a request through the whole stack, so that what was sent before it has been counted. */
async function requestsSince(count: number): Promise<string[]> {
  await supabase.rpc('nothing')
  return line.requests.slice(count, -1)
}

/** One entry for each rendering. */
let renders: unknown[]
beforeEach(() => {
  renders = []
})

function Show({ runId, ...options }: UseRunOptions<typeof Review> & { runId: string | null | undefined }) {
  const state = useRun<typeof Review>(runId, options)
  renders.push(state)
  return <output>{state.error?.code ?? state.run?.status ?? 'nothing'}</output>
}

const latestRun = () => renders.at(-1) as RunState<typeof Review>

describe('useRun without options', () => {
  it('renders once for each state, and makes no request twice', async () => {
    const runId = await start()
    render(provided(<Show runId={runId} />))
    await waitFor(() => expect(requestsOf('sync')).not.toEqual([]))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed'))
    const states = (renders as RunState<typeof Review>[]).map(({ run, error }) =>
      JSON.stringify([run, error]),
    )
    expect(states).toEqual([...new Set(states)])
    expect(requestsOf('get_run')).toEqual([])
  })

  it.each([null, undefined])('fetches nothing for %s', async (runId) => {
    render(strict(<Show runId={runId} />))
    expect(text()).toBe('nothing')
    expect(await requestsSince(0)).toEqual([])
  })
})

describe('enabled', () => {
  it('fetches and follows the run once it is true', async () => {
    const runId = await start()
    client = new PgflowClient(Object.create(supabase))
    const { length } = line.requests
    const { rerender } = render(strict(<Show runId={runId} enabled={false} />))
    expect(text()).toBe('nothing')
    expect(await requestsSince(length)).toEqual([])
    rerender(strict(<Show runId={runId} enabled />))
    await waitFor(() => expect(text()).toBe('started'))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed'))
  })

  it('leaves the channel when it becomes false, and keeps what is shown', async () => {
    const runId = await start()
    const { rerender } = render(strict(<Show runId={runId} />))
    await waitFor(() => expect(supabase.getChannels()).toHaveLength(1))
    rerender(strict(<Show runId={runId} enabled={false} />))
    await waitFor(() => expect(supabase.getChannels()).toEqual([]))
    await rig.complete(runId)
    await supabase.rpc('nothing')
    expect(text()).toBe('started')
    rerender(strict(<Show runId={runId} />))
    await waitFor(() => expect(text()).toBe('completed'))
  })

  it('shows a run that a server has read, and what is done to it', async () => {
    const runId = await start()
    const initialRun = await snapshot(runId)
    client = new PgflowClient(Object.create(supabase))
    render(strict(<Show runId={runId} initialRun={initialRun} enabled={false} />))
    expect(text()).toBe('started')
    await latestRun().cancel()
    await waitFor(() => expect(text()).toBe('cancelled'))
    await latestRun().retry()
    await waitFor(() => expect(text()).toBe('started'))
    await latestRun().retry()
    await waitFor(() => expect(text()).toBe('PT409'))
    expect(supabase.getChannels()).toEqual([])
  })
})

describe('onCompleted and onFailed', () => {
  let calls: [string, ReviewRun][]
  const callbacks = {
    onCompleted: (run: ReviewRun) => void calls.push(['completed', run]),
    onFailed: (run: ReviewRun) => void calls.push(['failed', run]),
  }
  beforeEach(() => {
    calls = []
  })

  it('are called once, when the run is over, with all of it', async () => {
    const runId = await start()
    render(strict(<Show runId={runId} {...callbacks} />))
    await rig.complete(runId, 0, 3)
    await waitFor(() => expect(latestRun().step('right')?.status).toBe('completed'))
    expect(calls).toEqual([])
    // Too large for a broadcast: it has to be fetched.
    await rig.settle(runId, 'report', { output: 'x'.repeat(20_000) })
    await waitFor(() => expect(calls).toHaveLength(1))
    expect(calls).toEqual([['completed', await snapshot(runId)]])
    expect(calls[0]![1].output).toEqual({ report: 'x'.repeat(20_000) })
    await waitFor(() => expect(supabase.getChannels()).toEqual([]))
    expect(calls).toHaveLength(1)
  })

  it('are called again for the end after a retry', async () => {
    const runId = await start()
    render(strict(<Show runId={runId} {...callbacks} />))
    await rig.settle(runId, 'read', { error: 'broken', permanent: true })
    await waitFor(() => expect(calls.map(([name]) => name)).toEqual(['failed']))
    expect(calls[0]![1].error).toBe('broken')
    expect(calls[0]![1].steps.map(({ status }) => status)).toEqual([
      'failed',
      'cancelled',
      'cancelled',
      'cancelled',
    ])
    await latestRun().retry()
    await rig.complete(runId)
    await waitFor(() => expect(calls.map(([name]) => name)).toEqual(['failed', 'completed']))
  })

  it('are not called for a run that was over before, nor for one that is cancelled', async () => {
    const [over, cancelled] = await Promise.all([start(), start()])
    await rig.complete(over)
    client = new PgflowClient(Object.create(supabase))
    const { rerender } = render(strict(<Show runId={over} {...callbacks} />))
    await waitFor(() => expect(text()).toBe('completed'))
    rerender(strict(<Show runId={cancelled} {...callbacks} />))
    await waitFor(() => expect(text()).toBe('started'))
    await latestRun().cancel()
    await waitFor(() => expect(text()).toBe('cancelled'))
    rerender(strict(<Show runId={over} {...callbacks} />))
    await waitFor(() => expect(text()).toBe('completed'))
    expect(calls).toEqual([])
  })

  it('are the latest ones, without another subscription', async () => {
    const runId = await start()
    const told: string[] = []
    const { rerender } = render(provided(<Show runId={runId} onCompleted={() => told.push('first')} />))
    await waitFor(() => expect(supabase.getChannels()).toHaveLength(1))
    const channels = supabase.getChannels()
    rerender(provided(<Show runId={runId} onCompleted={() => told.push('second')} />))
    expect(supabase.getChannels()[0]).toBe(channels[0])
    await rig.complete(runId)
    await waitFor(() => expect(told).toEqual(['second']))
  })

  it('may be too late for the component: then they are not called', async () => {
    const runId = await start()
    const run = await client.getRun(runId)
    const { unmount } = render(strict(<Show runId={runId} {...callbacks} />))
    unmount()
    const done = run.waitForCompletion()
    await rig.complete(runId)
    await done
    expect(calls).toEqual([])
  })
})

describe('select', () => {
  const select = ({ status, steps }: ReviewRun) => ({
    status,
    open: steps.filter((step) => step.status !== 'completed').map(({ step_slug }) => step_slug),
  })
  type Selected = ReturnType<typeof select>

  function Selects({ runId, inline = false }: { runId: string; inline?: boolean }) {
    const state = useRun(runId, { select: inline ? (run: ReviewRun) => select(run) : select })
    renders.push(state)
    return (
      <output>{state.selected ? `${state.selected.status}, open: ${state.selected.open}` : 'nothing'}</output>
    )
  }
  const states = () => (renders as SelectedRun<Selected>[]).map(({ selected }) => selected)

  it.each([false, true])('renders for another selection alone (in place: %s)', async (inline) => {
    const runId = await start()
    render(provided(<Selects runId={runId} inline={inline} />))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed, open: '))
    // The run itself changed more often: its steps start, too.
    const distinct = states().map((state) => JSON.stringify(state))
    expect(distinct).toEqual([...new Set(distinct)])
    expect(states()[0]).toEqual({ status: 'started', open: ['read', 'left', 'right', 'report'] })
  })

  it('keeps the object while its contents are the same', async () => {
    const runId = await start()
    const { rerender } = render(provided(<Selects runId={runId} inline />))
    await waitFor(() => expect(supabase.getChannels()).toHaveLength(1))
    const [first] = renders
    rerender(provided(<Selects runId={runId} inline />))
    expect(renders.length).toBeGreaterThan(1)
    expect(renders.every((state) => state === first)).toBe(true)
  })

  it('selects nothing of the run before, when the id changes', async () => {
    const [first, second] = await Promise.all([start(), start()])
    await rig.complete(first)
    client = new PgflowClient(Object.create(supabase))
    const { rerender } = render(strict(<Selects runId={first} />))
    await waitFor(() => expect(text()).toBe('completed, open: '))
    rerender(strict(<Selects runId={second} />))
    expect(text()).toBe('nothing')
    await waitFor(() => expect(text()).toBe('started, open: read,left,right,report'))
  })
})

describe('useStartFlow', () => {
  let latest: StartFlow<typeof Review>

  function Start({ flowSlug = 'review' }) {
    latest = useStartFlow<typeof Review>(flowSlug)
    renders.push(latest)
    const { pending, run, error } = latest
    return <output>{pending ? 'pending' : (error?.code ?? run?.input.text ?? 'idle')}</output>
  }

  it('starts once for a double click, and then again', async () => {
    render(strict(<Start />))
    const { start } = latest
    const first = start({ text: 'first' })
    expect(start({ text: 'twice' })).toBe(first)
    await waitFor(() => expect(text()).toBe('pending'))
    expect(latest.start({ text: 'thrice' })).toBe(first)
    await waitFor(() => expect(text()).toBe('first'))
    const second = await latest.start({ text: 'second' })
    await waitFor(() => expect(text()).toBe('second'))
    expect(second?.runId).not.toBe((await first)?.runId)
    expect(requestsOf('start_flow')).toHaveLength(2)
  })

  it('renders twice for a start', async () => {
    render(provided(<Start />))
    await latest.start({ text: 'some text' })
    await waitFor(() => expect(text()).toBe('some text'))
    expect(renders).toHaveLength(3)
  })

  it('forgets the run and the error', async () => {
    render(strict(<Start />))
    await latest.start({ text: 'some text' })
    await waitFor(() => expect(text()).toBe('some text'))
    latest.reset()
    await waitFor(() => expect(text()).toBe('idle'))
    line.broken = () => Promise.reject(new TypeError('fetch failed'))
    await latest.start({ text: 'some text' })
    await waitFor(() => expect(text()).toBe('unreachable'))
    latest.reset()
    await waitFor(() => expect(text()).toBe('idle'))
  })

  it('does not show the answer of a start that was forgotten', async () => {
    render(strict(<Start />))
    const first = latest.start({ text: 'first' })
    latest.reset()
    const second = latest.start({ text: 'second' })
    expect(second).not.toBe(first)
    await Promise.all([first, second])
    await waitFor(() => expect(text()).toBe('second'))
    expect((renders as StartFlow<typeof Review>[]).map(({ run }) => run?.input.text)).not.toContain('first')
    expect((await first)?.input.text).toBe('first')
  })

  it('shows nothing of another flow', async () => {
    const { rerender } = render(strict(<Start />))
    await latest.start({ text: 'some text' })
    await waitFor(() => expect(text()).toBe('some text'))
    renders.length = 0
    rerender(strict(<Start flowSlug="other" />))
    expect(text()).toBe('idle')
    await latest.start({ text: 'some text' })
    await waitFor(() => expect(text()).toBe('PT404'))
  })

  it('resolves, although the component is gone', async () => {
    const { unmount } = render(strict(<Start />))
    const starting = latest.start({ text: 'some text' })
    unmount()
    expect((await starting)?.input.text).toBe('some text')
  })
})

describe('useFlow', () => {
  let latest: FlowState<typeof Review>
  let completed: ReviewRun[]
  const onCompleted = (run: ReviewRun) => void completed.push(run)
  beforeEach(() => {
    completed = []
  })

  function Flows(options: UseFlowOptions<typeof Review>) {
    latest = useFlow<typeof Review>('review', options)
    renders.push(latest)
    return <output>{latest.error?.code ?? `${latest.status}, left ${latest.step('left')?.status}`}</output>
  }

  it('starts a run and follows it to its end', async () => {
    render(strict(<Flows onCompleted={onCompleted} />))
    expect(latest).toMatchObject({ status: 'idle', pending: false, run: null, error: null })
    const starting = latest.start({ text: 'some text' })
    await waitFor(() => expect(text()).toBe('starting, left undefined'))
    expect(latest.pending).toBe(true)
    const { runId } = (await starting)!
    await waitFor(() => expect(text()).toBe('started, left created'))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
    expect(latest.run?.output).toEqual({ report: true })
    expect(completed).toEqual([latest.run])
    expect(requestsOf('get_run')).toEqual([])
    latest.reset()
    await waitFor(() => expect(text()).toBe('idle, left undefined'))
    expect(latest.run).toBeNull()
  })

  it('cancels and retries the run, and says why that failed', async () => {
    render(strict(<Flows />))
    await latest.start({ text: 'some text' })
    await waitFor(() => expect(text()).toBe('started, left created'))
    await latest.retry()
    await waitFor(() => expect(text()).toBe('PT409'))
    await latest.cancel()
    await waitFor(() => expect(text()).toBe('cancelled, left cancelled'))
    await latest.retry()
    await waitFor(() => expect(text()).toBe('started, left created'))
  })

  it('says why a start failed', async () => {
    render(strict(<Flows />))
    line.broken = () => Promise.reject(new TypeError('fetch failed'))
    await latest.start({ text: 'some text' })
    await waitFor(() => expect(text()).toBe('unreachable'))
    expect(latest.status).toBe('idle')
  })

  it('tells of the end of a run that its key found over', async () => {
    const options = { idempotencyKey: 'once' }
    const run = await client.startFlow<typeof Review>('review', { text: 'some text' }, options)
    await rig.complete(run.runId)
    client = new PgflowClient(Object.create(supabase))
    render(strict(<Flows onCompleted={onCompleted} />))
    await latest.start({ text: 'some text' }, options)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
    await waitFor(() => expect(completed.map(({ run_id }) => run_id)).toEqual([run.runId]))
  })
})

describe('useRuns', () => {
  let latest: RunsState<typeof Review>

  function List({ enabled }: { enabled: boolean }) {
    latest = useRuns<typeof Review>({ flowSlug: 'review', enabled })
    renders.push(latest)
    return <output>{latest.runs?.map(({ status }) => status).join(' ') ?? 'nothing'}</output>
  }

  it('renders once more for the answer to its one request', async () => {
    render(provided(<List enabled />))
    await waitFor(() => expect(text()).toBe(''))
    expect(await requestsSince(0)).toEqual(['list_runs'])
    expect(renders).toHaveLength(2)
  })

  it('fetches nothing until it is enabled', async () => {
    const runId = await start()
    const { length } = line.requests
    const { rerender } = render(strict(<List enabled={false} />))
    expect(await requestsSince(length)).toEqual([])
    rerender(strict(<List enabled />))
    await waitFor(() => expect(text()).toBe('started'))
    rerender(strict(<List enabled={false} />))
    await rig.complete(runId)
    await start()
    expect(text()).toBe('started')
    latest.refresh()
    await waitFor(() => expect(text()).toBe('started completed'))
  })
})
