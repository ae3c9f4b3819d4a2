import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../../../', import.meta.url))
export const main = fileURLToPath(new URL('../main.ts', import.meta.url))

export interface Answer {
  readonly code: number | string | null | undefined
  readonly out: string
  readonly errors: string
}

/** Runs the CLI in a process of its own, in the checkout. */
export function pgflow(...args: string[]): Promise<Answer> {
  return pgflowIn(root, args)
}

/** The same in another folder, and with other variables in its environment. */
export function pgflowIn(
  cwd: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<Answer> {
  const node = ['--import=tsx', '--conditions=pgflow-source', main, ...args]
  return new Promise((resolve) => {
    execFile(process.execPath, node, { cwd, env }, (error, out, errors) =>
      resolve({ code: error ? error.code : 0, out, errors }),
    )
  })
}
