import './testing/page.ts'
import { randomUUID } from 'node:crypto'
import type { SupabaseClient } from '@supabase/supabase-js'
import { cleanup, configure, render, screen, waitFor } from '@testing-library/react'
import { type ReactNode, StrictMode } from 'react'
import { hydrateRoot } from 'react-dom/client'
import { renderToString } from 'react-dom/server'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { PgflowClient, type RunSnapshot } from '../client/index.ts'
import { Line, Review, Rig, ready } from '../client/testing/rig.ts'
import { compile, Flow } from '../flow/index.ts'
import {
  PgflowProvider,
  type RunFilter,
  type RunState,
  type RunsState,
  type StartFlow,
  useChildren,
  usePgflow,
  useRun,
  useRuns,
  useStartFlow,
  useWaits,
  type WaitsState,
} from './index.ts'

// A page that shares its processors with other tests may take more than a second.
configure({ asyncUtilTimeout: 10_000 })

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

/** Another client of the same user would do as well: nothing of the run is known to this one. */
const stranger = () => {
  client = new PgflowClient(Object.create(supabase))
}

const inProvider = (children: ReactNode) => (
  <StrictMode>
    <PgflowProvider client={client}>{children}</PgflowProvider>
  </StrictMode>
)

/** What a component has shown, one entry a rendering. */
const shown: RunState<typeof Review>[] = []
beforeEach(() => {
  shown.length = 0
})

interface ShowProps {
  runId: string | null
  initialRun?: RunSnapshot<typeof Review>
  name?: string
}

function Show({ runId, initialRun, name = 'run' }: ShowProps) {
  const state = useRun<typeof Review>(runId, { initialRun })
  shown.push(state)
  const { run, error, step } = state
  return (
    <p data-testid={name}>
      {error?.code ?? (run ? `${run.status}, left ${step('left')?.status}` : 'nothing')}
    </p>
  )
}

const text = (name = 'run') => screen.getByTestId(name).textContent

const snapshot = async (runId: string) => (await client.getRun<typeof Review>(runId)).snapshot

describe('useRun', () => {
  it('shows a run live, from its start to its end', async () => {
    const runId = await start()
    render(inProvider(<Show runId={runId} />))
    await rig.settle(runId, 'read', { output: 'some text' })
    await waitFor(() => expect(text()).toBe('started, left started'))
    await rig.complete(runId, 1)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
    expect(shown.at(-1)).toMatchObject({ run: { output: { report: true } }, error: null })
    expect(shown.at(-1)?.run).toEqual(await snapshot(runId))
  })

  it('shows what was before it came, and what another client did', async () => {
    const runId = await start()
    await rig.settle(runId, 'read', { output: 'some text' })
    stranger()
    render(inProvider(<Show runId={runId} />))
    expect(text()).toBe('nothing')
    await waitFor(() => expect(text()).toBe('started, left started'))
  })

  it('is brought forward by the channel alone', async () => {
    const runId = await start()
    const channelReady = ready(supabase)
    render(inProvider(<Show runId={runId} />))
    await channelReady
    line.broken = () => Promise.reject(new TypeError('fetch failed'))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
  })

  it('changes with each change only', async () => {
    const runId = await start()
    const { rerender } = render(inProvider(<Show runId={runId} />))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
    const last = shown.at(-1)
    rerender(inProvider(<Show runId={runId} />))
    expect(shown.at(-1)).toBe(last)
    const seqs = shown.map(({ run }) => run?.seq ?? 0)
    expect(seqs).toEqual(seqs.toSorted((a, b) => a - b))
  })

  it('fetches nothing for null', () => {
    render(inProvider(<Show runId={null} />))
    expect(text()).toBe('nothing')
    expect(line.requests).toEqual([])
  })

  it('says why a run cannot be shown', async () => {
    render(inProvider(<Show runId="00000000-0000-4000-8000-000000000000" />))
    await waitFor(() => expect(text()).toBe('PT404'))
  })

  it('goes on asking while the server is unreachable', async () => {
    const runId = await start()
    stranger()
    line.broken = () => Promise.reject(new TypeError('fetch failed'))
    render(inProvider(<Show runId={runId} />))
    await waitFor(() => expect(text()).toBe('unreachable'))
    line.broken = undefined
    window.dispatchEvent(new Event('online'))
    await waitFor(() => expect(text()).toBe('started, left created'))
    expect(shown.at(-1)?.error).toBeNull()
  })

  it('never shows the run before when the id changes', async () => {
    const [first, second] = await Promise.all([start(), start()])
    await rig.complete(first)
    stranger()
    const { rerender } = render(inProvider(<Show runId={first} />))
    await waitFor(() => expect(text()).toBe('completed, left completed'))
    shown.length = 0
    rerender(inProvider(<Show runId={second} />))
    expect(text()).toBe('nothing')
    await waitFor(() => expect(text()).toBe('started, left created'))
    rerender(inProvider(<Show runId={null} />))
    expect(text()).toBe('nothing')
    expect(shown.filter(({ run }) => run?.run_id === first)).toEqual([])
  })

  it('does not show an answer that comes after the id has changed', async () => {
    const [first, second] = await Promise.all([start(), start()])
    stranger()
    let answer = () => {}
    line.broken = () => new Promise((_, reject) => (answer = () => reject(new TypeError('fetch failed'))))
    const { rerender } = render(inProvider(<Show runId={first} />))
    await waitFor(() => expect(line.requests).toContain('get_run'))
    line.broken = undefined
    rerender(inProvider(<Show runId={second} />))
    answer()
    await waitFor(() => expect(text()).toBe('started, left created'))
    expect(shown.filter(({ error }) => error !== null)).toEqual([])
    expect(shown.filter(({ run }) => run?.run_id === first)).toEqual([])
  })

  it('fetches nothing after the end', async () => {
    const runId = await start()
    render(inProvider(<Show runId={runId} />))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
    await waitFor(() => expect(supabase.getChannels()).toEqual([]))
    const { length } = line.requests
    window.dispatchEvent(new Event('online'))
    await supabase.rpc('nothing')
    expect(line.requests.slice(length)).toEqual(['nothing'])
  })
})

