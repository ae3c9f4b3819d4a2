import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const docs = readdirSync(resolve(root, 'docs')).filter((name) => name.endsWith('.md'))
const pages = [
  'README.md',
  'ARCHITECTURE.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'local/README.md',
  'bench/README.md',
]
  .concat(docs.map((name) => `docs/${name}`))
  .map((name) => resolve(root, name))

interface Link {
  readonly page: string
  /** A file of this project. */
  readonly path: string
  readonly anchor: string | undefined
}

function linksOf(page: string): Link[] {
  const targets = [...readFileSync(page, 'utf8').matchAll(/\]\((?!https?:)([^)#]*)#?([^)]*)\)/g)]
  return targets.map(([, path, anchor]) => ({
    page,
    path: path === '' ? page : resolve(dirname(page), path!),
    anchor: anchor || undefined,
  }))
}

/** What GitHub makes of the headings of a page. */
function anchorsOf(page: string): string[] {
  const headings = [...readFileSync(page, 'utf8').matchAll(/^#+ (.*)$/gm)]
  return headings.map(([, text]) =>
    text!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

it.each(pages.map((page) => [relative(root, page), page]))('The links of %s lead somewhere', (_, page) => {
  const isDead = ({ path, anchor }: Link) =>
    !existsSync(path) || (anchor !== undefined && !anchorsOf(path).includes(anchor))
  expect(linksOf(page).filter(isDead)).toEqual([])
})

it('README leads to each page of docs', () => {
  const linked = linksOf(resolve(root, 'README.md')).map(({ path }) => path)
  expect(
    docs.filter((name) => !linked.includes(resolve(root, 'docs', name))).map((name) => basename(name)),
  ).toEqual([])
})

it('README has at most 150 lines, and code before line 25', () => {
  const lines = readFileSync(resolve(root, 'README.md'), 'utf8').trimEnd().split('\n')
  expect(lines.length).toBeLessThanOrEqual(150)
  expect(lines.indexOf('```ts')).toBeLessThan(24)
})
