import { vi } from 'vitest'
import type { AnyFlow, Json } from '../../flow/index.ts'
import { schemaVersion } from '../../shared/schema-version.ts'
import { Core, type CoreOptions } from '../core.ts'
import { idOf, keyOf } from '../tasks.ts'
import type {
  ClaimedTask,
  Lease,
  ProgressReport,
  Result,
  ResultToKeep,
  TaskKey,
  Tick,
  Transport,
  ValueRef,
  Work,
  WorkRequest,
} from '../transport.ts'

export const flow_slug = 'flow'

/** A database of a few lines, with a fake clock's patience. */
export class MemoryTransport implements Transport {
  readonly queue: ClaimedTask[] = []
  readonly claims: { at: number; quantity: number }[] = []
  readonly batches: Result[][] = []
  readonly extended: TaskKey[][] = []
  exchanges = 1
  canListen = true
  readonly requests: (WorkRequest & { at: number })[] = []
  readonly settled: Result[] = []
  readonly returned: TaskKey[] = []
  readonly reports: ProgressReport[][] = []
  /** Runs that another transaction has locked. */
  readonly locked = new Set<string>()
  /** The statuses of tasks that are no longer their attempts'. */
  readonly closed = new Map<string, string | null>()
  /** Called before a call has an effect; what it throws or waits for happens to the call. */
  before: Partial<
    Record<
      'claim' | 'settle' | 'extend' | 'handBack' | 'report' | 'tick',
      (results: readonly Result[]) => unknown
    >
  > = {}
  /** When something is due, in order, and when there was a tick; milliseconds. */
  dueAt: number[] = []
  readonly ticks: number[] = []

  addTasks(...steps: string[]): void {
    for (const step_slug of steps) {
      const run_id = `run ${this.queue.length}`
      this.queue.push({
        run_id,
        step_slug,
        task_index: 0,
        attempt: 1,
        flow_slug,
        input: { run: null },
        refs: null,
        timeout: 60,
      })
    }
  }

  async settleAndClaim(request: WorkRequest): Promise<Work> {
    const { results, quantity } = request
    this.requests.push({ at: Date.now(), ...request })
    if (quantity > 0) this.claims.push({ at: Date.now(), quantity })
    if (results.length > 0) {
      this.batches.push([...results])
      await this.before.settle?.(results)
    }
    if (quantity > 0) await this.before.claim?.([])
    const held = results.filter(({ run_id }) => this.locked.has(run_id))
    this.settled.push(...results.filter((result) => !held.includes(result)))
    const work = { stale: [], held: held.map(keyOf), tasks: this.queue.splice(0, quantity) }
    return request.due ? { ...work, next_due_in: this.#nextDueIn } : work
  }

  /** Settles up to 1,000, unless `before.tick` says that somebody holds them. */
  async tick(): Promise<Tick> {
    this.ticks.push(Date.now())
    const isHeld = await this.before.tick?.([])
    const due = isHeld ? [] : this.dueAt.filter((at) => at <= Date.now()).slice(0, 1000)
    this.dueAt.splice(0, due.length)
    return { settled: due.length, next_due_in: this.#nextDueIn }
  }

  async callFunctions(): Promise<Tick> {
    return { settled: 0, next_due_in: null }
  }

  get #nextDueIn(): number | null {
    return this.dueAt[0] === undefined ? null : (this.dueAt[0] - Date.now()) / 1000
  }

  async heartbeat(_: string, tasks: readonly TaskKey[]): Promise<Lease[]> {
    this.extended.push([...tasks])
    await this.before.extend?.([])
    return tasks.map((task) => {
      const status = this.closed.get(idOf(task))
      return { ...task, active: status === undefined, status: status === undefined ? 'started' : status }
    })
  }

  async handBack(tasks: readonly TaskKey[]): Promise<void> {
    this.returned.push(...tasks)
    await this.before.handBack?.([])
  }

  async reportProgress(reports: readonly ProgressReport[]): Promise<TaskKey[]> {
    this.reports.push([...reports])
    await this.before.report?.([])
    return reports.filter(({ run_id }) => this.locked.has(run_id)).map(keyOf)
  }

  async fetchValue(ref: ValueRef): Promise<string> {
    return JSON.stringify(ref.name)
  }

  /** Tells the worker of new tasks, once it listens. */
  tell: ((flow_slug: string | undefined) => void) | undefined

  async listen(onTasks: (flow_slug: string | undefined) => void): Promise<boolean> {
    this.tell = onTasks
    return this.canListen
  }

  version: number | undefined = schemaVersion

  async schemaVersion(): Promise<number | undefined> {
    return this.version
  }

  async defineFlow(): Promise<void> {}
  async registerWorker(): Promise<void> {}
  async stopWorker(): Promise<void> {}

  async completeWait(): Promise<void> {}

  /** What handlers have kept, by task and name, in order. */
  readonly kept: string[] = []

  async keepResult({ name, valueJson, ...task }: ResultToKeep): Promise<Json> {
    this.kept.push(`${idOf(task)} ${name} ${valueJson}`)
    return JSON.parse(valueJson)
  }

  async keptResultsOf(): Promise<Record<string, Json>> {
    return {}
  }

  async close(): Promise<void> {}

  /** How many queries it would have been. */
  get calls(): number {
    return this.requests.length + this.extended.length + this.reports.length + this.ticks.length
  }

  /** What was settled, in order, without the keys. */
  get outcomes(): string[] {
    return this.batches.flat().map((result) => ('error' in result ? result.error : result.outputJson))
  }
}

/** A handler whose runs are ended by the test. */
export function gate() {
  let open: (value: unknown) => void = () => {}
  const promise = new Promise<unknown>((resolve) => {
    open = resolve
  })
  return { promise, open: (value: unknown) => open(value) }
}

export function databaseError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code })
}

export const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() }

export function startCore(transport: Transport, flow: AnyFlow, options: Partial<CoreOptions> = {}): Core {
  const core = new Core({
    transport,
    flows: [flow],
    workerId: 'worker',
    concurrency: 10,
    lease: 30,
    log,
    resources: {},
    settleBatch: 100,
    settleDelay: 0.01,
    inlineLimit: 65_536,
    cacheLimit: 1_000_000,
    outputLimit: 10_000_000,
    thread: undefined,
    ...options,
  })
  core.start()
  return core
}
