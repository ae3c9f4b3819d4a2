/** What occurs in histories: counted, so that a change of their weights leaves nothing out unnoticed. */
import { deepest } from './children.ts'
import type { Run } from './run.ts'
import type { Step } from './step.ts'

const has = (run: Run, event: string) => run.events.includes(event)
const hasStep = ({ events }: Run, event: string, { definition }: Step) =>
  events.includes(`step:${event} ${definition.slug}`)
const turns = ({ tasks }: Step) => tasks.filter(({ status }) => status === 'completed').length

/** Of a run, its children and the run that undoes it. */
const ofRuns: Record<string, (run: Run) => boolean> = {
  'a child completes': (run) => run.depth > 0 && run.status === 'completed',
  'a child fails': (run) => run.depth > 0 && has(run, 'run:failed'),
  'a child is cancelled by its parent': (run) => run.depth > 0 && (run.error ?? '').includes('its parent'),
  'a child is cancelled by somebody': (run) =>
    run.depth > 0 && has(run, 'run:cancelled') && !(run.error ?? '').includes('its parent'),
  'a child is retried': (run) => run.depth > 0 && has(run, 'run:retried'),
  'a child and its parent are retried': (run) =>
    run.parent !== null && has(run, 'run:retried') && has(run.parent.run, 'run:retried'),
  'a child has a child': (run) => run.depth === 2,
  'a child is too deep': (run) => run.depth === deepest && (run.error ?? '').includes('deeper'),
  'a child is left alone': ({ parent, status }) =>
    status === 'completed' &&
    parent?.step.definition.child?.whenParentEnds === 'leave' &&
    ['failed', 'cancelled'].includes(parent.run.status),
  'a run that has failed is undone': (run) => run.undoes?.status === 'failed',
  'a run that was cancelled is undone': (run) => run.undoes?.status === 'cancelled',
  'several steps are undone': (run) =>
    run.undoes !== null && run.steps.filter(({ status }) => status === 'completed').length > 1,
  'an undo fails': (run) => run.undoes !== null && has(run, 'run:failed'),
  'an undo is retried': (run) => run.undoes !== null && has(run, 'run:retried'),
  'a child is undone': (run) => run.undoes !== null && run.undoes.depth > 0,
}

/** Of a step of a run. */
const ofSteps: Record<string, (step: Step, run: Run) => boolean> = {
  'a step has several children': ({ tasks }) => tasks.filter(({ child }) => child).length > 1,
  'a sub-flow waits for a slot': (step, run) =>
    step.definition.child !== undefined && hasStep(run, 'admitted', step),
  'a sub-flow fails a run': (step) => step.status === 'failed' && (step.error ?? '').startsWith('child run'),
  'a sub-flow is skipped as its child has failed': (step) =>
    step.status === 'skipped' && (step.error ?? '').startsWith('child run'),
  'a map collects the failure of a child': ({ definition, status, tasks }) =>
    definition.child !== undefined &&
    status === 'completed' &&
    tasks.some((task) => task.status === 'failed'),
  'a loop takes several turns': (step) => step.definition.loop !== undefined && turns(step) > 1,
  'a loop ends before its last turn': (step) =>
    step.definition.loop !== undefined &&
    step.status === 'completed' &&
    turns(step) < step.definition.loop.max,
  'a loop completes after its last turn': (step) =>
    step.status === 'completed' && turns(step) === step.definition.loop?.max,
  'a loop has not ended after its last turn': (step) => (step.error ?? '').includes('has not ended'),
  'a turn is tried again': (step) => step.definition.loop !== undefined && step.retries > 0,
  'a loop goes on after its run was retried': (step, run) =>
    step.definition.loop !== undefined && has(run, 'run:retried') && turns(step) > 1,
  'a loop waits for slots': (step, run) =>
    step.definition.loop !== undefined && turns(step) > 1 && hasStep(run, 'admitted', step),
}

/** What may be missing in some hundreds of histories. */
const rare = new Set([
  ...[
    'a child has a child',
    'a loop waits for slots',
    'a child is cancelled by its parent',
    'a child is cancelled by somebody',
    'a child is too deep',
  ],
  ...[
    'a child is left alone',
    'a run that was cancelled is undone',
    'several steps are undone',
    'an undo fails',
  ],
  ...[
    'an undo is retried',
    'a child is undone',
    'a turn is tried again',
    'a map collects the failure of a child',
  ],
  ...['a sub-flow fails a run', 'a sub-flow is skipped as its child has failed'],
])
const known = [...Object.keys(ofRuns), ...Object.keys(ofSteps), 'the retry of an undone run is refused']

export class Coverage {
  /** In how many histories it has occurred. */
  readonly counts: Record<string, number> = Object.fromEntries(known.map((name) => [name, 0]))
  histories = 0

  add(runs: readonly Run[], others: ReadonlySet<string>): void {
    const occurs = new Set(others)
    for (const run of runs) {
      for (const [name, isIn] of Object.entries(ofRuns)) if (isIn(run)) occurs.add(name)
      for (const step of run.steps) {
        for (const [name, isIn] of Object.entries(ofSteps)) if (isIn(step, run)) occurs.add(name)
      }
    }
    for (const name of occurs) this.counts[name]! += 1
    this.histories += 1
  }

  /** What has not occurred, although so many histories nearly always have it. */
  get missing(): string[] {
    return known.filter((name) => this.counts[name] === 0 && (this.histories > 3000 || !rare.has(name)))
  }
}
