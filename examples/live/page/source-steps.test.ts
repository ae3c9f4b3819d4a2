import { readFile } from 'node:fs/promises'
import { shapeOf } from '@pgflow/sdk/flow'
import { expect, test } from 'vitest'
import { ReadDocument } from '../flow.ts'
import { stepOfLines } from './source-steps.ts'

test('finds the lines of each step of the flow', async () => {
  const source = await readFile(new URL('../flow.ts', import.meta.url), 'utf8')
  const lines = source.split('\n')
  const found = new Map<string, string[]>()
  for (const [index, step] of stepOfLines(source).entries())
    if (step) found.set(step, [...(found.get(step) ?? []), lines[index]!])

  const slugs = shapeOf(ReadDocument).steps.map(({ step_slug }) => step_slug)
  expect([...found.keys()].toSorted()).toEqual(slugs.toSorted())
  expect(found.get('text')).toEqual([
    "  .step('text', async ({ run }, context) => {",
    '    await context.resources.pause(context)',
    '    return readDocument(run.document)',
    '  })',
  ])
  expect(found.get('headings')?.[0]).toMatch(/^ {2}\.flow\(\{ slug: 'headings'/)
  expect(found.get('contents')?.at(-1)).toBe('  )')
})
