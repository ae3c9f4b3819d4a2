import { describe, expect, it } from 'vitest'
import { applyEvent, RunStore, type WireEvent } from './store.ts'
import type { RunSnapshot, StepState } from './types.ts'

const at = (second: number) => `2026-01-01T00:00:${String(second).padStart(2, '0')}+00:00`

function step(step_slug: string): StepState {
  return {
    step_slug,
    status: 'created',
    output: null,
    error: null,
    skip_reason: null,
    progress: null,
    retries: 0,
    retry_at: null,
    initial_tasks: null,
    waits_for: null,
    due_at: null,
    created_at: at(0),
    started_at: null,
    completed_at: null,
    failed_at: null,
    skipped_at: null,
  }
}

function startOf(...slugs: string[]): RunSnapshot {
  return {
    run_id: '00000000-0000-0000-0000-000000000001',
    flow_slug: 'greet',
    status: 'started',
    input: null,
    output: null,
    error: null,
    owner_id: null,
    group_id: null,
    idempotency_key: null,
    metadata: null,
    started_at: at(0),
    completed_at: null,
    failed_at: null,
    cancelled_at: null,
    priority: 'normal',
    waits_for: null,
    undoes: null,
    undone_by: null,
    seq: 0,
    steps: slugs.map(step),
  }
}

const log: WireEvent[] = [
  { seq: 1, type: 'run:started', step_slug: null, at: at(1) },
  { seq: 2, type: 'step:started', step_slug: 'text', at: at(2), initial_tasks: 1 },
  { seq: 3, type: 'step:retrying', step_slug: 'text', at: at(3), error: 'Oh', retries: 1, retry_at: at(4) },
  { seq: 4, type: 'step:progress', step_slug: 'text', at: at(4), progress: { done: 1 } },
  { seq: 5, type: 'step:completed', step_slug: 'text', at: at(5), output: 'Hello' },
  { seq: 6, type: 'step:started', step_slug: 'mail', at: at(5), initial_tasks: 1 },
  { seq: 7, type: 'step:completed', step_slug: 'mail', at: at(7), output: false },
  { seq: 8, type: 'run:completed', step_slug: null, at: at(7), output: { mail: false } },
]

/** All that the store gives out now. */
function drain(store: RunStore): number[] {
  const seqs: number[] = []
  for (let event = store.next(); event !== undefined; event = store.next()) seqs.push(event.seq)
  return seqs
}

function storeAt(seq: number): RunStore {
  const store = new RunStore(log.slice(0, seq).reduce(applyEvent, startOf('text', 'mail')))
  store.add(log.slice(0, seq))
  return store
}

