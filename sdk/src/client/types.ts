import type {
  AnyFlow,
  ChildFlowOf,
  InputOf,
  Json,
  JsonOf,
  OutputOf,
  StepProgressOf,
  StepsOf,
} from '../flow/index.ts'

export type RunStatus = 'started' | 'completed' | 'failed' | 'cancelled'

/** Which tasks come first. */
export type Priority = 'high' | 'normal' | 'low'

export type StepStatus = 'created' | 'started' | 'completed' | 'failed' | 'skipped' | 'cancelled'

/** The slugs of a flow's steps. */
export type StepSlug<F extends AnyFlow> = keyof StepsOf<F> & string

/** What is stored of a run's input; `unknown` where the flow does not say. */
type StoredInput<F extends AnyFlow> = unknown extends InputOf<F> ? unknown : JsonOf<InputOf<F>>

/** A run without its steps, as it is listed. Times are ISO strings. */
export type RunRow<F extends AnyFlow = AnyFlow> = RunRecord<StoredInput<F>, OutputOf<F>>

/** It has the types of a flow one by one, so that a row of any flow is a `RunRow`. */
interface RunRecord<Input, Output> {
  readonly run_id: string
  readonly flow_slug: string
  readonly status: RunStatus
  readonly input: Input
  /** `null` until the run has completed. */
  readonly output: Output | null
  readonly error: string | null
  readonly owner_id: string | null
  /** The group that it is shared with, a team for instance. */
  readonly group_id: string | null
  readonly idempotency_key: string | null
  readonly metadata: Json
  readonly started_at: string
  readonly completed_at: string | null
  readonly failed_at: string | null
  readonly cancelled_at: string | null
  readonly priority: Priority
  /**
   * What a run waits for that has not begun, of a flow that has one run at a time: for another `'run'`, or for a `'time'` without
   * further starts; `null` in all others.
   */
  readonly waits_for: 'run' | 'time' | null
  /** Of a run that undoes what another one has completed, that run. */
  readonly undoes: string | null
  /** The run that undoes what this one has completed, as of when it was read; no event tells of it. */
  readonly undone_by: string | null
  /** Only in runs that a step of another run has started: that run, the step, its task (the item's index in a map), and how deep it is. */
  readonly parent_run_id?: string
  readonly parent_step_slug?: string
  readonly parent_task_index?: number
  readonly depth?: number
}

/** A run that a step of another run has started, without its steps. */
export type ChildRow<F extends AnyFlow = AnyFlow> = RunRow<F> &
  Required<Pick<RunRow, 'parent_run_id' | 'parent_step_slug' | 'parent_task_index' | 'depth'>>

/** What is listed of the runs that the steps of a flow start, by the slugs of the steps; `never` where they start none. */
export type ChildRows<F extends AnyFlow = AnyFlow> = {
  readonly [Slug in StepSlug<F>]: RowOfChild<ChildFlowOf<F, Slug>>
}

type RowOfChild<Child extends AnyFlow> = Child extends AnyFlow ? ChildRow<Child> : never

/** A run with its steps: its row, the number of the last event in it, and its step states. */
export type RunSnapshot<F extends AnyFlow = AnyFlow> = RunWithSteps<
  StoredInput<F>,
  OutputOf<F>,
  StepStates<F>[StepSlug<F>]
>

interface RunWithSteps<Input, Output, State> extends RunRecord<Input, Output> {
  readonly seq: number
  /** In the order of their definition. */
  readonly steps: readonly State[]
}

/** The current state of a step of a run. */
export interface StepState<Slug extends string = string, Output = unknown, Progress = unknown> {
  readonly step_slug: Slug
  readonly status: StepStatus
  /** `null` until the step has completed. */
  readonly output: Output | null
  readonly error: string | null
  readonly skip_reason: string | null
  /** The latest progress: `{ value, data?, task_index? }` of a handler, with `{ done, total }` in a map or loop; `null` without. */
  readonly progress: Progress
  /** How many attempts have failed so far. */
  readonly retries: number
  readonly retry_at: string | null
  readonly initial_tasks: number | null
  /**
   * What a wait or sleep waits for: somebody's `'signal'`, or the `'time'`; a sub-flow for its `'run'`; `'slot'` while a step
   * waits until its limits let it run; `'sql'` of a step whose function is called. Else `null`.
   */
  readonly waits_for: 'signal' | 'time' | 'run' | 'slot' | 'sql' | null
  /** When a sleep ends, or a wait times out. */
  readonly due_at: string | null
  readonly created_at: string
  readonly started_at: string | null
  readonly completed_at: string | null
  readonly failed_at: string | null
  readonly skipped_at: string | null
}

