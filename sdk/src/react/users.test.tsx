import './testing/page.ts'
import { randomUUID } from 'node:crypto'
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
  type StartFlow,
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
let stopCollecting: () => void

beforeAll(async () => {
  rig = await Rig.start()
})
afterAll(() => rig.stop())

beforeEach(async () => {
  line = new Line()
  const auth = { persistSession: false, autoRefreshToken: false, storageKey: randomUUID() }
  supabase = rig.client({ auth, global: { fetch: line.fetch } })
  client = new PgflowClient(supabase)
  seen = []
  stopCollecting = () => {}
})
afterEach(() => {
  stopCollecting()
  cleanup()
})

const signIn = async () => {
  const { error } = await supabase.auth.signInAnonymously()
  expect(error).toBeNull()
}

const signOut = () => supabase.auth.signOut()

/** The texts of the runs say whose they are. */
const start = async (input: string) =>
  (await client.startFlow<typeof Review>('review', { text: input })).runId

const page = (children: ReactNode) => (
  <StrictMode>
    <PgflowProvider client={client}>{children}</PgflowProvider>
  </StrictMode>
)

const text = (name: string) => screen.getByTestId(name).textContent

/** All that the document has shown since the user changed. */
let seen: string[]

/** Collects from the moment at which the client knows that the user has changed. */
function collect(): void {
  const look = () => seen.push(document.body.innerHTML)
  const observer = new MutationObserver(look)
  const stop = client.lives.events.on('userChanged', () => {
    // The hooks have been told before, and React renders before anything else can happen.
    queueMicrotask(() => {
      look()
      observer.observe(document.body, { childList: true, subtree: true, characterData: true })
    })
  })
  stopCollecting = () => {
    stop()
    observer.disconnect()
  }
}

function ShowRun({ runId, ...options }: UseRunOptions<typeof Review> & { runId: string }) {
  const state = useRun<typeof Review>(runId, options)
  run = state
  return <p data-testid="run">{state.error?.code ?? JSON.stringify(state.run ?? 'nothing')}</p>
}

function ShowSelected({ runId }: { runId: string }) {
  const { selected } = useRun(runId, { select: ({ input, status }: ReviewRun) => ({ input, status }) })
  return <p data-testid="selected">{JSON.stringify(selected)}</p>
}

function ShowRuns() {
  const { runs, error } = useRuns<typeof Review>()
  return (
    <p data-testid="runs">{error?.code ?? JSON.stringify(runs?.map(({ input }) => input.text) ?? null)}</p>
  )
}

function ShowStarts() {
  starts = useStartFlow<typeof Review>('review')
  return <p data-testid="starts">{starts.error?.code ?? starts.run?.input.text ?? 'idle'}</p>
}

function ShowFlow() {
  flow = useFlow<typeof Review>('review', { onCompleted: (run) => ended.push(run.input.text) })
  return <p data-testid="flow">{`${flow.status} ${flow.error?.code ?? flow.run?.input.text}`}</p>
}

let run: RunState<typeof Review>
let starts: StartFlow<typeof Review>
let flow: FlowState<typeof Review>
const ended: string[] = []

describe('when A signs out and B signs in', () => {
  it('no hook shows anything of A, and each shows what is of B', async () => {
    await signIn()
    const runId = await start('of A')
    const everything = page([
      <ShowRun key="run" runId={runId} />,
      <ShowSelected key="selected" runId={runId} />,
      <ShowRuns key="runs" />,
      <ShowStarts key="starts" />,
      <ShowFlow key="flow" />,
    ])
    render(everything)
    await rig.complete(runId)
    await starts.start({ text: 'started by A' })
    await flow.start({ text: 'followed by A' })
    await waitFor(() => expect(text('run')).toContain('"status":"completed"'))
    await waitFor(() => expect(text('selected')).toContain('of A'))
    await waitFor(() => expect(text('runs')).toBe('["followed by A","started by A","of A"]'))
    await waitFor(() => expect(text('starts')).toBe('started by A'))
    await waitFor(() => expect(text('flow')).toBe('started followed by A'))

    collect()
    await signOut()
    await waitFor(() => expect(text('flow')).toBe('idle undefined'))
    await signIn()
    await waitFor(() => expect(text('run')).toBe('PT404'))
    await waitFor(() => expect(text('runs')).toBe('[]'))
    await starts.start({ text: 'started by B' })
    await flow.start({ text: 'followed by B' })
    await waitFor(() => expect(text('runs')).toBe('["followed by B","started by B"]'))
    await waitFor(() => expect(text('flow')).toBe('started followed by B'))
    await rig.complete(flow.run!.run_id)
    await waitFor(() => expect(text('flow')).toBe('completed followed by B'))
    expect(seen.length).toBeGreaterThan(5)
    expect(seen.filter((shown) => / A\b/.test(shown))).toEqual([])
    expect(seen.filter((shown) => /user_changed/.test(shown))).toEqual([])
    expect(ended).toEqual(['followed by B'])
  })

  it('A sees it all again, when A signs in again', async () => {
    await signIn()
    const { data } = await supabase.auth.getSession()
    const runId = await start('of A')
    render(page([<ShowRun key="run" runId={runId} />, <ShowRuns key="runs" />]))
    await waitFor(() => expect(text('runs')).toBe('["of A"]'))
    await supabase.auth.signOut({ scope: 'local' })
    await waitFor(() => expect(text('run')).not.toContain('of A'))
    await signIn()
    await waitFor(() => expect(text('run')).toBe('PT404'))
    await supabase.auth.setSession(data.session!)
    await waitFor(() => expect(text('run')).toContain('of A'))
    await waitFor(() => expect(text('runs')).toBe('["of A"]'))
    await rig.complete(runId)
    await waitFor(() => expect(text('run')).toContain('"status":"completed"'))
  })
})

