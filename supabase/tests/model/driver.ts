/** Drives the model and the database side by side, and compares everything after each operation. */
import { isDeepStrictEqual } from 'node:util'
import { expect } from 'vitest'
import { applyEvent } from '../../../sdk/src/client/store.ts'
import type { Database, Observation, Result } from './database.ts'
import type { History, Operation, Pick } from './flows.ts'
import type { Json } from './json.ts'
import { isOpen, type Run, type Settlement, type Task } from './model.ts'
import { Queue } from './queue.ts'

export class Driver {
  readonly #database: Database
  readonly #flow: string
  readonly #queue: Queue
  readonly #ids = new Map<Run, string>()
  readonly #seen = new Map<string, Observation>()

  private constructor(database: Database, flow: string, queue: Queue) {
    this.#database = database
    this.#flow = flow
    this.#queue = queue
  }

  /** Drives a history to the end of all its runs. */
  static async drive(database: Database, { flow, inputs, operations }: History): Promise<void> {
    const driver = new Driver(database, await database.define(flow), new Queue(flow))
    for (const input of inputs) await driver.#do({ do: 'start', input, delay: 0 })
    for (const operation of operations) await driver.#do(operation)
    await driver.#finish()
  }

  async #do(operation: Operation): Promise<void> {
    await this.#perform(operation)
    await this.#compare()
  }

  /** Completes what there is to complete until every run has ended. */
  async #finish(): Promise<void> {
    const waves = this.#queue.flow.length + 1
    for (let wave = 0; wave < waves && this.#isBusy; wave++) {
      await this.#perform({ do: 'elapse', task: undefined })
      await this.#perform({ do: 'claim', quantity: 10_000 })
      const claimed = this.#queue.tasks.filter(({ status }) => status === 'started')
      await this.#settle(
        claimed.map((task) => ({ task, attempt: task.attempts, ending: { output: [wave] } })),
      )
      await this.#compare()
    }
    expect(this.#isBusy).toBe(false)
  }

  get #isBusy(): boolean {
    return this.#queue.runs.some(({ status }) => status === 'started')
  }

  async #perform(operation: Operation): Promise<void> {
    switch (operation.do) {
      case 'claim':
        expect(await this.#database.claim(this.#flow, operation.quantity)).toEqual(
          this.#claim(operation.quantity),
        )
        break
      case 'poll':
        expect(await this.#database.poll(this.#flow, operation.quantity)).toEqual(
          this.#claim(operation.quantity),
        )
        break
      case 'extend':
        await this.#extend(operation.task, operation.attempt)
        break
      case 'settle':
        await this.#settle(this.#settlements(operation.picks))
        break
      case 'settleAndClaim':
        await this.#settleAndClaim(this.#settlements(operation.picks), operation.quantity)
        break
      case 'settleByHand':
        for (const settlement of this.#settlements([operation.pick])) await this.#settleByHand(settlement)
        break
      case 'elapse':
        await this.#elapse(operation.task)
        break
      case 'cancel': {
        const run = this.#run(operation.run, ['started'])
        await this.#agree(run.cancel('enough'), this.#database.cancel(this.#ids.get(run)!))
        break
      }
      case 'retry': {
        const run = this.#run(operation.run, ['failed', 'cancelled'])
        await this.#agree(run.retry(), this.#database.retry(this.#ids.get(run)!))
        break
      }
      case 'start': {
        const run = this.#queue.start(operation.input, operation.delay)
        this.#ids.set(
          run,
          await this.#database.start(this.#flow, operation.input, { delay: operation.delay }),
        )
        break
      }
      case 'startMany':
        await this.#startMany(operation.inputs, operation.delay)
        break
      case 'startAgain': {
        const run = this.#run(operation.run)
        const runId = this.#ids.get(run)!
        const input = operation.input === undefined ? run.input : operation.input
        const again = this.#database.start(this.#flow, input, { runId })
        await this.#agree(isDeepStrictEqual(input, run.input), again)
      }
    }
  }

  #claim(quantity: number) {
    return this.#queue.claim(quantity).map((task) => ({
      flow_slug: this.#flow,
      ...this.#key(task),
      input: task.run.inputOf(task),
      msg_id: task.message,
      attempt: task.attempts,
      timeout: 60,
      refs: null,
    }))
  }

  async #settle(settlements: Settlement[]): Promise<void> {
    const applied = await this.#database.settle(settlements.map((settlement) => this.#result(settlement)))
    expect(applied).toEqual(this.#queue.settle(settlements))
  }

  async #settleAndClaim(settlements: Settlement[], quantity: number): Promise<void> {
    const results = settlements.map((settlement) => this.#result(settlement))
    const { stale, tasks } = await this.#database.settleAndClaim(results, this.#flow, quantity)
    const applied = this.#queue.settle(settlements)
    await this.#adopt()
    expect(stale).toEqual(results.flatMap(({ ending, ...result }, n) => (applied[n] ? [] : [result])))
    expect(tasks).toEqual(this.#claim(quantity))
  }

  async #settleByHand({ task, ending }: Settlement): Promise<void> {
    const asItStands = 'output' in ending ? ending : { error: ending.error }
    const wasOpen = await this.#database.settleByHand(this.#key(task), asItStands)
    expect([wasOpen]).toEqual(this.#queue.settle([{ task, attempt: null, ending: asItStands }]))
  }

  async #extend(nth: number, which: Pick['attempt']): Promise<void> {
    const claimed = this.#queue.tasks.filter(({ status }) => status === 'started')
    const task = claimed[nth % claimed.length]
    if (!task) return
    const attempt = attemptOf(task, which)
    const isHeld = attempt === task.attempts
    expect(await this.#database.extend({ ...this.#key(task), attempt })).toBe(isHeld)
    if (isHeld) task.visible = false
  }

  async #elapse(nth: number | undefined): Promise<void> {
    const open = this.#queue.tasks.filter(isOpen)
    const tasks = nth === undefined ? open : open.slice(nth % (open.length + 1)).slice(0, 1)
    for (const task of tasks) task.visible = true
    await this.#database.elapse(
      this.#flow,
      tasks.map(({ message }) => message),
    )
  }

  async #startMany(inputs: Json[], delay: number): Promise<void> {
    const keys = inputs.map((input) => JSON.stringify(input) + this.#ids.size)
    const ids = await this.#database.startMany(this.#flow, inputs, keys, delay)
    for (const [n, key] of keys.entries()) {
      const first = keys.indexOf(key)
      if (first === n) this.#ids.set(this.#queue.start(inputs[n]!, delay), ids[n]!)
      else expect(ids[n]).toBe(ids[first])
    }
  }

  /** What the model allows succeeds, what it refuses is a conflict. */
  async #agree(isAllowed: boolean, done: Promise<unknown>): Promise<void> {
    const code = await done.then(
      () => 'ok',
      (error) => error.code ?? error,
    )
    expect(code).toBe(isAllowed ? 'ok' : 'PT409')
  }

  #settlements(picks: Pick[]): Settlement[] {
    const all = this.#queue.tasks
    const claimed = all.filter(({ status }) => status === 'started')
    return picks.flatMap(({ of, among, attempt, ending }) => {
      const tasks = among === 'claimed' && claimed.length > 0 ? claimed : all
      const task = tasks[of % tasks.length]
      if (!task) return []
      return [{ task, attempt: attemptOf(task, attempt), ending: ending as Settlement['ending'] }]
    })
  }

  /** The nth of the runs, mostly of those with such a status. */
  #run(n: number, statuses: Run['status'][] = []): Run {
    const fitting = this.#queue.runs.filter(({ status }) => statuses.includes(status))
    const runs = n === 0 || fitting.length === 0 ? this.#queue.runs : fitting
    return runs[n % runs.length]!
  }

  #key({ run, step, index }: Task) {
    return { run_id: this.#ids.get(run)!, step_slug: step.definition.slug, task_index: index }
  }

  #result({ task, attempt, ending }: Settlement): Result {
    return { ...this.#key(task), attempt, ending }
  }

  /** Compares every run with the model, its log with its snapshots, and the queue with the open tasks. */
  async #compare(): Promise<void> {
    const observations = await this.#adopt()
    for (const [n, run] of this.#queue.runs.entries()) {
      const seen = observations[n]!
      agree(rowsOf(seen), look(run))
      expect(seen.events.map(({ seq }) => seq)).toEqual(run.events.map((_, n) => n + 1))
      const before = this.#seen.get(seen.run.run_id)
      if (before) agree(replay(before, seen), seen.snapshot)
      this.#seen.set(seen.run.run_id, seen)
    }
    expect(await this.#database.messages(this.#flow)).toEqual(
      this.#queue.tasks
        .filter(isOpen)
        .map((task) => ({ msg_id: task.message, ...this.#key(task) }))
        .sort((a, b) => a.msg_id - b.msg_id),
    )
  }

  /** Reads everything, and tells the model the ids of its messages. */
  async #adopt(): Promise<Observation[]> {
    const observations = await this.#database.observe(this.#queue.runs.map((run) => this.#ids.get(run)!))
    for (const [n, run] of this.#queue.runs.entries()) {
      const ids = new Map(
        observations[n]!.tasks.map((task) => [`${task.step_slug} ${task.task_index}`, task.message_id]),
      )
      for (const task of run.tasks) {
        task.message = ids.get(`${task.step.definition.slug} ${task.index}`) ?? 0
      }
    }
    return observations
  }
}

