import { existsSync } from 'node:fs'
import { dirname, relative, resolve } from 'node:path'
import { expect, it } from 'vitest'
import { anchorsOf, api, docs, type Page, pageOf, readmes, root } from './testing/pages.ts'

const others = ['ARCHITECTURE.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'bench/README.md'].map(pageOf)
const pages = [...readmes, ...others, ...docs, ...api]

interface Link {
  /** Of a file of this project. */
  readonly path: string
  readonly anchor: string | undefined
}

function linksOf(page: Page): Link[] {
  const targets = [...page.text.matchAll(/\]\((?!https?:)([^)#]*)#?([^)]*)\)/g)]
  return targets.map(([, path, anchor]) => ({
    path: path === '' ? page.path : resolve(dirname(page.path), path!),
    anchor: anchor || undefined,
  }))
}

it.each(pages.map((page) => [page.name, page]))('The links of %s lead somewhere', (_, page) => {
  const isDead = ({ path, anchor }: Link) =>
    !existsSync(path) || (anchor !== undefined && !anchorsOf(pageOf(relative(root, path))).has(anchor))
  expect(linksOf(page).filter(isDead)).toEqual([])
})

it('README leads to the index of docs, and that to each page', () => {
  const [fromReadme, fromIndex] = ['README.md', 'docs/README.md'].map((name) =>
    linksOf(pageOf(name)).map(({ path }) => path),
  )
  const index = pageOf('docs/README.md').path
  expect(fromReadme).toContain(index)
  expect([...docs, ...api].filter(({ path }) => path !== index && !fromIndex!.includes(path))).toEqual([])
})

it('README has at most 150 lines, and code before line 25', () => {
  const lines = pageOf('README.md').text.trimEnd().split('\n')
  expect(lines.length).toBeLessThanOrEqual(150)
  expect(lines.indexOf('```ts')).toBeLessThan(24)
})
