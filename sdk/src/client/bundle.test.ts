import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { bundle, limit } from './testing/bundle.ts'

const client = fileURLToPath(new URL('./index.ts', import.meta.url))
const options = { conditions: ['pgflow-source'] }

it(`is at most ${limit} bytes, gzipped`, async ({ annotate }) => {
  const { size, first, inputs } = await bundle(client, options)
  await annotate(`${size} bytes gzipped`, 'size')
  expect(size).toBeLessThanOrEqual(limit)
  expect(size).toBeGreaterThan(limit / 2)
  // Only what schemas need comes later, what explains why something is refused, and what not every page needs.
  expect(inputs.filter((path) => !first.includes(path)).sort()).toEqual([
    'sdk/src/client/explain.ts',
    'sdk/src/client/iterate.ts',
    'sdk/src/client/lists.ts',
    'sdk/src/client/socket.ts',
    'sdk/src/flow/issues.ts',
    'sdk/src/flow/json-text.ts',
    'sdk/src/shared/schema-version.ts',
  ])
})

it('has nothing of supabase-js, of Node or of the worker in it', async () => {
  const { inputs } = await bundle(client, options)
  const folders = inputs.map((path) => path.replace(/[^/]+$/, ''))
  expect(new Set(folders)).toEqual(
    new Set(['sdk/src/client/', 'sdk/src/flow/', 'sdk/src/shared/', 'node_modules/nanoevents/']),
  )
})
