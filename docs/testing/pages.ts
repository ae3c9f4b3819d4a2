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

/** The pages of docs, with those in folders; `docs/api` is generated from the sources. */
export const docs: readonly Page[] = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.md') && !/(^|\/)(api|node_modules)\//.test(name))
  .sort()
  .map((name) => pageOf(`docs/${name}`))

/** The README files of the repository and of its packages. */
export const readmes: readonly Page[] = ['README.md', 'sdk/README.md', 'local/README.md'].map(pageOf)
