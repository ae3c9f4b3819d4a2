import { readdirSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { toMermaid } from '../sdk/src/flow/index.ts'
import { type Complaint, complaintsAbout } from '../sdk/src/testing/typescript.ts'

/*
 * Each TypeScript block of the pages compiles. A block is a module of its own; what its reader takes for granted stands
 * in a comment before it, which holds for all blocks up to the next such comment:
 *
 * <!-- ts
 * import { Flow } from '@pgflow/sdk/flow'
 * -->
 *
 * A comment behind a type says what it is, and is held against it: `type Output = OutputOf<typeof F> // { a: number }`.
 */

const docs = fileURLToPath(new URL('.', import.meta.url))
const pages = readdirSync(docs)
  .filter((name) => name.endsWith('.md'))
  .map((name) => `${docs}${name}`)
  .concat(`${docs}../README.md`)
  .filter((path) => /^```tsx?$/m.test(readFileSync(path, 'utf8')))

interface Block {
  readonly page: string
  /** The number of its first line in the page. */
  readonly line: number
  readonly language: string
  readonly setup: string
  readonly code: string
}

function blocksOf(page: string, text: string): Block[] {
  const blocks: Block[] = []
  let setup = ''
  for (const match of text.matchAll(/^<!-- ts\n(.*?)^-->$|^```(tsx?)\n(.*?)^```$/gms)) {
    const [, comment, language = '', code] = match
    if (code === undefined) setup = comment ?? ''
    else blocks.push({ page, line: linesBefore(text, match.index) + 2, language, setup, code })
  }
  return blocks
}

function linesBefore(text: string, index: number): number {
  return text.slice(0, index).split('\n').length - 1
}

async function problemsIn(blocks: readonly Block[]): Promise<string[]> {
  if (blocks.length === 0) return []
  const programs = Object.fromEntries(
    blocks.map((block, n) => [`block_${n}.${block.language}`, programOf(block)]),
  )
  return (await complaintsAbout(programs)).map((complaint) => problem(complaint, blocks))
}

async function imported(program: string) {
  await mkdir(`${docs}../.vitest`, { recursive: true })
  const folder = await mkdtemp(`${docs}../.vitest/page-`)
  try {
    await writeFile(`${folder}/page.ts`, program)
    return await import(`${folder}/page.ts`)
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** With the types' comments as assertions, on their lines. */
function programOf({ setup, code }: Block): string {
  const asserted = code.replaceAll(
    /^type (\w+) = .*?(?= \/\/ (.*))/gm,
    (type, name, is) => `${type}; true satisfies Is<${name}, ${is}>`,
  )
  return `${setup}${asserted}type Is<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false\n`
}

function problem({ file, line, text }: Complaint, blocks: readonly Block[]): string {
  const { page, line: first, setup } = blocks[Number(/\d+/.exec(file)?.[0])]!
  const inBlock = line - linesBefore(setup, setup.length)
  return `${page}:${inBlock > 0 ? first + inBlock - 1 : `${first} (setup)`}: ${text}`
}

describe('the pages', () => {
  it.each(pages.map((path) => [basename(path), path]))('%s has code that compiles', async (name, path) => {
    const blocks = blocksOf(name, readFileSync(path, 'utf8'))
    expect(await problemsIn(blocks)).toEqual([])
  })

  it('show the picture of their flow', async () => {
    const text = readFileSync(`${docs}flows.md`, 'utf8')
    const [first] = blocksOf('flows.md', text)
    const { Crawl } = await imported(programOf(first!))
    expect(text).toContain(`\`\`\`mermaid\n${toMermaid(Crawl)}\`\`\``)
  })

  it('say of types what they are', async () => {
    const page = [
      '```ts',
      "type A = Pick<Date, 'getDay'> // { getDay: () => number }",
      'type B = 1 // 2',
      '```',
      '',
    ]
    expect(await problemsIn(blocksOf('page.md', page.join('\n')))).toEqual([
      "page.md:3: Type 'true' does not satisfy the expected type 'false'.",
    ])
  })

  it('are read block by block, with the lines of the page', async () => {
    const page = [
      '# Page',
      '<!-- ts',
      'const a = 1',
      '-->',
      '```ts',
      'a()',
      'a = 2',
      '```',
      'text',
      '```ts',
      'b',
      '```',
      '',
    ]
    const blocks = blocksOf('page.md', page.join('\n'))
    expect(blocks.map(({ line, code }) => [line, code])).toEqual([
      [6, 'a()\na = 2\n'],
      [11, 'b\n'],
    ])
    expect(await problemsIn(blocks)).toEqual([
      'page.md:6: This expression is not callable.',
      "page.md:7: Cannot assign to 'a' because it is a constant.",
      "page.md:11: Cannot find name 'b'.",
    ])
  })
})
