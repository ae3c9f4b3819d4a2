/** Undo: what the completed steps of a run have done is undone by a run of a flow of its own, in reverse order. */
import type { FlowDefinition, StepDefinition } from './definition.ts'
import type { Json } from './json.ts'
import type { Queue } from './queue.ts'
import type { Run } from './run.ts'
import type { Step } from './step.ts'

const known = new WeakMap<FlowDefinition, FlowDefinition | null>()

/** The flow that undoes a flow, if it has anything to undo: always the same one. */
export function undoFlowOf(flow: FlowDefinition): FlowDefinition | null {
  const flowOfUndo = known.get(flow) ?? makeUndoFlow(flow)
  known.set(flow, flowOfUndo)
  return flowOfUndo
}

/** A step for each that can be undone; it waits for the undoing of those that came after it, through others too. */
function makeUndoFlow({ steps }: FlowDefinition): FlowDefinition | null {
  const undoable = steps.filter(({ hasUndo }) => hasUndo)
  if (undoable.length === 0) return null
  const undoing = undoable.toReversed().map(
    ({ slug, maxAttempts, baseDelay }): StepDefinition => ({
      slug,
      deps: undoneBefore(steps, slug),
      runIf: { run: { completed: { [slug]: true } } },
      whenUnmet: 'skip',
      whenExhausted: 'fail',
      maxAttempts,
      baseDelay,
      startDelay: 0,
      limits: [],
      concurrency: null,
      collect: null,
      deadline: null,
    }),
  )
  return { steps: undoing, limits: [], deadline: null }
}

/** The nearest steps after one that can be undone. */
function undoneBefore(steps: readonly StepDefinition[], slug: string): string[] {
  const after = steps.filter(({ deps }) => deps.includes(slug))
  return [...new Set(after.flatMap((step) => (step.hasUndo ? [step.slug] : undoneBefore(steps, step.slug))))]
}

/** Starts the runs that undo others. */
export function beginUndos(queue: Queue): void {
  for (const { run } of queue.notices.take('undo', queue.clock.now)) {
    const isAsked = run.status === 'failed' || (run.status === 'cancelled' && run.isToBeUndone)
    if (isAsked && !run.undoing && run.steps.some(hasDone)) run.undoing = queue.startUndo(run)
  }
}

/** Whether there is something to undo: a step that has completed, or an item of a map. */
function hasDone({ definition, status, tasks }: Step): boolean {
  if (!definition.hasUndo) return false
  return definition.map ? tasks.some((task) => task.status === 'completed') : status === 'completed'
}

/** What a run is started with that undoes another. */
export function inputOfUndo({ input, steps, error }: Run): Json {
  const done = steps.filter(hasDone)
  return {
    run: input,
    completed: Object.fromEntries(done.map(({ definition }) => [definition.slug, true])),
    outputs: Object.fromEntries(done.map((step) => [step.definition.slug, outputOf(step)])),
    error,
  }
}

/** Of a map, those of its items that have completed. */
function outputOf({ definition, output, tasks }: Step): Json {
  if (!definition.map) return output
  const completed = tasks.filter(({ status }) => status === 'completed')
  return completed.map(({ index, item, output }) => ({ index, item, output }))
}
