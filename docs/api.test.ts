import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { apiPages } from './generate/api.ts'
import { pageOf, root } from './testing/pages.ts'

it('The API reference is what the sources say; `npm run docs` writes it', async () => {
  const names = readdirSync(join(root, 'docs/api')).sort()
  const committed = new Map(names.map((name) => [name, pageOf(`docs/api/${name}`).text]))
  expect(committed).toEqual(await apiPages())
})
