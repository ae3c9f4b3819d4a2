/** Several connections work on the same runs at once; what the order leaves open is not compared. */
import { expect } from 'vitest'
import { type ClaimedTask, type Database, type Observation, orphan, type Result } from './database.ts'
import type { FlowDefinition, StepDefinition } from './definition.ts'
import type { Commotion } from './flows.ts'
import type { Json } from './json.ts'
import { replay, withoutUndo } from './look.ts'
import { Queue, show } from './queue.ts'
import type { Run } from './run.ts'
import type { Ending } from './task.ts'

/** Drives all runs to their end over the database's connections. */
export async function stir(database: Database, commotion: Commotion): Promise<void> {
  const { inputs, workers, meddling } = commotion
  // Where outcomes are compared, no timeout races with a completion.
  const flow = meddling.length > 0 ? commotion.flow : withoutTimeouts(commotion.flow)
  const slug = await database.define(flow, await database.defineLimits(commotion.limits))
  const ids = await Promise.all(inputs.map((input) => database.start(slug, input)))
  const before = await database.observe(ids)
  const applied = new Map<string, number>()
  const late: Result[] = []

  async function work(quantity: number): Promise<void> {
    let results: Result[] = []
    for (;;) {
      const batch = [...results, ...late.splice(0)]
      const { stale, held, tasks } = await database.settleAndClaim(batch, [slug], quantity)
      for (const result of batch) count(applied, keyOf(result), 1)
      for (const result of [...stale, ...held]) count(applied, keyOf(result), -1)
      const again = new Set(held.map(keyOf))
      // Some are told twice, by whoever comes next.
      late.push(...results.filter((_, n) => n % 3 === 0))
      late.push(...batch.filter((result) => again.has(keyOf(result))))
      results = tasks.map((task) => resultOf(task, endingOf(commotion, ids.indexOf(task.run_id), task)))
      if (results.length > 0 || late.length > 0) continue
      if ((await database.openRuns(slug)) === 0) return
      // Where outcomes are not compared, leases may run out under a living worker.
      await (meddling.length > 0 ? database.elapseAll(slug) : database.elapseQueued(slug))
    }
  }
  async function meddle(): Promise<void> {
    for (const { do: act, run } of meddling) {
      const runId = ids[run % ids.length]!
      const done = act === 'cancel' ? database.cancel(runId) : database.retry(runId)
      await done.catch((error: { code: string }) => expect(error.code).toBe('PT409'))
      const violations = await database.violations(slug)
      expect(violations.filter(({ what }) => what !== orphan)).toEqual([])
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
      for (const { run_id, step_slug } of await database.waits(slug)) {
        const answered = database.completeWait(run_id, step_slug, answerOf(ids.indexOf(run_id), step_slug))
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
    await database.elapseAll(slug)
    expect(await database.claim([slug], 10_000)).toEqual([])
  }

  const after = await database.observe(ids)
  expect(await database.violations(slug)).toEqual([])
  expect([...applied].filter(([, times]) => times > 1)).toEqual([])
  for (const [n, seen] of after.entries())
    expect(replay(before[n]!, seen)).toEqual(withoutUndo(seen.snapshot))
  if (meddling.length === 0) expect(after.map(outcomeOf)).toEqual(expected(commotion).map(outcomeOfModel))
}

/** The runs as they end when one worker does everything. */
function expected(commotion: Commotion): Run[] {
  const realNow = Date.now() / 1000
  let year = 2200
  // Limits decide when tasks run, not how they end.
  const flow = withoutLimits(withoutTimeouts(commotion.flow))
  const queue = new Queue([flow], { now: realNow, latest: realNow, isPast: true })
  for (const input of commotion.inputs) queue.start(flow, input, 0)
  while (queue.runs.some(({ status }) => status === 'started')) {
    for (const task of queue.tasks) if (task.status === 'queued') show(task)
    for (const { status, run, step } of queue.tasks) {
      if (status === 'waiting' && step.waits!.for === 'signal') {
        run.completeWait(step, answerOf(queue.runs.indexOf(run), step.definition.slug))
      }
    }
    // A sleep that begins then ends later.
    queue.clock.now = Date.UTC(year++) / 1000
    queue.tick()
    queue.clock.now = realNow
    const tasks = queue.claim(flow, Number.POSITIVE_INFINITY)
    queue.settle(
      tasks.map((task) => {
        const key = { step_slug: task.step.definition.slug, task_index: task.index, attempt: task.attempts }
        return {
          task,
          attempt: task.attempts,
          ending: endingOf(commotion, queue.runs.indexOf(task.run), key),
        }
      }),
    )
  }
  return queue.runs
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
function answerOf(run: number, step: string): Json {
  return [run, step]
}

/** How an attempt ends depends on nothing but what it is. In the end all attempts count, else there may be no end. */
function endingOf(
  { endings }: Commotion,
  run: number,
  { step_slug, task_index, attempt }: Pick<ClaimedTask, 'step_slug' | 'task_index' | 'attempt'>,
): Ending {
  const ending =
    endings[(run * 5 + Number(step_slug.slice(1)) * 3 + task_index + attempt * 7) % endings.length]!
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
    output: run.output,
    steps: steps.map(({ status, skip_reason, output }) => ({ status, skip_reason, output })),
  }
}

function outcomeOfModel({ status, output, steps }: Run): ReturnType<typeof outcomeOf> {
  if (status === 'failed') return { status }
  return {
    status,
    output,
    steps: steps.map(({ status, skipReason, output }) => ({ status, skip_reason: skipReason, output })),
  }
}