describe('applyEvent', () => {
  it('sets what each transition of a step sets', () => {
    const retrying = log.slice(0, 4).reduce(applyEvent, startOf('text', 'mail'))
    expect(retrying.steps[0]).toEqual({
      ...step('text'),
      status: 'started',
      started_at: at(2),
      initial_tasks: 1,
      error: 'Oh',
      retries: 1,
      retry_at: at(4),
      progress: { done: 1 },
    })
    expect(retrying.steps[1]).toEqual(step('mail'))
    const completed = applyEvent(retrying, log[4]!)
    expect(completed.steps[0]).toMatchObject({
      status: 'completed',
      error: null,
      output: 'Hello',
      completed_at: at(5),
    })
  })

  it('sets what each transition of a run sets', () => {
    const completed = log.reduce(applyEvent, startOf('text', 'mail'))
    expect(completed).toMatchObject({
      status: 'completed',
      output: { mail: false },
      completed_at: at(7),
      seq: 8,
    })

    const failed = applyEvent(startOf(), {
      seq: 1,
      type: 'run:failed',
      step_slug: null,
      at: at(1),
      error: 'Oh',
    })
    expect(failed).toEqual({ ...startOf(), seq: 1, status: 'failed', error: 'Oh', failed_at: at(1) })

    const retried = applyEvent(failed, {
      seq: 2,
      type: 'run:retried',
      step_slug: null,
      at: at(2),
      step_slugs: [],
    })
    expect(retried).toEqual({ ...startOf(), seq: 2 })

    const cancelled = applyEvent(startOf(), {
      seq: 1,
      type: 'run:cancelled',
      step_slug: null,
      at: at(1),
      error: null,
    })
    expect(cancelled).toEqual({ ...startOf(), seq: 1, status: 'cancelled', cancelled_at: at(1) })
  })

  it.each([
    [
      { type: 'step:failed', error: 'Oh' },
      { status: 'failed', error: 'Oh', failed_at: at(1) },
    ],
    [
      { type: 'step:skipped', skip_reason: 'attempts_exhausted', error: 'Oh' },
      { status: 'skipped', skip_reason: 'attempts_exhausted', error: 'Oh', skipped_at: at(1) },
    ],
    [{ type: 'step:cancelled' }, { status: 'cancelled' }],
    [
      { type: 'step:started', initial_tasks: null },
      { status: 'started', started_at: at(1), error: null },
    ],
  ] as const)('applies $type', (event, columns) => {
    const after = applyEvent(startOf('text'), { seq: 1, step_slug: 'text', at: at(1), ...event })
    expect(after.steps[0]).toEqual({ ...step('text'), ...columns })
  })

  it('leaves the snapshot before as it was', () => {
    const before = startOf('text', 'mail')
    const copy = structuredClone(before)
    log.reduce(applyEvent, before)
    expect(before).toEqual(copy)
  })

  it('tells a step that waits for a slot from one that runs', () => {
    const began = { seq: 1, type: 'step:started', step_slug: 'text', at: at(1), initial_tasks: 1 } as const
    const waiting = applyEvent(startOf('text'), { ...began, waits_for: 'slot', due_at: null })
    const news = { seq: 2, type: 'step:admitted', step_slug: 'text', at: at(2), waits_for: null } as const
    const started = { ...step('text'), status: 'started', started_at: at(1), initial_tasks: 1 }
    expect(waiting.steps).toEqual([{ ...started, waits_for: 'slot' }])
    expect(applyEvent(waiting, news).steps).toEqual([started])
  })

  it.each(['dreaming', 'restarted'])(
    'sets the columns of an event step:%s, which it does not know',
    (type) => {
      const event = {
        seq: 1,
        type: `step:${type}`,
        step_slug: 'text',
        at: at(1),
        waits_for: 'time',
        mood: 'good',
      }
      expect(applyEvent(startOf('text'), event as unknown as WireEvent)).toEqual({
        ...startOf('text'),
        steps: [{ ...step('text'), waits_for: 'time' }],
        seq: 1,
      })
    },
  )

  it('ignores what it does not know of an event, and who did it', () => {
    const actor = { id: null, role: 'service_role' }
    const news = { seq: 1, at: at(1), actor, mood: 'good' }
    const ofStep = {
      ...news,
      type: 'step:started',
      step_slug: 'text',
      initial_tasks: 1,
    } as unknown as WireEvent
    const { initial_tasks, mood, actor: by, ...sameWithout } = ofStep as WireEvent & Record<string, unknown>
    expect(applyEvent(startOf('text'), ofStep)).toEqual(
      applyEvent(startOf('text'), { ...sameWithout, initial_tasks: 1 } as WireEvent),
    )
    const ofRun = { ...news, type: 'run:cancelled', step_slug: null, error: 'enough' } as unknown as WireEvent
    expect(applyEvent(startOf('text'), ofRun)).toEqual({
      ...startOf('text'),
      status: 'cancelled',
      error: 'enough',
      cancelled_at: at(1),
      seq: 1,
    })
    const unknown = { ...news, type: 'run:archived', step_slug: null } as unknown as WireEvent
    expect(applyEvent(startOf('text'), unknown)).toEqual({ ...startOf('text'), seq: 1 })
  })
})

