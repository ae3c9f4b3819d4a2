import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** The real Deno, from its npm package. */
export const deno = join(dirname(createRequire(import.meta.url).resolve('deno/package.json')), 'deno')

const checkout = fileURLToPath(new URL('../../../..', import.meta.url))

const { PATH, HOME } = process.env
const environment = { PATH, HOME, NO_COLOR: '1' }

/** It finds the packages, with their sources, where npm has put them. */
const flags = ['--conditions=pgflow-source', '--node-modules-dir=manual', '--no-lock', '--no-prompt']

export interface DenoServer extends AsyncDisposable {
  readonly url: string
  /** Resolves when the process says this line. */
  said(line: string): Promise<void>
  kill(signal: NodeJS.Signals): Promise<void>
}

/** Runs a script that calls `Deno.serve`, until it listens. */
export async function startDeno(
  script: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<DenoServer> {
  const child = spawn(deno, ['run', ...flags, '--allow-net', '--allow-env', script, ...args], {
    cwd: checkout,
    env: { ...environment, DENO_SERVE_ADDRESS: 'tcp:127.0.0.1:0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = once(child, 'close')
  const url = await listening(child)
  const lines = createInterface(child.stdout)
  const seen: string[] = []
  lines.on('line', (line) => seen.push(line))
  async function kill(signal: NodeJS.Signals): Promise<void> {
    child.kill(signal)
    await ended
  }
  return {
    url,
    kill,
    async said(line) {
      while (!seen.includes(line)) await once(lines, 'line')
    },
    [Symbol.asyncDispose]: () => kill('SIGKILL'),
  }
}

/** @returns the exit code and what was said */
export async function checkWithDeno(script: string): Promise<{ code: number; output: string }> {
  const child = spawn(deno, ['check', ...flags.slice(0, 3), script], {
    cwd: checkout,
    env: environment,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let output = ''
  child.stderr.on('data', (chunk) => {
    output += chunk
  })
  const [code] = await once(child, 'close')
  return { code, output }
}

function listening(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = ''
    child.stderr!.on('data', (chunk) => {
      said += chunk
      const [, url] = /Listening on (http:\S+)/.exec(said) ?? []
      if (url) resolve(url)
    })
    child.on('close', () => reject(new Error(`Deno ended: ${said}`)))
  })
}