function attemptOf({ attempts }: Task, which: Pick['attempt']): number | null {
  return { current: attempts, older: attempts - 1, newer: attempts + 1, none: null }[which]
}

/** What `toEqual` says, and quickly where there is nothing to say. */
function agree<T>(seen: T, expected: T): void {
  if (!isDeepStrictEqual(seen, expected)) expect(seen).toEqual(expected)
}

/** The earlier snapshot with what happened since. */
export function replay(before: Observation, { events }: Observation) {
  const since = events.filter(({ seq }) => seq > before.snapshot.seq)
  return since.reduce(applyEvent, before.snapshot)
}

/** The rows of a run, as far as the model knows them. */
function rowsOf({ run, steps, tasks, events }: Observation) {
  return {
    run: { status: run.status, output: run.output, error: run.error, remaining_steps: run.remaining_steps },
    steps: steps.map((step) => ({
      step_slug: step.step_slug,
      status: step.status,
      output: step.output,
      error: step.error,
      skip_reason: step.skip_reason,
      progress: step.progress,
      retries: step.retries,
      initial_tasks: step.initial_tasks,
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
    })),
    events: events.map(({ type, step_slug }) => (step_slug === null ? type : `${type} ${step_slug}`)),
  }
}

function look(run: Run): ReturnType<typeof rowsOf> {
  return {
    run: {
      status: run.status,
      output: run.output,
      error: run.error,
      remaining_steps: run.steps.filter(({ status }) => status !== 'completed' && status !== 'skipped')
        .length,
    },
    steps: run.steps.map((step) => ({
      step_slug: step.definition.slug,
      status: step.status,
      output: step.output,
      error: step.error,
      skip_reason: step.skipReason,
      progress: step.progress,
      retries: step.retries,
      initial_tasks: step.initialTasks,
      remaining_deps: step.status === 'created' ? run.openDeps(step) : null,
      remaining_tasks: step.status === 'started' ? step.tasks.filter(isOpen).length : null,
    })),
    tasks: run.tasks.map((task) => ({
      step_slug: task.step.definition.slug,
      task_index: task.index,
      status: task.status,
      attempts_count: task.attempts,
      input: task.item,
      output: task.step.definition.map ? task.output : null,
      error_message: task.error,
    })),
    events: run.events,
  }
}
