import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const script = fileURLToPath(new URL('./worker-process.ts', import.meta.url))

export interface WorkerProcess {
  /** Resolves when the process has said this line, or one that matches; rejects when it ends without. */
  said(line: string | RegExp): Promise<void>
  kill(signal: NodeJS.Signals): void
  /** The exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>
}

export interface ProcessOptions {
  /** Seconds. @default 30 */
  readonly lease?: number
  /** Seconds. @default 25 */
  readonly gracePeriod?: number
  /** What closing the resources of the process does. @default 'end' */
  readonly close?: 'end' | 'hang' | 'fail'
}

export function startWorkerProcess(
  url: string,
  { lease = 30, gracePeriod = 25, close = 'end' }: ProcessOptions = {},
): WorkerProcess {
  return startProcess([...fromSources, script, url, `${lease}`, `${gracePeriod}`, close])
}

/** What Node needs to run a TypeScript source of this repository. */
export const fromSources = ['--conditions=pgflow-source', '--import', 'tsx']

/** @param args those of `node` */
export function startProcess(args: readonly string[], cwd = process.cwd()): WorkerProcess {
  const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | NodeJS.Signals)
  return { said: listenTo(child, ended), kill: (signal) => child.kill(signal), ended }
}

function listenTo(child: ChildProcess, ended: Promise<unknown>): WorkerProcess['said'] {
  const lines: string[] = []
  const listeners = new Set<() => void>()
  createInterface(child.stdout!).on('line', (line) => {
    lines.push(line)
    for (const listener of listeners) listener()
  })
  return (line) =>
    new Promise((resolve, reject) => {
      const look = () => {
        if (!lines.some((said) => (line instanceof RegExp ? line.test(said) : line === said))) return
        listeners.delete(look)
        resolve()
      }
      listeners.add(look)
      look()
      void ended.then(() => reject(new Error(`The process ended without saying "${line}"`)))
    })
}