describe('a component that was mounted before the sign-in', () => {
  it('shows the run and the list after it', async () => {
    await signIn()
    const { data } = await supabase.auth.getSession()
    const runId = await start('of A')
    await supabase.auth.signOut({ scope: 'local' })
    client = new PgflowClient(Object.create(supabase))
    render(page([<ShowRun key="run" runId={runId} />, <ShowRuns key="runs" />]))
    await waitFor(() =>
      expect(line.requests.slice(-4)).toEqual(expect.arrayContaining(['get_run', 'list_runs'])),
    )
    await supabase.auth.setSession(data.session!)
    await waitFor(() => expect(text('run')).toContain('of A'))
    await waitFor(() => expect(text('runs')).toBe('["of A"]'))
  })
})

describe('a run that a server has read for A', () => {
  it.each([true, false])('is not shown to B, mounted again or not (followed: %s)', async (enabled) => {
    await signIn()
    const runId = await start('of A')
    const initialRun = (await client.getRun<typeof Review>(runId)).snapshot
    const shown = (key: string) =>
      page(<ShowRun key={key} runId={runId} initialRun={initialRun} enabled={enabled} />)
    const { rerender } = render(shown('first'))
    expect(text('run')).toContain('of A')
    collect()
    await signOut()
    await signIn()
    await waitFor(() => expect(text('run')).toBe(enabled ? 'PT404' : '"nothing"'))
    rerender(shown('second'))
    await waitFor(() => expect(text('run')).toBe(enabled ? 'PT404' : '"nothing"'))
    expect(seen.filter((document) => document.includes('of A'))).toEqual([])
  })
})

describe('what A has asked for', () => {
  it('is not shown to B when it is answered late', async () => {
    await signIn()
    const runId = await start('of A')
    render(page([<ShowRun key="run" runId={runId} />, <ShowStarts key="starts" />]))
    await waitFor(() => expect(text('run')).toContain('of A'))
    const answers: (() => void)[] = []
    line.broken = (input, init) => {
      if (!/cancel_run|start_flow/.test(String(input))) return fetch(input, init)
      return new Promise((_, reject) => answers.push(() => reject(new TypeError('fetch failed'))))
    }
    const cancelling = run.cancel()
    const starting = starts.start({ text: 'started by A' })
    await waitFor(() => expect(answers).toHaveLength(2))
    collect()
    await signOut()
    await signIn()
    for (const answer of answers) answer()
    expect(await starting).toBeNull()
    await cancelling
    await waitFor(() => expect(text('run')).toBe('PT404'))
    expect(text('starts')).toBe('idle')
    line.broken = undefined
    await starts.start({ text: 'started by B' })
    await waitFor(() => expect(text('starts')).toBe('started by B'))
    expect(seen.filter((document) => /unreachable|user_changed| A\b/.test(document))).toEqual([])
  })
})

describe('what the server refuses to show', () => {
  it.each([true, false])('disappears (followed: %s)', async (enabled) => {
    await signIn()
    const runId = await start('of A')
    const initialRun = (await client.getRun<typeof Review>(runId)).snapshot
    client = new PgflowClient(Object.create(supabase))
    render(page(<ShowRun runId={runId} initialRun={initialRun} enabled={enabled} />))
    expect(text('run')).toContain('of A')
    await rig.sql`delete from pgflow.runs where run_id = ${runId}`
    await run.cancel()
    await waitFor(() => expect(text('run')).toBe('PT404'))
    expect(run.run).toBeNull()
  })
})
