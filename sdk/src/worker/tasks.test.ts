import { expect, it } from 'vitest'
import { toJson } from '../flow/json.ts'
import { resultsJson } from './tasks.ts'

const key = { run_id: '7d1a', step_slug: 'a', task_index: 0, attempt: 2 }

it.each(['123', '"123"', 'null', '0.1', '12345678901234567890', '{"b": 1, "a": [null]}', '"\\"}"'])(
  'puts the output %s into the results as it was written',
  (outputJson) => {
    expect(resultsJson([{ ...key, outputJson }])).toBe(
      `[{"run_id":"7d1a","step_slug":"a","task_index":0,"attempt":2,"output":${outputJson}}]`,
    )
  },
)

it('mixes completed and failed results', () => {
  const results = [
    { ...key, outputJson: toJson({ text: '"' }) },
    { ...key, error: 'a "b"', retry_delay: 2 },
    { ...key, error: '', permanent: true },
  ]
  expect(JSON.parse(resultsJson(results))).toEqual([
    { ...key, output: { text: '"' } },
    { ...key, error: 'a "b"', retry_delay: 2 },
    { ...key, error: '', permanent: true },
  ])
})
