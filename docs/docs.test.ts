import { readdirSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { type Complaint, complaintsAbout } from '../sdk/src/testing/typescript.ts'

/*
 * Each TypeScript block of the pages compiles. A block is a module of its own; what its reader takes for granted stands
 * in a comment before it, which holds for all blocks up to the next such comment:
 *
 * <!-- ts
 * import { Flow } from '@pgflow/sdk/flow'
 * -->
 */

const docs = fileURLToPath(new URL('.', import.meta.url))
const pages = readdirSync(docs)
  .filter((name) => name.endsWith('.md'))
  .map((name) => `${docs}${name}`)
  .concat(`${docs}../README.md`)

interface Block {
  readonly page: string
  /** The number of its first line in the page. */
  readonly line: number
  readonly setup: string
  readonly code: string
}

function blocksOf(page: string, text: string): Block[] {
  const blocks: Block[] = []
  let setup = ''
  for (const match of text.matchAll(/^<!-- ts\n(.*?)^-->$|^```ts\n(.*?)^```$/gms)) {
    const [, comment, code] = match
    if (code === undefined) setup = comment ?? ''
    else blocks.push({ page, line: linesBefore(text, match.index) + 2, setup, code })
  }
  return blocks
}

function linesBefore(text: string, index: number): number {
  return text.slice(0, index).split('\n').length - 1
}

async function problemsIn(blocks: readonly Block[]): Promise<string[]> {
  const programs = Object.fromEntries(blocks.map(({ setup, code }, n) => [`block_${n}.ts`, setup + code]))
  return (await complaintsAbout(programs)).map((complaint) => problem(complaint, blocks))
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