describe('what is done to a run', () => {
  it('is seen at once: it is cancelled, and goes on', async () => {
    const runId = await start()
    render(inProvider(<Show runId={runId} />))
    await waitFor(() => expect(text()).toBe('started, left created'))
    await shown.at(-1)!.cancel('no longer needed')
    await waitFor(() => expect(text()).toBe('cancelled, left cancelled'))
    expect(shown.at(-1)!.run!.error).toBe('no longer needed')
    await shown.at(-1)!.retry()
    await waitFor(() => expect(text()).toBe('started, left created'))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
  })

  it('goes on being followed where a server had read it when it was over', async () => {
    const runId = await start()
    await rig.settle(runId, 'read', { error: 'broken', permanent: true })
    const initialRun = await snapshot(runId)
    stranger()
    render(inProvider(<Show runId={runId} initialRun={initialRun} />))
    await shown.at(-1)!.retry()
    await waitFor(() => expect(text()).toBe('started, left created'))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
  })

  it('happens once, however often it is asked for at the same time', async () => {
    const runId = await start()
    render(inProvider(<Show runId={runId} />))
    await waitFor(() => expect(text()).toBe('started, left created'))
    const { cancel } = shown.at(-1)!
    await Promise.all([cancel(), cancel()])
    expect(line.requests.filter((name) => name === 'cancel_run')).toHaveLength(1)
    await waitFor(() => expect(text()).toBe('cancelled, left cancelled'))
  })

  it('says why it could not be done, until something else happens', async () => {
    const runId = await start()
    render(inProvider(<Show runId={runId} />))
    await waitFor(() => expect(text()).toBe('started, left created'))
    await shown.at(-1)!.retry()
    await waitFor(() => expect(text()).toBe('PT409'))
    await rig.complete(runId)
    await waitFor(() => expect(text()).toBe('completed, left completed'))
  })
})

