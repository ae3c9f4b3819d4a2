/** Slots: the keys of a task, and which tasks may have theirs. */
import { hash } from 'node:crypto'
import type { FlowDefinition, LimitDefinition, StepDefinition } from './definition.ts'
import { at, type Json, textOf } from './json.ts'
import { holdsSlots, type Task } from './task.ts'

/** A limit as it is now; `slug` is empty for the concurrency of a map. */
export type Limit = { readonly slug: string } & { -readonly [K in keyof LimitDefinition]: LimitDefinition[K] }

export interface Key {
  readonly limit: Limit
  readonly value: string
}

/** The keys of the tasks of a step that has begun, each once. */
export function keysOf(
  flow: FlowDefinition,
  step: StepDefinition,
  input: Json,
  limits: readonly Limit[],
): Key[] {
  const keys: Key[] = []
  for (const { limit, by } of [...flow.limits, ...step.limits]) {
    const value = by ? textOfValue(at(input, by)) : ''
    const isNew = !keys.some((key) => key.limit === limits[limit] && key.value === value)
    if (isNew) keys.push({ limit: limits[limit]!, value })
  }
  const { concurrency } = step
  if (concurrency !== null) {
    keys.push({ limit: { slug: '', running: concurrency, rate: null }, value: step.slug })
  }
  return keys
}

function textOfValue(value: Json | undefined): string {
  const text = value === undefined || value === null ? '' : typeof value === 'string' ? value : textOf(value)
  return text.length <= 200 ? text : hash('md5', text)
}

/** A key as the database has it. */
export function textOfKey({ limit, value }: Key, { run }: Task): string {
  return limit.slug === '' ? `:${run.id}:${value}` : `${limit.slug}:${value}`
}

/** When tasks of keys with a rate were admitted. */
export class Slots {
  readonly #admissions = new Map<Limit, Map<string, number[]>>()

  /** What is wrong with the admission of tasks, at a time; `all` are the tasks after it. */
  admit(admitted: readonly Task[], all: readonly Task[], now: number): string[] {
    const problems: string[] = []
    for (const task of admitted) {
      for (const key of task.keys!) this.#timesOf(key).push(now)
    }
    for (const key of new Set(admitted.flatMap((task) => task.keys!))) {
      const { running, rate } = key.limit
      const taken = held(key, all)
      if (running !== null && taken > running)
        problems.push(`${taken} hold a slot of ${nameOf(key)}, not ${running}`)
      if (rate) problems.push(...this.#tooFast(key, rate))
    }
    for (const task of admitted) {
      const ahead = all.find(
        (one) => one.waitsFor === 'slot' && one.rank! < task.rank! && haveSameKeys(one, task),
      )
      if (ahead) problems.push(`a task of rank ${task.rank} came before one of rank ${ahead.rank}`)
    }
    return problems
  }

  /** The first of the tasks that could have been admitted, too. */
  forgotten(all: readonly Task[], now: number): Task | undefined {
    return all.find(
      (task) => task.waitsFor === 'slot' && task.keys!.every((key) => this.#hasRoom(key, all, now)),
    )
  }

  #hasRoom(key: Key, all: readonly Task[], now: number): boolean {
    const { running, rate } = key.limit
    if (running !== null && held(key, all) >= running) return false
    // A rate may space its tasks as it likes, but after a period without any it admits one.
    return rate === null || this.#timesOf(key).every((time) => now - time > 1.1 * rate[1])
  }

  #tooFast(key: Key, [count, period]: readonly [count: number, period: number]): string[] {
    const times = this.#timesOf(key)
    return times.flatMap((from) => {
      const within = times.filter((time) => time >= from && time < from + period).length
      return within > count ? [`${within} of ${nameOf(key)} were admitted in ${period} s, not ${count}`] : []
    })
  }

  #timesOf({ limit, value }: Key): number[] {
    const ofLimit = this.#admissions.get(limit) ?? new Map<string, number[]>()
    this.#admissions.set(limit, ofLimit)
    const times = ofLimit.get(value) ?? []
    ofLimit.set(value, times)
    return times
  }
}

/** How many tasks hold a slot of a key. */
function held(key: Key, all: readonly Task[]): number {
  return all.filter((task) => holdsSlots(task) && task.keys!.some((one) => isSame(one, key))).length
}

function haveSameKeys(a: Task, b: Task): boolean {
  return a.keys!.length === b.keys!.length && a.keys!.every((key) => b.keys!.some((one) => isSame(one, key)))
}

function isSame(a: Key, b: Key): boolean {
  return a.limit === b.limit && a.value === b.value
}

function nameOf({ limit, value }: Key): string {
  return `${limit.slug}:${value}`
}
