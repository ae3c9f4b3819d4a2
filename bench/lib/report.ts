import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { median, spread, tableOf } from '../measure.ts'

/** A figure that a scenario takes of each contender. */
export interface Figure {
  /** The head of its column, with the unit. */
  title: string
  /** Absent where neither is. */
  better?: 'higher' | 'lower'
  digits?: number
}

/** Values by contender and figure, one a round. */
export type Values = Record<string, Record<string, number[]>>

/** What a scenario found. */
export class Report {
  readonly scenario: string
  readonly figures: Record<string, Figure>
  readonly values: Values = {}
  /** How much was measured: runs, rounds. */
  readonly setting: Record<string, number>
  /** The figure that a chart shows. */
  chart?: { figure: string; title: string }
  readonly #loads: number[] = []

  constructor(scenario: string, figures: Record<string, Figure>, setting: Record<string, number>) {
    this.scenario = scenario
    this.figures = figures
    this.setting = setting
  }

  add(contender: string, figures: Record<string, number>): void {
    const before = this.values[contender] ?? {}
    const added = Object.entries(figures).map(([key, value]) => [key, [...(before[key] ?? []), value]])
    this.values[contender] = { ...before, ...Object.fromEntries(added) }
    this.#loads.push(loadavg()[0] ?? 0)
  }

  /** Median, minimum and maximum of each figure, as a table in Markdown. */
  table(): string {
    const keys = Object.keys(this.figures)
    return tableOf(
      ['', ...keys.map((key) => this.figures[key]?.title ?? key)],
      Object.entries(this.values).map(([name, values]) => [
        name,
        ...keys.map((key) => (values[key] ? spread(values[key], this.figures[key]?.digits) : '')),
      ]),
    )
  }

  get setup(): string {
    const { cores, cpu, memory, node } = machine
    const load = this.#loads.length > 0 ? median(this.#loads).toFixed(1) : '?'
    const setting = Object.entries(this.setting).map(
      ([name, value]) => `${name} ${value.toLocaleString('en')}`,
    )
    return `${setting.join(', ')}; ${cores} cores of ${cpu}, ${memory} GB, Node ${node}, Postgres 17, durable commits, load ${load}`
  }

  save(): void {
    const { scenario, figures, setting, values } = this
    const load = { median: median(this.#loads), maximum: Math.max(...this.#loads) }
    const content = { scenario, at: new Date().toISOString(), machine, load, setting, figures, values }
    mkdirSync(folder, { recursive: true })
    writeFileSync(`${folder}${scenario}.json`, jsonOf(rounded(content)))
  }
}

/** Where results are kept. */
export const folder = fileURLToPath(new URL('../results/', import.meta.url))

const machine = {
  cores: cpus().length,
  cpu:
    cpus()[0]
      ?.model.replace(/\(.*?\)|CPU.*/g, '')
      .trim() ?? 'unknown',
  memory: Math.round(totalmem() / 2 ** 30),
  kernel: release(),
  node: process.versions.node,
}

/** Indented, with lists of numbers on one line, as the formatter has them. */
export function jsonOf(value: unknown): string {
  const indented = JSON.stringify(value, null, 2)
  return `${indented.replaceAll(/\[\s+([^[\]{}]*?)\s+\]/g, (_, list: string) => `[${list.replaceAll(/\s+/g, ' ')}]`)}\n`
}

/** Four significant digits are more than any of this is worth. */
function rounded(value: unknown): unknown {
  if (typeof value === 'number') return Number(value.toPrecision(4))
  if (Array.isArray(value)) return value.map(rounded)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, rounded(inner)]))
}