describe('components that show one run', () => {
  it('share its channel and its requests, until the last one goes', async () => {
    const runId = await start()
    stranger()
    const { rerender } = render(
      inProvider([<Show key="a" runId={runId} name="a" />, <Show key="b" runId={runId} name="b" />]),
    )
    await waitFor(() => expect([text('a'), text('b')]).toEqual(Array(2).fill('started, left created')))
    expect(line.requests.filter((name) => name === 'get_run')).toHaveLength(1)
    const { owner_id } = shown.at(-1)!.run!
    await waitFor(() => {
      expect(supabase.getChannels().map(({ topic }) => topic)).toEqual([`realtime:pgflow:user:${owner_id}`])
    })
    rerender(inProvider([<Show key="b" runId={runId} name="b" />]))
    await rig.settle(runId, 'read', { output: 'some text' })
    await waitFor(() => expect(text('b')).toBe('started, left started'))
    rerender(inProvider([]))
    await waitFor(() => expect(supabase.getChannels()).toEqual([]))
  })

  it('that come later show at once what is known', async () => {
    const runId = await start()
    const { rerender } = render(inProvider([<Show key="a" runId={runId} name="a" />]))
    await waitFor(() => expect(text('a')).toBe('started, left created'))
    rerender(inProvider([<Show key="a" runId={runId} name="a" />, <Show key="b" runId={runId} name="b" />]))
    expect(text('b')).toBe('started, left created')
  })

  it('that come back find a run that somebody has retried meanwhile', async () => {
    const runId = await start()
    const { rerender } = render(inProvider(<Show runId={runId} />))
    await rig.settle(runId, 'read', { error: 'broken', permanent: true })
    await waitFor(() => expect(text()).toBe('failed, left cancelled'))
    const kept = client.lives.get(runId)
    rerender(inProvider(null))
    await rig.sql`select from pgflow.retry_run(${runId})`
    rerender(inProvider(<Show runId={runId} />))
    expect(text()).toBe('failed, left cancelled')
    await waitFor(() => expect(text()).toBe('started, left created'))
    expect(client.lives.get(runId)).toBe(kept)
  })
})

describe('with a run that a server has read', () => {
  it('the page is rendered there, hydrated here, and goes on from it', async () => {
    const runId = await start()
    const initialRun = await snapshot(runId)
    stranger()
    const page = inProvider(<Show runId={runId} initialRun={initialRun} />)
    const html = renderToString(page)
    expect(html).toBe('<p data-testid="run">started, left created</p>')
    expect(supabase.getChannels()).toEqual([])

    const container = document.body.appendChild(document.createElement('div'))
    container.innerHTML = html
    await rig.settle(runId, 'read', { output: 'some text' })
    const complaints: unknown[] = []
    const root = hydrateRoot(container, page, { onRecoverableError: (error) => complaints.push(error) })
    await waitFor(() => expect(text()).toBe('started, left started'))
    expect(complaints).toEqual([])
    expect(line.requests.slice(line.requests.indexOf('get_run') + 1)).not.toContain('get_run')
    root.unmount()
    container.remove()
  })

  it('nothing is fetched when it is over', async () => {
    const runId = await start()
    await rig.complete(runId)
    const initialRun = await snapshot(runId)
    stranger()
    const { length } = line.requests
    render(inProvider(<Show runId={runId} initialRun={initialRun} />))
    expect(text()).toBe('completed, left completed')
    await supabase.rpc('nothing')
    expect(line.requests.slice(length)).toEqual(['nothing'])
    expect(supabase.getChannels()).toEqual([])
  })

  it('of another id, it is not shown', async () => {
    const [first, second] = await Promise.all([start(), start()])
    const initialRun = await snapshot(first)
    stranger()
    render(inProvider(<Show runId={second} initialRun={initialRun} />))
    expect(text()).toBe('nothing')
    await waitFor(() => expect(text()).toBe('started, left created'))
    expect(shown.filter(({ run }) => run?.run_id === first)).toEqual([])
  })
})