/** A wait that the caller may complete, as it is listed. */
export interface WaitRow<Input = Json> {
  readonly run_id: string
  readonly flow_slug: string
  readonly step_slug: string
  /** Since when it waits. */
  readonly started_at: string
  /** When it times out; `null` where it waits without end. */
  readonly due_at: string | null
  /** What the step gets: `run` and the output of each step that it depends on. */
  readonly input: Input
  /** The JSON Schema of what completes it, if the flow has one. */
  readonly output_schema: Json
}

/** The steps of a run by their slugs. */
export type StepStates<F extends AnyFlow = AnyFlow> = {
  readonly [Slug in StepSlug<F>]: StepState<Slug, StepsOf<F>[Slug], StepProgressOf<F, Slug>>
}

/** What each type of event says of a run. */
interface RunColumns<F extends AnyFlow> {
  /** `waits_for` is what it waits for, if it does not begin at once. */
  'run:started': { readonly waits_for?: 'run' | 'time' }
  /** A run that has waited for a time waits for another run now. */
  'run:waiting': { readonly waits_for: 'run' | 'time' }
  /** A run that has waited begins. */
  'run:begun': { readonly waits_for: null }
  'run:completed': { readonly output: OutputOf<F> }
  'run:failed': { readonly error: string }
  'run:cancelled': { readonly error: string | null }
  /** The steps that run again, in the order of their definition. */
  'run:retried': { readonly step_slugs: readonly string[] }
}

/** What each type of event says of a step. */
interface StepColumns<Output, Progress> {
  'step:started': {
    readonly initial_tasks: number | null
    /** In waits, sleeps, sub-flows and SQL steps, and in steps that wait for a slot of a limit. */
    readonly waits_for?: 'signal' | 'time' | 'run' | 'slot' | 'sql'
    readonly due_at?: string | null
  }
  /** It has waited for a slot, and has one: a sub-flow now waits for its run. */
  'step:admitted': { readonly waits_for: 'run' | null }
  'step:progress': {
    readonly progress: Progress
    /** Of a loop that takes another turn: how many it has begun. */
    readonly initial_tasks?: number
    /** Of a loop whose next turn waits for a slot of a limit. */
    readonly waits_for?: 'slot'
  }
  'step:retrying': {
    readonly error: string
    readonly retries: number
    readonly retry_at: string
    /** In steps that then wait for a slot of a limit. */
    readonly waits_for?: 'slot'
  }
  'step:completed': { readonly output: Output }
  'step:failed': { readonly error: string }
  'step:skipped': { readonly skip_reason: string; readonly error: string | null }
  'step:cancelled': unknown
}

/** Who did something: a signed-in user, or the role of a server or of SQL. */
export interface Actor {
  /** The user's id; `null` where nobody was signed in. */
  readonly id: string | null
  /** The role in the database: `authenticated`, `anon`, `service_role`, `postgres`. */
  readonly role: string
}

interface EventRow<Type extends string, Slug extends string | null> {
  /** 1, 2, 3 … within the run, without gaps. */
  readonly seq: number
  readonly type: Type
  /** `null` in events of the run itself. */
  readonly step_slug: Slug
  readonly at: string
  /** Who started, cancelled or retried the run, or settled a task by hand; absent where a worker or the engine did it. */
  readonly actor?: Actor
}

type RunEvents<F extends AnyFlow> = {
  [Type in keyof RunColumns<F>]: EventRow<Type, null> & RunColumns<F>[Type]
}[keyof RunColumns<F>]

/** What happened to one step, told apart by `type`. */
export type StepEvent<Slug extends string = string, Output = unknown, Progress = unknown> = {
  [Type in keyof StepColumns<Output, Progress>]: EventRow<Type, Slug> & StepColumns<Output, Progress>[Type]
}[keyof StepColumns<Output, Progress>]

/**
 * What happened to a run or to one of its steps, told apart by `type` and `step_slug`: a row of the run's log.
 *
 * @example
 * run.on('*', (event) => event.type === 'step:retrying' && show(event.step_slug, event.retry_at))
 */
export type RunEvent<F extends AnyFlow = AnyFlow> =
  | RunEvents<F>
  | {
      [Slug in StepSlug<F>]: StepEvent<Slug, StepsOf<F>[Slug], Exclude<StepProgressOf<F, Slug>, null>>
    }[StepSlug<F>]

export type RunEventType = RunEvent['type']

/** The types of a step's events, as `run.step(slug).on` takes them. */
export type StepEventType = StepEvent['type'] extends `step:${infer Type}` ? Type : never

/** The events of one type; of all types for `'*'`. */
export type EventOfType<Event extends { type: string }, Type extends string> = Type extends '*'
  ? Event
  : Extract<Event, { type: Type }>
