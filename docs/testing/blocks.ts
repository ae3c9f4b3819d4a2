import { dirname, join } from 'node:path'
import { complaintsAbout } from '../../sdk/src/testing/typescript.ts'

/** A block of TypeScript in a page. */
export interface Block {
  readonly page: string
  /** The number of its first line in the page. */
  readonly line: number
  readonly language: string
  /** The file that the block shows, such as `flows.ts`: its first line is a comment that begins with the name. */
  readonly file: string | undefined
  readonly code: string
}

/** The TypeScript of a page, block by block. */
export function blocksOf(page: string, text: string): Block[] {
  return [...text.matchAll(/^```(tsx?)\n(.*?)^```$/gms)].map(({ index, 1: language = '', 2: code = '' }) => {
    const [, file] = /^\/\/ ([\w./-]+\.tsx?)\b/.exec(code) ?? []
    return { page, line: linesBefore(text, index) + 2, language, file, code }
  })
}

/**
 * Compiles the blocks of pages as they are displayed. A block is a module, which may import packages and the files that its
 * page shows before it; where a file is shown again, the later blocks see its new text.
 *
 * @returns what the compiler says, with the lines of the page
 */
export async function problemsIn(blocks: readonly Block[]): Promise<string[]> {
  if (blocks.length === 0) return []
  const programs = new Map<string, Program>()
  const early: string[] = []
  let shown = new Map<string, Block>()
  let folder = 0
  blocks.forEach((block, index) => {
    const name = block.file ?? `block_${index}.${block.language}`
    const isNewPage = block.page !== blocks[index - 1]?.page
    if (isNewPage || shown.has(name)) {
      folder += 1
      shown = new Map([...shown].filter(([shownName]) => !isNewPage && shownName !== name))
      for (const [copied, other] of shown) programs.set(`${folder}/${copied}`, { block: other, isCopy: true })
    }
    programs.set(`${folder}/${name}`, { block, isCopy: false })
    const isShown = (path: string) => ['', '.ts', '.tsx'].some((ending) => shown.has(`${path}${ending}`))
    early.push(
      ...importsOf(name, block)
        .filter(({ path }) => !isShown(path))
        .map(({ problem }) => problem),
    )
    if (block.file !== undefined) shown.set(name, block)
  })
  const texts = [...programs].map(([name, { block }]) => [name, programOf(block)] as const)
  const complaints = await complaintsAbout(
    { ...Object.fromEntries(texts), 'platform.d.ts': platform },
    { moduleResolution: 'bundler', module: 'preserve', allowImportingTsExtensions: true },
  )
  const found = complaints
    .filter(({ file }) => programs.get(file)?.isCopy === false)
    .map(({ file, line, text }) => problem(programs.get(file)!.block, line, text))
  return [...new Set([...early, ...found])]
}

/** What a block imports of the page's files, and what to say if that was not shown. */
function importsOf(name: string, block: Block): { path: string; problem: string }[] {
  return block.code.split('\n').flatMap((text, index) => {
    const [, module] = /(?: from |import\()'(\.[^']+)'/.exec(text) ?? []
    if (module === undefined) return []
    const path = join(dirname(name), module)
    return [{ path, problem: problem(block, index + 1, `The page does not show ${path} before this block.`) }]
  })
}

interface Program {
  readonly block: Block
  /** Whether it is there only to be imported. */
  readonly isCopy: boolean
}

/** What Edge Functions, and pages of Vite, find in their environment without an import. */
const platform = `declare namespace Deno {
  const env: { get(name: string): string | undefined; toObject(): Record<string, string> }
  function serve(handler: ((request: Request) => Response | Promise<Response>)): unknown
}
interface ImportMeta {
  readonly env: Readonly<Record<string, any>>
}
`

/** With the types' comments as assertions, on their lines: `type Output = OutputOf<typeof F> // { a: number }`. */
export function programOf({ code }: Block): string {
  const asserted = code.replaceAll(
    /^type (\w+) = .*?(?= \/\/ (.*))/gm,
    (type, name, is) => `${type}; true satisfies Is<${name}, ${is}>`,
  )
  return `${asserted}type Is<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false\n`
}

function problem(block: Block, line: number, text: string): string {
  return `${block.page}:${block.line + line - 1}: ${text}`
}

function linesBefore(text: string, index: number): number {
  return text.slice(0, index).split('\n').length - 1
}