describe('useStartFlow', () => {
  let latest: StartFlow<typeof Review>

  function Start() {
    latest = useStartFlow<typeof Review>('review')
    const { pending, run, error } = latest
    return (
      <>
        <output>{pending ? 'pending' : (error?.code ?? (run ? 'started' : 'idle'))}</output>
        <Show runId={run?.runId ?? null} />
      </>
    )
  }
  const output = () => screen.getByRole('status').textContent

  it('starts a run, which is shown at once', async () => {
    render(inProvider(<Start />))
    expect(output()).toBe('idle')
    const started = latest.start({ text: 'some text' }, { metadata: { of: 'a test' } })
    await waitFor(() => expect(output()).toBe('pending'))
    const run = await started
    await waitFor(() => expect(output()).toBe('started'))
    expect(run?.snapshot.metadata).toEqual({ of: 'a test' })
    expect(text()).toBe('started, left created')
    expect(line.requests).not.toContain('get_run')
  })

  it('says why a start failed, until the next one', async () => {
    render(inProvider(<Start />))
    line.broken = () => Promise.reject(new TypeError('fetch failed'))
    expect(await latest.start({ text: 'some text' })).toBeNull()
    await waitFor(() => expect(output()).toBe('unreachable'))
    line.broken = undefined
    await latest.start({ text: 'some text' })
    await waitFor(() => expect(output()).toBe('started'))
  })
})

describe('useRuns', () => {
  let latest: RunsState<typeof Review>

  function List({ filter }: { filter: RunFilter }) {
    latest = useRuns<typeof Review>(filter)
    return (
      <p data-testid="list">{latest.error?.code ?? latest.runs?.map(({ status }) => status).join(' ')}</p>
    )
  }

  it('lists the runs, and reads them again when one begins or ends', async () => {
    render(inProvider(<List filter={{ flowSlug: 'review' }} />))
    await waitFor(() => expect(latest.runs).toEqual([]))
    const first = await client.startFlow<typeof Review>('review', { text: 'first' })
    await waitFor(() => expect(text('list')).toBe('started'))
    const second = await client.startFlow<typeof Review>('review', { text: 'second' })
    await waitFor(() => expect(text('list')).toBe('started started'))
    const done = first.waitForCompletion()
    await rig.complete(first.runId)
    await done
    await waitFor(() => expect(text('list')).toBe('started completed'), { timeout: 2000 })
    expect(latest.runs?.map(({ input }) => input.text)).toEqual(['second', 'first'])
    await second.cancel()
    await waitFor(() => expect(text('list')).toBe('cancelled completed'), { timeout: 2000 })
  })

  it('sees at once, by the channel alone, that runs end which nobody shows', async () => {
    const [first, second] = await client.startFlows<typeof Review>('review', [{ text: 'a' }, { text: 'b' }])
    const channelReady = ready(supabase)
    render(inProvider(<List filter={{}} />))
    await channelReady
    await waitFor(() => expect(text('list')).toBe('started started'))
    // The requests of the join are over.
    await client.listRuns()
    const { length } = line.requests
    await rig.complete(second!.runId)
    await waitFor(() => expect(text('list')).toBe('completed started'))
    expect(line.requests.slice(length)).toEqual(['list_runs'])
    await rig.complete(first!.runId)
    await waitFor(() => expect(text('list')).toBe('completed completed'), { timeout: 2000 })
    await waitFor(() => expect(supabase.getChannels()).toEqual([]))
  })

  it('sees the end of runs that nobody shows', async () => {
    const runId = await start()
    render(inProvider(<List filter={{}} />))
    await waitFor(() => expect(text('list')).toBe('started'))
    await rig.complete(runId)
    await waitFor(() => expect(text('list')).toBe('completed'), { timeout: 10_000 })
    const { length } = line.requests
    await supabase.rpc('nothing')
    expect(line.requests.slice(length)).toEqual(['nothing'])
  })

  it('lists as many again', async () => {
    await client.startFlows<typeof Review>('review', [{ text: 'a' }, { text: 'b' }, { text: 'c' }])
    const filter = { limit: 2 }
    render(inProvider(<List filter={filter} />))
    await waitFor(() => expect(text('list')).toBe('started started'))
    expect(latest.hasMore).toBe(true)
    latest.more()
    await waitFor(() => expect(text('list')).toBe('started started started'))
    expect(latest.hasMore).toBe(false)
  })

  it('shows nothing of one filter for another', async () => {
    await start()
    const { rerender } = render(inProvider(<List filter={{ status: 'started' }} />))
    await waitFor(() => expect(text('list')).toBe('started'))
    rerender(inProvider(<List filter={{ status: 'failed' }} />))
    expect(latest.runs).toBeNull()
    await waitFor(() => expect(latest.runs).toEqual([]))
  })

  it('goes on while the server is unreachable, with what it knows', async () => {
    await start()
    render(inProvider(<List filter={{}} />))
    await waitFor(() => expect(text('list')).toBe('started'))
    line.broken = () => Promise.reject(new TypeError('fetch failed'))
    latest.refresh()
    await waitFor(() => expect(text('list')).toBe('unreachable'))
    expect(latest.runs).toHaveLength(1)
    line.broken = undefined
    window.dispatchEvent(new Event('online'))
    await waitFor(() => expect(text('list')).toBe('started'))
  })

  it('is rendered on a server without asking for anything', () => {
    expect(renderToString(inProvider(<List filter={{}} />))).toBe('<p data-testid="list"></p>')
    expect(line.requests).toEqual([])
  })
})

