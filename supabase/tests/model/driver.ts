/** Drives the model and the database side by side, and compares everything after each operation. */
import { hash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { expect } from 'vitest'
import { deepest } from './children.ts'
import { Coverage } from './coverage.ts'
import type { Database, Descendant, Observation, Result, TaskKey, TaskRow } from './database.ts'
import { type FlowDefinition, isLimited as needsSlots, withoutSharedSlots } from './definition.ts'
import type { History, Operation, Pick } from './flows.ts'
import type { Json } from './json.ts'
import { look, replay, rowsOf, withoutUndo } from './look.ts'
import { handBack, hide, Queue, show } from './queue.ts'
import type { Run } from './run.ts'
import type { Step } from './step.ts'
import { hasMessage, type Settlement, type Task } from './task.ts'
import { undoFlowOf } from './undo.ts'

type ClaimedId = { flow_slug: string; msg_id: number }

export class Driver {
  readonly #database: Database
  /** Those of flows that undo others, too. */
  readonly #slugs: ReadonlyMap<FlowDefinition, string>
  readonly #queue: Queue
  /** Tasks that the last claim has begun as it admitted them: their messages were not read. */
  readonly #begun = new Set<Task>()
  readonly #occurred = new Set<string>()
  /** What the last tick has said, in seconds. */
  #nextDueAt = 0
  readonly #seen = new Map<Run, Observation>()
  /** How often each message was read, by the last claim of its flow. */
  readonly #reads = new Map<FlowDefinition, Map<number, number>>()

  private constructor(database: Database, slugs: Map<FlowDefinition, string>, queue: Queue) {
    this.#database = database
    this.#slugs = slugs
    this.#queue = queue
  }

  /** Drives a history to the end of all its runs. */
  static async drive(database: Database, history: History, coverage = new Coverage()): Promise<void> {
    const { starts, year, operations } = history
    const flows = withoutSharedSlots(history.flows)
    const begin = Date.UTC(year) / 1000
    const clock = { now: begin, latest: begin, isPast: Date.UTC(year) < Date.now() }
    await database.deleteOpenRuns()
    await database.setClock(clock.now)
    const slugs = new Map<FlowDefinition, string>()
    const isLimited = flows.some(
      (flow) => flow.steps.some((step) => needsSlots(flow, step)) || flow.limits.length > 0,
    )
    const limits = isLimited ? await database.defineLimits(history.limits) : []
    const ownSlugs: string[] = []
    for (const flow of flows) {
      const undoFlow = undoFlowOf(flow)
      if (undoFlow) slugs.set(undoFlow, await database.define(undoFlow))
      ownSlugs.push(await database.define(flow, limits, ownSlugs, undoFlow ? slugs.get(undoFlow) : undefined))
      slugs.set(flow, ownSlugs.at(-1)!)
    }
    const queue = new Queue(flows, clock, limits)
    queue.nameOf = (flow) => slugs.get(flow)!
    const driver = new Driver(database, slugs, queue)
    for (const start of starts) await driver.#perform({ do: 'start', ...start, delay: 0 })
    await driver.#compare()
    for (const operation of operations) await driver.#do(operation)
    await driver.#finish(history.finish)
    coverage.add(queue.runs, driver.#occurred)
  }

  async #do(operation: Operation): Promise<void> {
    await this.#perform(operation)
    await this.#compare()
  }

  /**
   * Settles what there is to settle until every run has ended, each wave those that have a slot: at first some may fail, then all complete. Those
   * that have not completed may be retried. Where that takes long, limits are raised, and not everything is compared each time.
   */
  async #finish({ failing, isCancelled, retries }: History['finish']): Promise<void> {
    const waves =
      (retries + 1) * this.#queue.flows.reduce((sum, flow, place) => sum + wavesOf(flow, place), 2)
    let retriesLeft = retries
    const most = 2 * waves + (this.#queue.limits.length > 0 ? 1000 : 0) // a rate lets one pass in each
    for (let wave = 0; wave < most && this.#isBusy; wave++) {
      const isLong = wave >= waves
      if (wave === waves) await this.#raiseLimits()
      await this.#perform({ do: 'elapse', task: undefined })
      await this.#endWaits()
      if (isLong) await this.#adopt()
      else await this.#compare()
      await this.#perform({ do: 'claim', from: 'all', quantity: 10_000 })
      const claimed = this.#queue.tasks.filter(({ status }) => status === 'started')
      await this.#settle(
        claimed.map((task, n) => {
          const fails = wave < 4 && failing > 0 && (n + wave) % failing === 0
          const ending = fails ? { error: 'broken', permanent: true } : { output: [wave] }
          return { task, attempt: task.attempts, ending }
        }),
      )
      const open = this.#queue.runs.find(({ status }) => status === 'started')
      if (wave === 1 && isCancelled && open) await this.#cancel(open, true)
      if (!this.#isBusy && retriesLeft-- > 0) {
        for (const run of this.#queue.runs) {
          if (run.status === 'failed' || run.status === 'cancelled') await this.#retry(run)
        }
      }
      if (!isLong || !this.#isBusy) await this.#compare()
      else await this.#adopt()
    }
    expect(this.#isBusy).toBe(false)
    expect(this.#queue.isCrowded).toBe(false)
  }

  async #raiseLimits(): Promise<void> {
    for (const limit of this.#queue.limits) {
      limit.running = 1000
      await this.#database.setLimit(limit)
    }
  }

  /** Completes every second wait, and lets the others, and the sleeps, come to their end. */
  async #endWaits(): Promise<void> {
    const waiting = this.#queue.tasks.filter(({ status, keys }) => status === 'waiting' && keys === null)
    for (const [n, { run, step, waitsFor, dueAt }] of waiting.entries()) {
      if (waitsFor === 'signal' && (n % 2 === 0 || dueAt === null)) {
        await this.#agree(
          run.completeWait(step, [n]),
          this.#database.completeWait(run.id, step.definition.slug, [n]),
        )
      }
    }
    const { clock, tasks } = this.#queue
    await this.#setClock(Math.max(clock.now, this.#nextDueAt, ...tasks.map(({ dueAt }) => dueAt ?? 0)))
    await this.#perform({ do: 'tick' })
  }

  async #cancel(run: Run, undo: boolean): Promise<void> {
    await this.#agree(run.cancel('enough', undo), this.#database.cancel(run.id, undo))
  }

  async #retry(run: Run): Promise<void> {
    if (run.undoing) this.#occurred.add('the retry of an undone run is refused')
    await this.#agree(run.retry(), this.#database.retry(run.id))
  }

  async #setClock(now: number): Promise<void> {
    const { clock } = this.#queue
    clock.now = now
    clock.latest = Math.max(clock.latest, now)
    await this.#database.setClock(now)
  }

  get #isBusy(): boolean {
    const { runs, notices } = this.#queue
    return runs.some(({ status }) => status === 'started') || notices.dueAt.length > 0
  }

  async #perform(operation: Operation): Promise<void> {
    switch (operation.do) {
      case 'claim':
        await this.#claim(operation.from, operation.quantity)
        break
      case 'poll': {
        const { flow, slug } = this.#flow(operation.of)
        const tasks = await this.#database.poll(slug, operation.quantity)
        await this.#admit()
        expect(tasks).toEqual(await this.#claimed([flow], operation.quantity))
        break
      }
      case 'extend':
        await this.#extend(operation.task, operation.attempt)
        break
      case 'handBack':
        await this.#handBack(operation.task, operation.attempt)
        break
      case 'settle':
        await this.#settle(this.#settlements(operation.picks))
        break
      case 'settleAndClaim':
        await this.#settleAndClaim(this.#settlements(operation.picks), operation)
        break
      case 'settleByHand':
        for (const settlement of this.#settlements([operation.pick])) await this.#settleByHand(settlement)
        break
      case 'elapse':
        await this.#elapse(operation.task)
        break
      case 'completeWait': {
        const { run, step, key } = this.#wait(operation.wait)
        if (!step) break
        await this.#agree(
          run.completeWait(step, operation.value),
          this.#database.completeWait(...key, operation.value),
        )
        break
      }
      case 'rejectWait': {
        const { run, step, key } = this.#wait(operation.wait)
        if (!step) break
        await this.#agree(
          run.rejectWait(step, operation.reason),
          this.#database.rejectWait(...key, operation.reason),
        )
        break
      }
      case 'tick':
        await this.#tick()
        break
      case 'setLimit': {
        const limit = this.#queue.limits[operation.limit]
        if (!limit) break
        limit.running = operation.running
        await this.#database.setLimit(limit)
        break
      }
      case 'jump':
        // What is over its deadline by which clock, and what a rate lets pass that has let others pass later, is left open.
        if (operation.seconds < 0 && this.#dependsOnClock) break
        await this.#setClock(this.#queue.clock.now + operation.seconds)
        break
      case 'cancel': {
        const run = this.#run(operation.run, ['started'])
        await this.#cancel(run, operation.undo)
        break
      }
      case 'retry': {
        const run = this.#run(operation.run, ['failed', 'cancelled'])
        await this.#retry(run)
        break
      }
      case 'start': {
        const { flow, slug } = this.#flow(operation.of)
        const run = this.#queue.start(flow, operation.input, operation.delay)
        run.id = await this.#database.start(slug, operation.input, { delay: operation.delay })
        break
      }
      case 'startMany':
        await this.#startMany(operation)
        break
      case 'startAgain': {
        const run = this.#run(operation.run)
        const runId = run.id
        const input = operation.input === undefined ? run.input : operation.input
        const again = this.#database.start(this.#slugs.get(run.flow)!, input, { runId })
        await this.#agree(isDeepStrictEqual(input, run.input), again)
      }
    }
  }

  async #tick(): Promise<void> {
    const { settled, nextDueAt } = await this.#database.tick()
    const due = this.#queue.tick()
    await this.#tend(true)
    const admitted = await this.#admit()
    // What is done for parents, children and undo is counted as the engine likes.
    if (!this.#isComposed) expect(settled).toBe(due + admitted)
    this.#nextDueAt = nextDueAt ?? 0
    // There may be something to look at before, in vain or not: a slot, the deadline of what has ended.
    const expected = this.#queue.nextDueAt
    const isExact = this.#queue.limits.length === 0 && !this.#flows.some(hasDeadlines)
    if (isExact) expect(nextDueAt).toEqual(expected)
    else if (expected !== null) expect(nextDueAt).toBeLessThanOrEqual(expected)
  }

  /** Lets the model start runs for others; tells it their ids. */
  async #tend(isTick: boolean): Promise<void> {
    const { notices, clock } = this.#queue
    if (!notices.dueAt.some((dueAt) => dueAt <= clock.now)) return
    const known = this.#queue.runs.map((run) => run.id)
    // A task may have had another child before, which was undone.
    const rows = (await this.#database.descendants(known)).filter(({ run_id }) => !known.includes(run_id))
    const ids = new Map(rows.map((row) => [row.undoes ?? parentName(row), row.run_id]))
    this.#queue.idOf = ({ parent, undoes }) => {
      const name = undoes
        ? undoes.id
        : nameOf({
            run_id: parent!.run.id,
            step_slug: parent!.step.definition.slug,
            task_index: parent!.index,
          })
      const id = ids.get(name)
      if (!id) throw new Error(`nobody has started a run for ${name}`)
      return id
    }
    this.#queue.tend(isTick)
    await this.#adopt()
  }

  /** Tells the model which tasks have been given slots. */
  async #admit(): Promise<number> {
    this.#begun.clear()
    if (!this.#queue.isCrowded) return 0
    const rows = await this.#adopt()
    return this.#queue.admit((task) => {
      const row = rows.get(nameOf(this.#key(task)))!
      // It may have been closed after that, in the same call.
      if (row.attempts_count > task.attempts) this.#begun.add(task)
      if (row.message_id !== null || row.waits_for === 'run') return 'is admitted'
      return row.waits_for === 'slot' ? 'is ready' : 'waits'
    })
  }

  async #claim(from: number | 'all', quantity: number): Promise<void> {
    const { flows, slugs, limit } = this.#source(from, quantity)
    const tasks = await this.#database.claim(slugs, limit)
    await this.#admit()
    expect(tasks.sort(byFlow)).toEqual(await this.#claimed(flows, limit))
  }

  async #claimed(flows: FlowDefinition[], quantity: number) {
    const tasks: Task[] = []
    for (const flow of flows) {
      const before = this.#reads.get(flow)
      const reads = await this.#database.reads(this.#slugs.get(flow)!)
      this.#reads.set(flow, reads)
      const isRead = (task: Task) =>
        this.#begun.has(task) || (reads.get(task.message) ?? 0) > (before?.get(task.message) ?? 0)
      tasks.push(...this.#queue.claim(flow, Math.max(0, quantity), isRead))
    }
    return tasks
      .map((task) => ({
        flow_slug: this.#slugs.get(task.run.flow)!,
        ...this.#key(task),
        input: task.run.inputOf(task),
        refs: null,
        msg_id: task.message,
        attempt: task.attempts,
        timeout: 60,
      }))
      .sort(byFlow)
  }

  /** The flows of a claim; of how many each gives so many is left open, so all are taken. */
  #source(from: number | 'all', quantity: number) {
    if (from === 'all') return { flows: this.#flows, slugs: [...this.#slugs.values()], limit: 10_000 }
    const { flow, slug } = this.#flow(from, this.#flows)
    return { flows: [flow], slugs: [slug], limit: quantity }
  }

  get #flows(): FlowDefinition[] {
    return [...this.#slugs.keys()]
  }

  #flow(of: number, flows: readonly FlowDefinition[] = this.#queue.flows) {
    const flow = flows[flows.length - 1 - (of % flows.length)]!
    return { flow, slug: this.#slugs.get(flow)! }
  }

  get #dependsOnClock(): boolean {
    return this.#flows.some(hasDeadlines) || this.#queue.limits.some(({ rate }) => rate !== null)
  }

  /** Whether runs are started for others. */
  get #isComposed(): boolean {
    return this.#flows.some(({ steps }) => steps.some(({ child, hasUndo }) => child ?? hasUndo))
  }

  async #settle(settlements: Settlement[]): Promise<void> {
    const applied = await this.#database.settle(settlements.map((settlement) => this.#result(settlement)))
    expect(applied).toEqual(this.#queue.settle(settlements))
  }

  async #settleAndClaim(
    settlements: Settlement[],
    { from, quantity }: { from: number | 'all'; quantity: number },
  ): Promise<void> {
    const { flows, slugs, limit } = this.#source(from, quantity)
    const results = settlements.map((settlement) => this.#result(settlement))
    const { stale, tasks } = await this.#database.settleAndClaim(results, slugs, limit)
    const applied = this.#queue.settle(settlements)
    await this.#tend(false)
    if (this.#queue.isCrowded) {
      await this.#admit()
    } else {
      this.#begun.clear()
      await this.#adopt()
    }
    expect(stale).toEqual(results.flatMap(({ ending, ...result }, n) => (applied[n] ? [] : [result])))
    expect(tasks.sort(byFlow)).toEqual(await this.#claimed(flows, limit))
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
    if (isHeld) hide(task)
  }

  async #handBack(nth: number, which: Pick['attempt']): Promise<void> {
    const claimed = this.#queue.tasks.filter(({ status }) => status === 'started')
    const task = claimed[nth % claimed.length]
    if (!task) return
    const attempt = attemptOf(task, which)
    const isHeld = attempt === task.attempts
    expect(await this.#database.handBack({ ...this.#key(task), attempt })).toBe(isHeld ? 1 : 0)
    if (isHeld) handBack(task)
  }

  async #elapse(nth: number | undefined): Promise<void> {
    const open = this.#queue.tasks.filter(hasMessage)
    const tasks = nth === undefined ? open : open.slice(nth % (open.length + 1)).slice(0, 1)
    for (const task of tasks) show(task)
    for (const [flow, slug] of this.#slugs) {
      const own = tasks.filter(({ run }) => run.flow === flow)
      await this.#database.elapse(
        slug,
        own.map(({ message }) => message),
      )
    }
  }

  async #startMany({ of, inputs, delay }: { of: number; inputs: Json[]; delay: number }): Promise<void> {
    const { flow, slug } = this.#flow(of)
    const count = this.#queue.runs.length
    const keys = inputs.map((input) => `${hash('sha1', JSON.stringify(input))} ${count}`)
    const ids = await this.#database.startMany(slug, inputs, keys, delay)
    for (const [n, key] of keys.entries()) {
      const first = keys.indexOf(key)
      if (first === n) this.#queue.start(flow, inputs[n]!, delay).id = ids[n]!
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

  /** The nth of the waits, mostly of those that wait. */
  #wait(n: number): { run: Run; step: Step | undefined; key: [runId: string, step: string] } {
    const all = this.#queue.runs.flatMap((run) =>
      run.steps.filter(({ definition }) => definition.wait).map((step) => ({ run, step })),
    )
    const begun = all.filter(({ step }) => step.status === 'started')
    const waits = n % 3 === 0 || begun.length === 0 ? all : begun
    const { run, step } = waits[n % waits.length] ?? { run: this.#queue.runs[0]!, step: undefined }
    return { run, step, key: [run.id, step?.definition.slug ?? ''] }
  }

  #key({ run, step, index }: Task) {
    return { run_id: run.id, step_slug: step.definition.slug, task_index: index }
  }

  #result({ task, attempt, ending }: Settlement): Result {
    return { ...this.#key(task), attempt, ending }
  }

  /** Compares every run with the model, its log with its snapshots, and the queues with the open tasks. */
  async #compare(): Promise<void> {
    const [observations, messages] = await Promise.all([
      this.#observe(),
      this.#database.messages([...this.#slugs.values()]),
    ])
    for (const [n, run] of this.#queue.runs.entries()) {
      const seen = observations[n]!
      const before = this.#seen.get(run)
      const events = [...(before?.events ?? []), ...seen.events]
      agree(rowsOf({ ...seen, events }), look(run))
      agree(
        events.map(({ seq }) => seq),
        events.map((_, n) => n + 1),
      )
      if (before) agree(replay(before, seen), withoutUndo(seen.snapshot))
      this.#seen.set(run, { ...seen, events })
    }
    agree([...messages], this.#messages())
  }

  #messages() {
    return this.#queue.tasks
      .filter(hasMessage)
      .map((task) => ({
        flow_slug: this.#slugs.get(task.run.flow)!,
        msg_id: task.message,
        ...this.#key(task),
        hidden_until: task.hiddenUntil,
      }))
      .sort(byFlow)
  }

  /** Reads everything that is new, and tells the model the ids of its messages. */
  async #observe(): Promise<Observation[]> {
    const { runs } = this.#queue
    const observations = await this.#database.observe(
      runs.map((run) => run.id),
      runs.map((run) => this.#seen.get(run)?.events.length ?? 0),
    )
    this.#name(
      observations.flatMap(({ run, tasks }) => tasks.map((task) => ({ ...task, run_id: run.run_id }))),
    )
    return observations
  }

  /** Tells the model the ids of its messages; answers with the tasks as they are, by name. */
  async #adopt(): Promise<Map<string, TaskRow>> {
    return this.#name(await this.#database.tasks(this.#queue.runs.map((run) => run.id)))
  }

  #name(tasks: readonly TaskRow[]): Map<string, TaskRow> {
    const rows = new Map(tasks.map((task) => [nameOf(task), task]))
    for (const task of this.#queue.tasks) {
      const row = rows.get(nameOf(this.#key(task)))
      task.message = row?.message_id ?? 0
      if (task.step.definition.child) task.childId ??= row?.child_run_id ?? null
    }
    return rows
  }
}

