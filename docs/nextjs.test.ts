import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { pageOf, root } from './testing/pages.ts'
import { filesOf } from './testing/shown.ts'

const files = filesOf(pageOf('docs/nextjs.md').text)

it('nextjs.md shows the app', () => {
  expect([...files.keys()]).toContain('app/actions.ts')
})

// The app itself is built and used in examples/apps.test.ts.
it.each([...files])('nextjs.md shows %s as the example has it', (path, code) => {
  expect(code).toBe(readFileSync(join(root, 'examples/nextjs', path), 'utf8'))
})
