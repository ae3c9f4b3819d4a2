import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')

/** What the compiler says of a program: where, and the first line of its explanation. */
export interface Complaint {
  readonly file: string
  readonly line: number
  readonly text: string
}

/**
 * Type-checks programs, given by their file names, as this repository's own; they import what it imports.
 *
 * @example
 * await complaintsAbout({ 'a.ts': 'const a: number = ""' })
 * // [{ file: 'a.ts', line: 1, text: "Type 'string' is not assignable to type 'number'." }]
 */
export async function complaintsAbout(programs: Readonly<Record<string, string>>): Promise<Complaint[]> {
  const output = await runCompiler(programs, { noEmit: true })
  if (/^error/m.test(output)) throw new Error(output)
  return [...output.matchAll(/^(?:.*[\\/])?([^\\/\n]+)\((\d+),\d+\): error TS\d+: (.*)/gm)].map(
    ([, file = '', line, text = '']) => ({ file, line: Number(line), text }),
  )
}

/** Runs the compiler over programs in a folder of their own; `{out}` in an option is that folder. */
async function runCompiler(
  programs: Readonly<Record<string, string>>,
  compilerOptions: Readonly<Record<string, unknown>>,
): Promise<string> {
  // Inside the repository, where its packages are found.
  await mkdir(join(root, '.vitest'), { recursive: true })
  const folder = await mkdtemp(join(root, '.vitest', 'programs-'))
  try {
    for (const [name, text] of Object.entries(programs)) await writeFile(join(folder, name), text)
    const config = {
      extends: '../../tsconfig.json',
      compilerOptions: { noErrorTruncation: true, moduleDetection: 'force', ...compilerOptions },
      include: ['./*'],
      exclude: [],
    }
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config))
    return await new Promise<string>((resolve) => {
      execFile(
        process.execPath,
        [tsc, '-p', folder, '--pretty', 'false'],
        { maxBuffer: 2 ** 24 },
        (_, stdout) => resolve(stdout),
      )
    })
  } finally {
    await rm(folder, { recursive: true })
  }
}
