import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../../../', import.meta.url))
const main = fileURLToPath(new URL('../main.ts', import.meta.url))

export interface Answer {
  readonly code: number | string | null | undefined
  readonly out: string
  readonly errors: string
}

/** Runs the CLI in a process of its own, in the checkout. */
export function pgflow(...args: string[]): Promise<Answer> {
  const node = ['--import=tsx', '--conditions=pgflow-source', main, ...args]
  return new Promise((resolve) => {
    execFile(process.execPath, node, { cwd: root }, (error, out, errors) =>
      resolve({ code: error ? error.code : 0, out, errors }),
    )
  })
}