it('usePgflow says what is missing without a provider', () => {
  function Lost() {
    usePgflow()
    return null
  }
  expect(() => renderToString(<Lost />)).toThrow('put <PgflowProvider client={…}> around this')
})

describe('useWaits', () => {
  const Approve = new Flow<{ by: string }>({ slug: 'approve', startRole: 'authenticated' }).wait({
    slug: 'approval',
    by: 'run.by',
  })
  let latest: WaitsState

  function Inbox() {
    latest = useWaits({ flowSlug: 'approve' })
    return (
      <p data-testid="inbox">
        {latest.error?.code ?? latest.waits?.map(({ step_slug }) => step_slug).join(' ')}
      </p>
    )
  }

  it('lists what the user is asked, of which the channel tells, and decides it', async () => {
    await rig.sql.unsafe(compile(Approve))
    const reviewer = randomUUID()
    supabase = await rig.user(reviewer, { global: { fetch: line.fetch } })
    client = new PgflowClient(supabase)
    const others = new PgflowClient(await rig.user())
    const channelReady = ready(supabase)
    const view = render(inProvider(<Inbox />))
    await channelReady
    await waitFor(() => expect(text('inbox')).toBe(''))
    const messages: unknown[] = []
    supabase.getChannels()[0]!.on('broadcast', { event: 'waits' }, ({ payload }) => messages.push(payload))
    const runs = await others.startFlows<typeof Approve>('approve', [{ by: reviewer }, { by: randomUUID() }])
    await waitFor(() => expect(text('inbox')).toBe('approval'))
    const { runId } = runs[0]!
    expect(messages).toEqual([
      { waits: [{ run_id: runId, flow_slug: 'approve', step_slug: 'approval', open: true }] },
    ])
    const [wait] = latest.waits!
    expect(wait).toMatchObject({ run_id: runId, input: { run: { by: reviewer } } })
    await latest.complete(wait!, { approved: true })
    await waitFor(() => expect(text('inbox')).toBe(''))
    expect(await runs[0]!.waitForCompletion()).toEqual({ approval: { approved: true } })
    view.unmount()
    await waitFor(() => expect(supabase.getChannels()).toEqual([]))
  })
})

describe('useChildren', () => {
  const Reviews = new Flow({ slug: 'reviews', startRole: 'authenticated' })
    .input<{ text: string }[]>()
    .flowMap({ slug: 'each', flow: Review })

  function Children({ runId }: { runId: string }) {
    const { runs, error } = useChildren<typeof Review>(runId, 'each')
    return (
      <p data-testid="children">
        {error?.code ?? runs?.map(({ input, status }) => `${input.text} ${status}`).join(', ')}
      </p>
    )
  }

  it('lists the runs that a step starts, as they start and end', async () => {
    await rig.sql.unsafe(compile(Reviews))
    const channelReady = ready(supabase)
    const { runId } = await client.startFlow<typeof Reviews>('reviews', [{ text: 'a' }, { text: 'b' }])
    const view = render(inProvider(<Children runId={runId} />))
    await channelReady
    await rig.sql`select pgflow.tick()`
    await waitFor(() => expect(text('children')).toBe('a started, b started'))
    const [, second] = await rig.sql`select run_id from pgflow.list_children(${runId})`
    await rig.complete(second!.run_id)
    await waitFor(() => expect(text('children')).toBe('a started, b completed'))
    view.unmount()
    await waitFor(() => expect(supabase.getChannels()).toEqual([]))
  })
})