describe('RunStore', () => {
  it('gives out every event once and in order, however they come', () => {
    for (let round = 0; round < 200; round++) {
      const store = storeAt(1 + (round % (log.length - 1)))
      const known = store.snapshot.seq
      const seen: number[] = []
      for (const event of shuffled([...log, ...log, ...log], round)) {
        store.add([event])
        seen.push(...drain(store))
      }
      expect(seen).toEqual(log.slice(known).map(({ seq }) => seq))
      expect(store.snapshot).toEqual(log.reduce(applyEvent, startOf('text', 'mail')))
      expect(store.missing).toBeUndefined()
    }
  })

  it('tells a gap, and how many events are news', () => {
    const store = storeAt(2)
    expect(store.add([log[0]!, log[1]!])).toBe(0)
    expect(store.add([log[4]!, log[4]!, log[5]!])).toBe(2)
    expect(drain(store)).toEqual([])
    expect(store.missing).toBe('events')
    store.add([log[2]!, log[3]!])
    expect(drain(store)).toEqual([3, 4, 5, 6])
    expect(store.missing).toBeUndefined()
  })

  it('applies nothing before the log is known', () => {
    const store = new RunStore(storeAt(4).snapshot)
    store.add(log.slice(4))
    expect(drain(store)).toEqual([])
    expect([store.loaded, store.cursor]).toEqual([false, 0])
    store.add(log.slice(0, 2))
    expect([store.loaded, store.cursor]).toEqual([false, 2])
    store.add(log.slice(3))
    expect(drain(store)).toEqual([])
    store.add(log.slice(0, 4))
    expect(drain(store)).toEqual([5, 6, 7, 8])
    expect(log.map(({ seq }) => store.eventAt(seq))).toEqual(log)
  })

  it('waits for an output that was left out', () => {
    const store = storeAt(4)
    const { output, ...rest } = log[4] as WireEvent & { output: unknown }
    store.add([{ ...rest, output_omitted: true } as WireEvent, log[5]!])
    expect(drain(store)).toEqual([])
    expect(store.missing).toBe('output')
    store.fill(storeAt(4).snapshot)
    expect(store.missing).toBe('output')
    store.fill(storeAt(8).snapshot)
    expect(store.next()).toEqual(log[4])
    expect(drain(store)).toEqual([6])
  })

  it('takes outputs left out of the log before the snapshot from the snapshot', () => {
    const store = new RunStore(storeAt(8).snapshot)
    const omitted = log.map((event) => {
      if (!('output' in event)) return event
      const { output, ...rest } = event
      return { ...rest, output_omitted: true } as WireEvent
    })
    store.add(omitted)
    expect(store.currentEvents).toEqual([log[4], log[6], log[7]])
  })

  it('knows which events stand', () => {
    const seqs = (store: RunStore) => store.currentEvents.map(({ seq }) => seq)
    expect(seqs(storeAt(4))).toEqual([1, 2, 3, 4])
    expect(seqs(storeAt(6))).toEqual([1, 5, 6])
    const store = storeAt(2)
    store.add(log)
    drain(store)
    expect(seqs(store)).toEqual([5, 7, 8])
  })

  it('knows what a run waits for, from its first event on', () => {
    const waiting: WireEvent[] = [
      { seq: 1, type: 'run:started', step_slug: null, at: at(1), waits_for: 'time' },
      { seq: 2, type: 'run:waiting', step_slug: null, at: at(2), waits_for: 'run' },
      { seq: 3, type: 'run:begun', step_slug: null, at: at(3), waits_for: null },
      { seq: 4, type: 'step:started', step_slug: 'text', at: at(3), initial_tasks: 1 },
    ]
    const store = new RunStore(applyEvent(startOf('text', 'mail'), waiting[0]!))
    store.add(waiting)
    const states: unknown[] = [store.snapshot]
    while (store.next()) states.push(store.snapshot)
    expect(states).toMatchObject([
      { status: 'started', waits_for: 'time', started_at: at(1) },
      { status: 'started', waits_for: 'run' },
      { status: 'started', waits_for: null, started_at: at(1) },
      { seq: 4 },
    ])
    expect(store.currentEvents).toEqual(waiting)
    const cancelled = {
      type: 'run:cancelled',
      step_slug: null,
      at: at(2),
      error: null,
      waits_for: null,
    } as const
    expect(applyEvent(states[1] as RunSnapshot, { seq: 3, ...cancelled })).toMatchObject({
      status: 'cancelled',
      waits_for: null,
    })
  })

  it('adds to these what changes no status, of later versions too, until the run is retried', () => {
    const news = [
      'step:started',
      'step:admitted',
      'step:dreaming',
      'run:failed',
      'run:dreaming',
      'run:retried',
    ]
    const events = news.map((type, index) => ({
      seq: index + 2,
      type,
      step_slug: type.startsWith('step') ? 'text' : null,
      at: at(1),
      ...(type === 'run:retried' && { step_slugs: ['text'] }),
    })) as unknown as WireEvent[]
    const store = storeAt(1)
    const seen = events.map((event) => {
      store.add([event])
      drain(store)
      return store.currentEvents.map(({ seq }) => seq)
    })
    expect(seen).toEqual([[1, 2], [1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [2, 3, 4, 5, 6], [7]])
  })

  it('takes a newer snapshot only before the first event', () => {
    const store = new RunStore(storeAt(2).snapshot)
    store.add([log[2]!, log[6]!])
    store.restart(storeAt(6).snapshot)
    expect(store.snapshot).toEqual(storeAt(6).snapshot)
    store.restart(storeAt(3).snapshot)
    expect(store.snapshot.seq).toBe(6)
    store.add(log.slice(0, 6))
    expect(drain(store)).toEqual([7])
    store.restart(storeAt(8).snapshot)
    expect(store.snapshot.seq).toBe(7)
  })

  it('is closed when the run has ended and no step is open', () => {
    expect(storeAt(7).closed).toBe(false)
    expect(storeAt(8).closed).toBe(true)
    const store = new RunStore({ ...startOf('text'), seq: 1 })
    store.add([log[0]!, { seq: 2, type: 'run:failed', step_slug: null, at: at(1), error: 'Oh' }])
    drain(store)
    expect(store.closed).toBe(false)
    store.add([{ seq: 3, type: 'step:cancelled', step_slug: 'text', at: at(1) }])
    drain(store)
    expect(store.closed).toBe(true)
  })
})

/** The same order for the same seed. */
function shuffled<T>(items: T[], seed: number): T[] {
  let state = seed + 1
  const random = () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648
  }
  return items
    .map((item) => ({ item, rank: random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item)
}
