import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'

/** The pages that @pgflow/sdk ships, by their paths in the package, and where they are in the repository. */
export async function pagesOf(root: string): Promise<Map<string, string>> {
  const names = await readdir(join(root, 'docs'), { recursive: true })
  const docs = names.filter((name) => name.endsWith('.md') && !name.includes('node_modules/'))
  return new Map([
    ['README.md', 'sdk/README.md'],
    ['CHANGELOG.md', 'CHANGELOG.md'],
    ...docs.sort().map((name) => [`docs/${name}`, `docs/${name}`] as const),
  ])
}

/**
 * The pages as the package holds them, with the pictures that they show. A link leads to where its target is in the package;
 * one to a target that is in the repository only becomes plain text. What the tests of the pages need is left out.
 */
export async function packedPages(root: string): Promise<Record<string, string | Buffer>> {
  const pages = await pagesOf(root)
  const packedAs = new Map([...pages].map(([packed, source]) => [resolve(root, source), packed]))
  const files: Record<string, string | Buffer> = {}
  for (const [packed, source] of pages) {
    const page = resolve(root, source)
    const text = await readFile(page, 'utf8')
    for (const [, picture] of text.matchAll(/!\[[^\]]*\]\((?!https?:)([^)]*)\)/g)) {
      const path = resolve(dirname(page), picture!)
      const name = relative(root, path)
      packedAs.set(path, name)
      files[name] = await readFile(path)
    }
    files[packed] = text
      .replaceAll(/^<!--[\s\S]*?-->\n+/gm, '')
      .replaceAll(
        /\[((?:[^[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)/g,
        (_, label, path, anchor = '') => {
          const target = packedAs.get(resolve(dirname(page), path))
          return target === undefined ? label : `[${label}](${relative(dirname(packed), target)}${anchor})`
        },
      )
  }
  return files
}
