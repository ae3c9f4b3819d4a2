import { expect, test } from 'vitest'
import { lowerThan, ratiosOf } from './baseline.ts'
import { chartOf } from './chart.ts'

const figures = {
  steps: { title: 'steps/s', better: 'higher' as const },
  wal: { title: 'WAL', better: 'lower' as const },
  note: { title: 'neither' },
}
const values = {
  'ours, defaults': { steps: [200, 300, 330], wal: [50, 50, 100], note: [1, 1, 1] },
  'bare pgmq': { steps: [100, 100, 110], wal: [100, 100, 100], note: [1, 1, 1] },
}

test('a ratio is of the same round, and more than 1 is better, whatever the figure', () => {
  expect(ratiosOf({ figures, values })).toEqual({
    'ours, defaults: steps / bare pgmq': { ratio: 3, from: 2, to: 3 },
    'ours, defaults: wal / bare pgmq': { ratio: 2, from: 1, to: 2 },
  })
})

test('only what is lower in every round than in every round before is lower', () => {
  const baseline = { a: { ratio: 3, from: 2, to: 4 }, gone: { ratio: 1, from: 1, to: 1 } }
  expect(
    lowerThan(baseline, { a: { ratio: 1.8, from: 1.5, to: 2 }, new: { ratio: 1, from: 1, to: 1 } }),
  ).toEqual([])
  expect(lowerThan(baseline, { a: { ratio: 1.8, from: 1.5, to: 1.9 } })).toEqual([
    'a: 1.8 (1.5 … 1.9), was 3 (2 … 4)',
  ])
})

test('a chart has the best first', () => {
  const names = (key: string) => chartOf({ figures, values }, key, 'A < B').match(/ours, defaults|bare pgmq/g)
  expect(names('steps')).toEqual(['ours, defaults', 'bare pgmq'])
  expect(names('wal')).toEqual(['ours, defaults', 'bare pgmq'])
  expect(chartOf({ figures: {}, values }, 'steps', 'A < B')).toContain('A &lt; B')
})
