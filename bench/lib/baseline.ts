import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { median } from '../measure.ts'
import type { Report } from './report.ts'

/** What ours are compared with, in the same run. */
const REFERENCES = ['bare pgmq', '@pgflow/core 0.8.1, as its edge worker']

/** How many times as good as the reference: median, minimum and maximum over the rounds. */
interface Ratio {
  ratio: number
  from: number
  to: number
}

/** Ratios by scenario, and by `contender: figure / reference`. */
export type Baseline = Record<string, Record<string, Ratio>>

const file = fileURLToPath(new URL('../baseline.json', import.meta.url))

/** Each figure of ours against that of the references, by round; more than 1 is better than they are. */
export function ratiosOf({ figures, values }: Pick<Report, 'figures' | 'values'>): Record<string, Ratio> {
  const ratios: Record<string, Ratio> = {}
  for (const reference of REFERENCES) {
    for (const [name, ours] of Object.entries(values)) {
      if (!name.startsWith('ours')) continue
      for (const [key, { better }] of Object.entries(figures)) {
        const theirs = values[reference]?.[key]
        if (!better || !ours[key] || !theirs) continue
        const found = ours[key]
          .map((value, round) =>
            better === 'higher' ? value / (theirs[round] ?? 0) : (theirs[round] ?? 0) / value,
          )
          .filter((ratio) => Number.isFinite(ratio) && ratio > 0)
        if (found.length === 0) continue
        ratios[`${name}: ${key} / ${reference}`] = {
          ratio: rounded(median(found)),
          from: rounded(Math.min(...found)),
          to: rounded(Math.max(...found)),
        }
      }
    }
  }
  return ratios
}

/** What got lower than all rounds of the baseline, in all rounds. */
export function lowerThan(baseline: Record<string, Ratio>, ratios: Record<string, Ratio>): string[] {
  return Object.entries(ratios).flatMap(([name, now]) => {
    const then = baseline[name]
    if (!then || now.to >= then.from) return []
    return [`${name}: ${text(now)}, was ${text(then)}`]
  })
}

export function readBaseline(): Baseline {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw cause
  }
}

export function writeBaseline(baseline: Baseline): void {
  writeFileSync(file, `${JSON.stringify(baseline, null, 2)}\n`)
}

const rounded = (value: number) => Number(value.toPrecision(3))
const text = ({ ratio, from, to }: Ratio) => `${ratio} (${from} … ${to})`
