import { existsSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { expect, it } from 'vitest'
import { packedPages, pagesOf } from '../scripts/pages.ts'
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

it('The links of the pages in @pgflow/sdk lead to pages in it', async () => {
  const files = Object.entries(await packedPages(root))
  const packed = files.map(([name, content]) => ({ name, path: join('/', name), text: content.toString() }))
  const pagesByPath = new Map(packed.map((page) => [page.path, page]))
  const isDead = ({ path, anchor }: Link) => {
    const page = pagesByPath.get(path)
    return page === undefined || (anchor !== undefined && !anchorsOf(page).has(anchor))
  }
  const links = packed.flatMap((page) => linksOf(page).map((link) => ({ page: page.name, ...link })))
  expect(links.filter(isDead)).toEqual([])
  // None became text, but for those to what only the repository has.
  const kept = [...(await pagesOf(root)).values()].map((name) => resolve(root, name))
  const between = [pageOf('sdk/README.md'), pageOf('CHANGELOG.md'), ...docs, ...api].flatMap(linksOf)
  expect(links).toHaveLength(between.filter(({ path }) => kept.includes(path)).length)
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
