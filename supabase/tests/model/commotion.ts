/** Several connections work on the same runs at once; what the order leaves open is not compared. */
import { expect } from 'vitest'
import { violations } from '../testing/invariants.ts'
import { type ClaimedTask, type Database, type Observation, orphan, type Result } from './database.ts'
import { type FlowDefinition, type StepDefinition, withoutSharedSlots } from './definition.ts'
import type { Commotion } from './flows.ts'
import type { Json } from './json.ts'
import { replay, withoutUndo } from './look.ts'
import { Queue, show } from './queue.ts'
import type { Run } from './run.ts'
import type { Ending } from './task.ts'
import { undoFlowOf } from './undo.ts'

/** Drives all runs to their end over the database's connections: those of the last flow, and all that are started for them. */
export async function stir(database: Database, commotion: Commotion): Promise<void> {
  const { inputs, workers, meddling } = commotion
  await database.deleteOpenRuns()
  // Where outcomes are compared, no timeout races with a completion.
  const allowed = withoutSharedSlots(commotion.flows)
  const flows = meddling.length > 0 ? allowed : allowed.map(withoutTimeouts)
  const ownSlugs: string[] = []
  const slugs: string[] = []
  const limits = await database.defineLimits(commotion.limits)
  for (const flow of flows) {
    const undoFlow = undoFlowOf(flow)
    if (undoFlow) slugs.push(await database.define(undoFlow))
    ownSlugs.push(await database.define(flow, limits, ownSlugs, undoFlow ? slugs.at(-1) : undefined))
  }
  slugs.push(...ownSlugs)
  const ids = await Promise.all(inputs.map((input) => database.start(ownSlugs.at(-1)!, input)))
  const before = await database.observe(ids)
  /** What runs are called in every order: by the place of their root, and from there by their tasks. */
  const names = new Map(ids.map((id, n) => [id, `${n}`]))
  async function learnNames(): Promise<void> {
    const unknown = (await database.descendants(ids)).filter(({ run_id }) => !names.has(run_id))
    for (const { run_id, undoes, parent_run_id, parent_step_slug, parent_task_index } of unknown) {
      const name = undoes
        ? `undo ${names.get(undoes)}`
        : nameOfChild(names.get(parent_run_id!)!, parent_step_slug!, parent_task_index!)
      names.set(run_id, name)
    }
  }
  const applied = new Map<string, number>()
  const late: Result[] = []

  async function work(quantity: number): Promise<void> {
    let results: Result[] = []
    for (;;) {
      const batch = [...results, ...late.splice(0)]
      const { stale, held, tasks } = await database.settleAndClaim(batch, slugs, quantity)
      for (const result of batch) count(applied, keyOf(result), 1)
      for (const result of [...stale, ...held]) count(applied, keyOf(result), -1)
      const again = new Set(held.map(keyOf))
      // Some are told twice, by whoever comes next.
      late.push(...results.filter((_, n) => n % 3 === 0))
      late.push(...batch.filter((result) => again.has(keyOf(result))))
      if (tasks.some(({ run_id }) => !names.has(run_id))) await learnNames()
      results = tasks.map((task) => resultOf(task, endingOf(commotion, names.get(task.run_id)!, task)))
      if (results.length > 0 || late.length > 0) continue
      if (!(await database.isBusy(slugs))) return
      // Where outcomes are not compared, leases may run out under a living worker.
      for (const slug of slugs) {
        await (meddling.length > 0 ? database.elapseAll(slug) : database.elapseQueued(slug))
      }
    }
  }
  async function meddle(): Promise<void> {
    for (const { do: act, run, undo } of meddling) {
      const known = run % 2 === 0 ? ids : [...names.keys()]
      const runId = known[run % known.length]!
      const done = act === 'cancel' ? database.cancel(runId, undo) : database.retry(runId)
      await done.catch((error: { code: string }) => expect(error.code).toBe('PT409'))
      const found = await database.violations(ownSlugs.at(-1)!)
      expect(found.filter(({ what }) => what !== orphan)).toEqual([])
    }
  }
  /** Completes waits, each with its own value, and lets sleeps end, until the others are done; several do, at the same time. */
  async function decide(others: Promise<unknown>): Promise<void> {
    let year = 2200
    let areDone = false
    const done = () => {
      areDone = true
    }
    others.then(done, done)
    while (!areDone) {
      const waits = await database.waits(slugs)
      if (waits.some(({ run_id }) => !names.has(run_id))) await learnNames()
      for (const { run_id, step_slug } of waits) {
        const answered = database.completeWait(run_id, step_slug, answerOf(names.get(run_id)!, step_slug))
        await answered.catch((error: { code: string }) => {
          // Beside a timeout, a cancel, a retry or a task that fails for good, it may be too late.
          expect(error.code).toBe('PT409')
        })
      }
      // A sleep that begins then ends later.
      await database.tick(`${Math.min(year++, 9999)}-01-01T00:00:00Z`)
    }
  }
  const first = Promise.all([meddle(), ...workers.map(work)])
  await Promise.all([first, decide(first), decide(first)])
  // Whoever retried a run last may have come after the workers.
  const last = work(100)
  await Promise.all([last, decide(last)])
  // A message that somebody held while its task was closed is archived by a claim, at the latest when it comes back.
  for (let time = 0; time < 2; time++) {
    for (const slug of slugs) await database.elapseAll(slug)
    expect(await database.claim(slugs, 10_000)).toEqual([])
  }

  const after = await database.observe(ids)
  for (const slug of slugs) expect(await database.violations(slug)).toEqual([])
  expect(await violations(database.sql, slugs)).toEqual([])
  expect([...applied].filter(([, times]) => times > 1)).toEqual([])
  for (const [n, seen] of after.entries())
    expect(replay(before[n]!, seen)).toEqual(withoutUndo(seen.snapshot))
  if (meddling.length === 0) expect(after.map(outcomeOf)).toEqual(expected(commotion).map(outcomeOfModel))
}

