import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tsc59 } from './typescript-5.9.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const tsc7 = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')

/** The compilers of the versions of TypeScript that are supported, as programs of Node. */
export const compilers = { '7': tsc7, '5.9': tsc59 } as const

/** What the compiler says of a program: where, and the line of its explanation that says most. */
export interface Complaint {
  readonly file: string
  readonly line: number
  readonly text: string
}

/** Which compiler, and its options where they are others than those of this repository. */
interface CompilerOptions {
  /** @default '7' */
  readonly version?: keyof typeof compilers
  readonly [option: string]: unknown
}

/**
 * Type-checks programs, given by their paths in a folder, as this repository's own; they import what it imports.
 *
 * @example
 * await complaintsAbout({ 'a.ts': 'const a: number = ""' })
 * // [{ file: 'a.ts', line: 1, text: "Type 'string' is not assignable to type 'number'." }]
 */
export async function complaintsAbout(
  programs: Readonly<Record<string, string>>,
  { version = '7', ...options }: CompilerOptions = {},
): Promise<Complaint[]> {
  const output = await inFolder(programs, (folder) => runCompiler(version, folder), options)
  if (/^error/m.test(output)) throw new Error(output)
  return [...output.matchAll(/^.*programs-[^/]+\/(.+)\((\d+),\d+\): error TS\d+: (.*(?:\n +.*)*)/gm)]
    .map(([, file = '', line, text = '']) => ({ file, line: Number(line), text: mostSaying(text) }))
    .filter(({ file }) => Object.hasOwn(programs, file))
}

/** The first line; of overloads, of which none fits, the last one that says why. */
function mostSaying(explanation: string): string {
  const [first = '', ...others] = explanation.split('\n')
  return (
    (first.startsWith('No overload') &&
      others.findLast((line) => /FlowTypeError|Overload/.test(line))?.trim()) ||
    first
  )
}

/** What an editor shows of the exports of a program: its declarations. */
export function declarationsOf(program: string): Promise<string> {
  return inFolder({ 'program.ts': program }, async (folder) => {
    const output = await runCompiler(
      '7',
      folder,
      '--noEmit',
      'false',
      '--declaration',
      '--emitDeclarationOnly',
    )
    if (output !== '') throw new Error(output)
    return readFile(join(folder, 'program.d.ts'), 'utf8')
  })
}

/** What the compiler's `--extendedDiagnostics` say of a program: seconds and counts by their names. */
export function diagnosticsOf(
  program: string,
  version: keyof typeof compilers = '7',
): Promise<Map<string, number>> {
  return inFolder({ 'program.ts': program }, async (folder) => {
    const output = await runCompiler(version, folder, '--extendedDiagnostics')
    const figures = output.matchAll(/^([A-Z][A-Za-z ]+):\s+([\d.]+)/gm)
    return new Map([...figures].map(([, name = '', figure]) => [name, Number(figure)]))
  })
}

/** Puts programs in a folder of their own, inside the repository, where its packages are found. */
async function inFolder<Result>(
  programs: Readonly<Record<string, string>>,
  act: (folder: string) => Promise<Result>,
  options: object = {},
): Promise<Result> {
  await mkdir(join(root, '.vitest'), { recursive: true })
  const folder = await mkdtemp(join(root, '.vitest', 'programs-'))
  try {
    const config = {
      extends: '../../tsconfig.json',
      compilerOptions: { noErrorTruncation: true, moduleDetection: 'force', ...options },
      include: ['./**/*'],
      exclude: [],
    }
    for (const [name, text] of Object.entries(programs)) {
      await mkdir(dirname(join(folder, name)), { recursive: true })
      await writeFile(join(folder, name), text)
    }
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config))
    return await act(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** Its output; that it found errors is no failure. */
function runCompiler(version: keyof typeof compilers, folder: string, ...options: string[]): Promise<string> {
  const args = [compilers[version], '-p', folder, '--pretty', 'false', ...options]
  return new Promise((resolve) => {
    execFile(process.execPath, args, { maxBuffer: 2 ** 24 }, (_, stdout) => resolve(stdout))
  })
}
