import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))

/** A page that people read. */
export interface Page {
  /** From the root of the repository. */
  readonly name: string
  readonly path: string
  readonly text: string
}

export function pageOf(name: string): Page {
  const path = join(root, name)
  return { name, path, text: readFileSync(path, 'utf8') }
}

const all = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.md') && !name.includes('node_modules/'))
  .sort()
  .map((name) => pageOf(`docs/${name}`))

/** The pages of docs, with those in folders, but for those that are generated. */
export const docs: readonly Page[] = all.filter(({ name }) => !name.startsWith('docs/api/'))

/** The API reference, which is generated from the sources. */
export const api: readonly Page[] = all.filter((page) => !docs.includes(page))

/** The README files of the repository and of its packages. */
export const readmes: readonly Page[] = ['README.md', 'sdk/README.md', 'local/README.md'].map(pageOf)

/** What links may name of a page, as GitHub makes it of its headings. */
export function anchorsOf({ text }: Page): Set<string> {
  const prose = text.replaceAll(/^(`{3,}).*?^\1$/gms, '')
  const anchors = new Set([...prose.matchAll(/<a id="([^"]*)">/g)].map(([, id]) => id!))
  for (const [, heading] of prose.matchAll(/^#+ (.*)$/gm)) {
    const anchor = heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-')
    let count = 0
    while (anchors.has(count === 0 ? anchor : `${anchor}-${count}`)) count += 1
    anchors.add(count === 0 ? anchor : `${anchor}-${count}`)
  }
  return anchors
}
