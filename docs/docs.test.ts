import { describe, expect, it } from 'vitest'
import { toMermaid } from '../sdk/src/flow/index.ts'
import { blocksOf, problemsIn, programOf } from './testing/blocks.ts'
import { imported } from './testing/import.ts'
import { docs, pageOf, readmes } from './testing/pages.ts'

/*
 * Each TypeScript block of the pages compiles as it is displayed: it shows what it imports, from packages or from a file that
 * the same page shows before it. A block shows a file if its first line is a comment with its name: `// flows.ts`.
 *
 * A comment behind a type says what the type is, and is checked: `type Output = OutputOf<typeof F> // { a: number }`.
 */

/** Its code is that of examples/nextjs, which Next.js itself compiles. */
const isBuiltElsewhere = 'docs/nextjs.md'

const pages = [...readmes, ...docs].filter(
  ({ name, text }) => name !== isBuiltElsewhere && /^```tsx?$/m.test(text),
)

const page = (...lines: string[]) => blocksOf('page.md', `${lines.join('\n')}\n`)

describe('the pages', () => {
  it('have code that compiles', async () => {
    const blocks = pages.flatMap(({ name, text }) => blocksOf(name, text))
    expect(blocks.length).toBeGreaterThan(60)
    expect(await problemsIn(blocks)).toEqual([])
  })

  it.each(pages.map((page) => [page.name, page]))('%s hides nothing that its code needs', (_, { text }) => {
    expect(text).not.toMatch(/^<!-- ts/m)
  })

  it.each(['docs/flows.md', 'docs/concepts.md'])('%s shows the picture of its flow', async (path) => {
    const { name, text } = pageOf(path)
    const [first] = blocksOf(name, text)
    const { Crawl } = await imported(programOf(first!))
    expect(text).toContain(`\`\`\`mermaid\n${toMermaid(Crawl)}\`\`\``)
  })

  it('say of types what they are', async () => {
    const blocks = page(
      '```ts',
      "type A = Pick<Date, 'getDay'> // { getDay: () => number }",
      'type B = 1 // 2',
      '```',
    )
    expect(await problemsIn(blocks)).toEqual([
      "page.md:3: Type 'true' does not satisfy the expected type 'false'.",
    ])
  })

  it('are read block by block, each a module, with the lines of the page', async () => {
    const blocks = page('# Page', '```ts', 'const a = 1', 'a = 2', '```', 'text', '```ts', 'a()', '```')
    expect(blocks.map(({ line, code }) => [line, code])).toEqual([
      [3, 'const a = 1\na = 2\n'],
      [8, 'a()\n'],
    ])
    expect(await problemsIn(blocks)).toEqual([
      "page.md:4: Cannot assign to 'a' because it is a constant.",
      "page.md:8: Cannot find name 'a'.",
    ])
  })

  it('have blocks that import the files shown before them, as they were shown last', async () => {
    const use = ['```ts', "import { a } from './lib/a.ts'", 'const n: number = a', '```']
    const blocks = page(
      ...use,
      '```ts',
      '// lib/a.ts: a file',
      'export const a = 1',
      '```',
      ...use,
      '```ts',
      '// lib/a.ts',
      "export const a = '1'",
      '```',
      ...use,
    )
    expect(await problemsIn(blocks)).toEqual([
      'page.md:2: The page does not show lib/a.ts before this block.',
      "page.md:19: Type 'string' is not assignable to type 'number'.",
    ])
  })
})