/** In one order whatever the flows' slugs are: by flow, and by the ids of messages, which are each flow's own. */
function byFlow(a: ClaimedId, b: ClaimedId): number {
  if (a.flow_slug !== b.flow_slug) return a.flow_slug < b.flow_slug ? -1 : 1
  return a.msg_id - b.msg_id
}

function hasDeadlines({ deadline, steps }: FlowDefinition): boolean {
  return deadline !== null || steps.some((step) => step.deadline !== null)
}

function nameOf({ run_id, step_slug, task_index }: TaskKey): string {
  return `${run_id} ${step_slug} ${task_index}`
}

function parentName({ parent_run_id, parent_step_slug, parent_task_index }: Descendant): string {
  return nameOf({ run_id: parent_run_id!, step_slug: parent_step_slug!, task_index: parent_task_index! })
}

/** How many waves a flow takes, about: one for each turn of a loop, more for children; those of one that calls itself, too. */
function wavesOf({ steps }: FlowDefinition, place: number): number {
  const waves = steps.map(({ child, loop }) => (child ? 3 : (loop?.max ?? 1))).reduce((sum, one) => sum + one)
  return steps.some(({ child }) => child?.flow === place) ? waves * deepest : waves
}

function attemptOf({ attempts }: Task, which: Pick['attempt']): number | null {
  return { current: attempts, older: attempts - 1, newer: attempts + 1, none: null }[which]
}

/** What `toEqual` says, and quickly where there is nothing to say. */
function agree<T>(seen: T, expected: T): void {
  if (!isDeepStrictEqual(seen, expected)) expect(seen).toEqual(expected)
}
