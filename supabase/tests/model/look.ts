/** A run as the database shows it and as the model has it, in the same words. */
import { applyEvent } from '../../../sdk/src/client/store.ts'
import type { Observation } from './database.ts'
import { hasItems } from './definition.ts'
import type { Run } from './run.ts'
import { textOfKey } from './slots.ts'
import { isOpen } from './task.ts'

/** The earlier snapshot with what happened since. */
export function replay(before: Observation, { events }: Observation) {
  const since = events.filter(({ seq }) => seq > before.snapshot.seq)
  return withoutUndo(since.reduce(applyEvent, before.snapshot))
}

/** A snapshot as events tell it: that a run has begun to undo it is no event. */
export function withoutUndo<T extends object>(snapshot: T): T {
  return { ...snapshot, undone_by: null }
}

/** The rows of a run, as far as the model knows them. */
export function rowsOf({ run, steps, tasks, events }: Omit<Observation, 'snapshot'>) {
  return {
    run: {
      status: run.status,
      output: run.output,
      error: run.error,
      parent: run.parent_run_id && [run.parent_run_id, run.parent_step_slug, run.parent_task_index],
      depth: run.depth,
      undoes: run.undoes,
    },
    steps: steps.map((step) => ({
      step_slug: step.step_slug,
      status: step.status,
      output: step.output,
      error: step.error,
      skip_reason: step.skip_reason,
      progress: step.progress,
      retries: step.retries,
      retry_at: step.retry_at === null ? null : Date.parse(step.retry_at) / 1000,
      initial_tasks: step.initial_tasks,
      waits_for: step.waits_for,
      due_at: step.due_at === null ? null : Date.parse(step.due_at) / 1000,
      // What a step waits for is kept up to date for as long as it waits.
      remaining_deps: step.status === 'created' ? step.remaining_deps : null,
      remaining_tasks: step.status === 'started' ? step.remaining_tasks : null,
    })),
    tasks: tasks.map((task) => ({
      step_slug: task.step_slug,
      task_index: task.task_index,
      status: task.status,
      attempts_count: task.attempts_count,
      input: task.input,
      output: task.output,
      error_message: task.error_message,
      waits_for: task.waits_for,
      due_at: task.due_at === null ? null : Date.parse(task.due_at) / 1000,
      slot_keys: task.slot_keys?.toSorted() ?? null,
      slot_rank: task.slot_rank === null ? null : Date.parse(task.slot_rank) / 1000,
      child_run_id: task.child_run_id,
    })),
    events: events.map(({ type, step_slug }) => (step_slug === null ? type : `${type} ${step_slug}`)),
  }
}

/** The same rows, as the model has them. */
export function look(run: Run): ReturnType<typeof rowsOf> {
  const { parent } = run
  // By their slugs, which is another order in a flow that undoes another.
  const inOrder = run.steps.toSorted((a, b) => (a.definition.slug < b.definition.slug ? -1 : 1))
  return {
    run: {
      status: run.status,
      output: run.output,
      error: run.error,
      parent: parent && [parent.run.id, parent.step.definition.slug, parent.index],
      depth: run.depth,
      undoes: run.undoes?.id ?? null,
    },
    steps: inOrder.map((step) => ({
      step_slug: step.definition.slug,
      status: step.status,
      output: step.output,
      error: step.error,
      skip_reason: step.skipReason,
      progress: step.progress,
      retries: step.retries,
      retry_at: step.retryAt,
      initial_tasks: step.initialTasks,
      waits_for: step.waits?.for ?? null,
      due_at: step.waits?.dueAt ?? null,
      remaining_deps: step.status === 'created' ? run.openDeps(step) : null,
      remaining_tasks: step.status === 'started' ? step.tasks.filter(isOpen).length : null,
    })),
    tasks: inOrder
      .flatMap(({ tasks }) => tasks)
      .map((task) => ({
        step_slug: task.step.definition.slug,
        task_index: task.index,
        status: task.status,
        attempts_count: task.attempts,
        input: task.item,
        output: hasItems(task.step.definition) || task.isEarly ? task.output : null,
        error_message: task.error,
        waits_for: task.waitsFor,
        due_at: task.dueAt,
        slot_keys: task.keys?.map((key) => textOfKey(key, task)).toSorted() ?? null,
        slot_rank: task.rank === null ? null : Math.floor(task.rank * 1000) / 1000,
        child_run_id: task.child?.id ?? task.childId,
      })),
    events: run.events,
  }
}