/** The first runs as they end when one worker does everything. */
function expected(commotion: Commotion): Run[] {
  const realNow = Date.now() / 1000
  let year = 2200
  // Limits decide when tasks run, not how they end.
  const flows = commotion.flows.map(withoutTimeouts).map(withoutLimits)
  const queue = new Queue(flows, { now: realNow, latest: realNow, isPast: true })
  const roots = commotion.inputs.map((input) => queue.start(flows.at(-1)!, input, 0))
  const nameOf = (run: Run): string =>
    run.parent
      ? nameOfChild(nameOf(run.parent.run), run.parent.step.definition.slug, run.parent.index)
      : `${roots.indexOf(run)}`
  while (queue.runs.some(({ status }) => status === 'started')) {
    for (const task of queue.tasks) if (task.status === 'queued') show(task)
    for (const { waitsFor, run, step } of queue.tasks) {
      if (waitsFor === 'signal') {
        run.completeWait(step, answerOf(nameOf(run), step.definition.slug))
      }
    }
    // A sleep that begins then ends later.
    queue.clock.now = Date.UTC(year++) / 1000
    queue.tick()
    queue.tend(false)
    queue.clock.now = realNow
    const tasks = flows.flatMap((flow) => queue.claim(flow, Number.POSITIVE_INFINITY))
    queue.settle(
      tasks.map((task) => {
        const key = { step_slug: task.step.definition.slug, task_index: task.index, attempt: task.attempts }
        return {
          task,
          attempt: task.attempts,
          ending: endingOf(commotion, nameOf(task.run), key),
        }
      }),
    )
  }
  return roots
}

function nameOfChild(parent: string, step: string, index: number): string {
  return `${parent} ${step} ${index}`
}

function withoutTimeouts(flow: FlowDefinition): FlowDefinition {
  const withoutTimeout = (step: StepDefinition) => ({
    ...step,
    ...(step.wait && { wait: { ...step.wait, timeout: null } }),
    deadline: null,
  })
  return { ...flow, steps: flow.steps.map(withoutTimeout), deadline: null }
}

function withoutLimits(flow: FlowDefinition): FlowDefinition {
  const withoutLimit = (step: StepDefinition) => ({ ...step, limits: [], concurrency: null })
  return { ...flow, steps: flow.steps.map(withoutLimit), limits: [] }
}

/** What completes a wait. */
function answerOf(run: string, step: string): Json {
  return [run, step]
}

/** How an attempt ends depends on nothing but what it is. In the end all attempts count, else there may be no end. */
function endingOf(
  { endings }: Commotion,
  run: string,
  { step_slug, task_index, attempt }: Pick<ClaimedTask, 'step_slug' | 'task_index' | 'attempt'>,
): Ending {
  const place = [...run].reduce((sum, letter) => sum * 5 + letter.charCodeAt(0), 0) % 1000
  const ending =
    endings[(place + Number(step_slug.slice(1)) * 3 + task_index + attempt * 7) % endings.length]!
  return attempt > 3 ? { ...ending, uncounted: false } : ending
}

function resultOf({ run_id, step_slug, task_index, attempt }: ClaimedTask, ending: Ending): Result {
  return { run_id, step_slug, task_index, attempt, ending }
}

const keyOf = ({ run_id, step_slug, task_index, attempt }: Omit<Result, 'ending'>): string =>
  [run_id, step_slug, task_index, attempt].join(' ')

function count(counts: Map<string, number>, key: string, by: number): void {
  counts.set(key, (counts.get(key) ?? 0) + by)
}

/** What is the same in every order: of a run that fails, only that it fails. */
function outcomeOf({ run, steps }: Observation) {
  if (run.status === 'failed') return { status: run.status }
  return {
    status: run.status,
    output: withoutErrors(run.output),
    steps: steps.map(({ status, skip_reason, output }) => ({
      ...{ status, skip_reason },
      output: withoutErrors(output),
    })),
  }
}

/** A value without the errors of children, which are others in another order. */
function withoutErrors(value: Json): Json {
  if (typeof value === 'string') return value.replace(/^child run .*/s, 'child run failed')
  if (Array.isArray(value)) return value.map(withoutErrors)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, withoutErrors(part)]))
}

function outcomeOfModel({ status, output, steps }: Run): ReturnType<typeof outcomeOf> {
  if (status === 'failed') return { status }
  return {
    status,
    output: withoutErrors(output),
    steps: steps.map(({ status, skipReason, output }) => ({
      ...{ status, skip_reason: skipReason },
      output: withoutErrors(output),
    })),
  }
}
