import type { Log } from '../flow/context.ts'
import { toJson } from '../flow/json.ts'
import { isTransient } from './faults.ts'
import { idOf, keyOf } from './tasks.ts'
import { after } from './time.ts'
import type { ProgressReport, TaskKey, Transport } from './transport.ts'

/** Seconds between two calls. */
const interval = 1

/** Characters of one report's data. */
const largestData = 16_384

/** Characters of all reports in one call, about. */
const largestCall = 1_000_000

export interface ProgressOptions {
  readonly transport: Pick<Transport, 'reportProgress'>
  readonly log: Log
}

/** Tells the database how far handlers are: the first report at once, then the latest of each task once a second. */
export class Progress {
  readonly #options: ProgressOptions
  readonly #reports = new Map<string, ProgressReport>()
  #cancel: (() => void) | undefined

  constructor(options: ProgressOptions) {
    this.#options = options
  }

  add(report: ProgressReport): void {
    this.#reports.set(idOf(report), report)
    if (this.#cancel === undefined) this.#send()
  }

  /** The attempt is over: what it reported last is of no interest any more. */
  drop(task: TaskKey): void {
    this.#reports.delete(idOf(task))
  }

  close(): void {
    this.#reports.clear()
    this.#cancel?.()
    this.#cancel = undefined
  }

  #send(): void {
    const reports = this.#nextReports()
    this.#cancel = reports.length === 0 ? undefined : after(interval, () => this.#send())
    if (reports.length > 0) void this.#report(reports)
  }

  /** Takes the oldest; the others go with the next calls. */
  #nextReports(): ProgressReport[] {
    const reports: ProgressReport[] = []
    let characters = 0
    for (const [id, report] of this.#reports) {
      characters += JSON.stringify(report).length
      if (reports.length > 0 && characters > largestCall) break
      reports.push(report)
      this.#reports.delete(id)
    }
    return reports
  }

  async #report(reports: readonly ProgressReport[]): Promise<void> {
    const { transport, log } = this.#options
    try {
      const held = new Set((await transport.reportProgress(reports)).map(idOf))
      if (this.#cancel !== undefined) this.#keep(reports.filter((report) => held.has(idOf(report))))
    } catch (error) {
      log.warn('The progress of steps could not be reported', { error })
      if (isTransient(error) && this.#cancel !== undefined) this.#keep(reports)
    }
  }

  /** Newer reports came meanwhile, and go first. */
  #keep(reports: readonly ProgressReport[]): void {
    for (const report of reports) {
      if (!this.#reports.has(idOf(report))) this.#reports.set(idOf(report), report)
    }
  }
}

/**
 * @throws RangeError if the value is no finite number, or the data is too long
 * @throws NotJsonError
 */
export function reportOf(task: TaskKey, value: number, data: unknown, hasItem: boolean): ProgressReport {
  if (!Number.isFinite(value)) throw new RangeError(`progress got ${value}: give it a finite number`)
  const json = data === undefined ? undefined : toJson(data)
  if (json !== undefined && json.length > largestData) {
    throw new RangeError(`progress got data of ${json.length} characters: give it ${largestData} at most`)
  }
  return {
    ...keyOf(task),
    progress: {
      value,
      ...(json !== undefined && { data: JSON.parse(json) }),
      ...(hasItem && { task_index: task.task_index }),
    },
  }
}
