/*
 * How long the compiler takes for the types of a flow. Each size is compiled several times; the figures are medians.
 *
 *   npm run bench types            ROUNDS=5
 */

import { largeFlow } from '../sdk/src/testing/large-flow.ts'
import { type compilers, diagnosticsOf } from '../sdk/src/testing/typescript.ts'
import { median, spread, table } from './measure.ts'

const rounds = Number(process.env.ROUNDS ?? 5)
const sizes = [1, 25, 50, 100, 200]

async function row(version: keyof typeof compilers, steps: number): Promise<string[]> {
  const program = largeFlow(steps)
  const runs: Map<string, number>[] = []
  for (let round = 0; round < rounds; round++) runs.push(await diagnosticsOf(program, version))
  const figures = (name: string) => runs.map((run) => run.get(name) ?? Number.NaN)
  return [
    version,
    String(steps),
    spread(figures('Check time'), 2),
    spread(figures('Total time'), 2),
    median(figures('Types')).toLocaleString('en'),
    median(figures('Instantiations')).toLocaleString('en'),
  ]
}

const rows: string[][] = []
for (const version of ['7', '5.9'] as const) {
  for (const steps of sizes) rows.push(await row(version, steps))
}
table(['TypeScript', 'steps', 'check, s', 'total, s', 'types', 'instantiations'], rows)
