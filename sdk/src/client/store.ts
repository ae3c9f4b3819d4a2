import type { EventOfType, RunEvent, RunSnapshot, StepState } from './types.ts'

/** An event as it travels: a large output is left out, and must be fetched. */
export type WireEvent = RunEvent & { readonly output_omitted?: boolean }

const epoch = new Date(0).toISOString()

/** A run of which only the id, the flow and the slugs of its steps are known. */
export function emptied(run: RunSnapshot): RunSnapshot {
  const { run_id, flow_slug } = run
  const steps = run.steps.map((step) => unstarted(step, epoch))
  // The columns that are never null.
  return {
    ...nullsOf(run),
    run_id,
    flow_slug,
    status: 'started',
    started_at: epoch,
    priority: 'normal',
    seq: 0,
    steps,
  }
}

/** A step before it starts, for the first time or again. */
function unstarted(step: StepState, created_at: string): StepState {
  return { ...nullsOf(step), step_slug: step.step_slug, status: 'created', retries: 0, created_at }
}

function nullsOf<Row extends object>(row: Row): Row {
  return Object.fromEntries(Object.keys(row).map((column) => [column, null])) as Row
}

/** What a run or step becomes by the event that is called so. */
export const statuses = ['started', 'completed', 'failed', 'cancelled', 'skipped'] as const

/** The status that events of this type give to their run or step, if they give one. */
function becomes(type: string) {
  return statuses.find((status) => status === type.split(':')[1])
}

/** The snapshot after the event; the one before stays as it was. An unknown type of event sets its columns only. */
export function applyEvent(snapshot: RunSnapshot, event: RunEvent): RunSnapshot {
  const { seq, step_slug } = event
  if (event.type === 'run:retried') return reopen(snapshot, event)
  const steps = snapshot.steps.map((step) => (step.step_slug === step_slug ? changed(step, event) : step))
  return { ...(step_slug === null ? changed(snapshot, event) : snapshot), steps, seq }
}

/** A run or step with what the type of its event implies, and the fields of the event, as far as they are columns of it. */
function changed<Row extends object>(row: Row, { seq, type, step_slug, at, ...fields }: RunEvent): Row {
  const status = becomes(type)
  const news = {
    ...(status && {
      status,
      [`${status}_at`]: at,
      ...((status === 'started' || status === 'completed') && { error: null }),
    }),
    ...fields,
  }
  return { ...row, ...Object.fromEntries(Object.entries(news).filter(([name]) => name in row)) }
}

function reopen(
  snapshot: RunSnapshot,
  { seq, step_slugs }: EventOfType<RunEvent, 'run:retried'>,
): RunSnapshot {
  const steps = snapshot.steps.map((step) =>
    step_slugs.includes(step.step_slug) ? unstarted(step, step.created_at) : step,
  )
  return { ...snapshot, status: 'started', error: null, failed_at: null, cancelled_at: null, steps, seq }
}

/**
 * The state of one run, brought forward event by event. Events may come in any order and any number of times; each is
 * given out once, in order, when it has been applied.
 */
export class RunStore {
  #snapshot: RunSnapshot
  readonly #log: RunEvent[] = []
  readonly #pending = new Map<number, WireEvent>()

  constructor(snapshot: RunSnapshot) {
    this.#snapshot = snapshot
  }

  get snapshot(): RunSnapshot {
    return this.#snapshot
  }

  /** Whether the run has not been read: each run that has been has an event. */
  get isEmpty(): boolean {
    return this.#snapshot.seq === 0
  }

  /** Whether the events before the first snapshot are known; until then, nothing is applied. */
  get loaded(): boolean {
    return !this.isEmpty && this.#log.length === this.#snapshot.seq
  }

  /** The number of the last event up to which the log is known. */
  get cursor(): number {
    return this.#log.length
  }

  /** What keeps the next event from being applied: others before it, or its output. */
  get missing(): 'events' | 'output' | undefined {
    if (this.#pending.size === 0) return undefined
    return this.#pending.get(this.#snapshot.seq + 1)?.output_omitted ? 'output' : 'events'
  }

  /** Whether the run has ended, and nothing under it is open. */
  get closed(): boolean {
    return (
      isOver(this.#snapshot) && this.#snapshot.steps.every(({ status }) => !/created|started/.test(status))
    )
  }

  /** The events that made the run and its steps what they are now, in order: a late listener is told of these. */
  get currentEvents(): RunEvent[] {
    const latest = new Map<string | null, Record<string, RunEvent>>()
    for (const event of this.#log) {
      const { type, step_slug } = event
      if (type === 'run:retried') for (const slug of [null, ...event.step_slugs]) latest.delete(slug)
      // A change of status ends what was known of its run or step; progress, retries and what else there may be add to it.
      latest.set(step_slug, { ...(becomes(type) ? {} : latest.get(step_slug)), [type]: event })
    }
    return [...latest.values()].flatMap(Object.values).sort((a, b) => a.seq - b.seq)
  }

  /** The events that a listener has not been told of; for a new one (0), those that made the run what it is now. */
  eventsAfter(seq: number): readonly RunEvent[] {
    if (!this.loaded) return []
    return seq === 0 ? this.currentEvents : this.#log.slice(seq)
  }

  /** The event with this number, if it is known to have happened; `null` if the run has ended before it. */
  eventAt(seq: number): RunEvent | null | undefined {
    if (!this.loaded) return undefined
    return this.#log[seq - 1] ?? (this.closed ? null : undefined)
  }

  /** Takes a snapshot that is not older, before the first event has been applied, and says whether it did. */
  restart(snapshot: RunSnapshot): boolean {
    if (this.loaded || snapshot.seq < this.#snapshot.seq) return false
    this.#snapshot = snapshot
    for (const seq of this.#pending.keys()) {
      if (seq <= snapshot.seq) this.#pending.delete(seq)
    }
    return true
  }

  /**
   * Takes events from anywhere, and says how many are news. Those before the first snapshot complete the log up to it; they are
   * taken in their order.
   */
  add(events: readonly WireEvent[]): number {
    const before = this.#pending.size
    for (const event of events) {
      if (event.seq > this.#snapshot.seq) {
        if (!this.#pending.has(event.seq)) this.#pending.set(event.seq, event)
      } else if (event.seq === this.cursor + 1) this.#log.push(withOutput(event, this.#snapshot))
    }
    return this.#pending.size - before
  }

  /** Fills in the outputs that were too large for the log. */
  fill(snapshot: RunSnapshot): void {
    for (const [seq, event] of this.#pending) {
      if (seq <= snapshot.seq) this.#pending.set(seq, withOutput(event, snapshot))
    }
  }

  /** Applies the next event and returns it, if it is there and complete. */
  next(): RunEvent | undefined {
    const event = this.#pending.get(this.#snapshot.seq + 1)
    if (!this.loaded || event === undefined || event.output_omitted) return undefined
    this.#pending.delete(event.seq)
    this.#snapshot = applyEvent(this.#snapshot, event)
    this.#log.push(event)
    return event
  }
}

/** Whether the run has ended, well or not. */
export function isOver(snapshot: RunSnapshot): boolean {
  return snapshot.status !== 'started'
}

function withOutput(event: WireEvent, snapshot: RunSnapshot): WireEvent {
  if (!event.output_omitted) return event
  const row =
    event.step_slug === null
      ? snapshot
      : snapshot.steps.find(({ step_slug }) => step_slug === event.step_slug)
  const { output_omitted, ...rest } = event
  // Only `:completed` events have an output to leave out.
  return { ...rest, output: row?.output ?? null } as RunEvent
}
