import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const script = fileURLToPath(new URL('./worker-process.ts', import.meta.url))

export interface WorkerProcess {
  /**
   * Resolves with the line when the process has said this one, or one that matches, so many times; rejects when it ends
   * without.
   */
  said(line: string | RegExp, times?: number): Promise<string>
  /** The same for what it writes to stderr, as one text, if that is listened to. */
  noted(text: string | RegExp): Promise<void>
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

/**
 * @param args those of `node`
 * @param stderr `pipe` if it is listened to
 */
export function startProcess(
  args: readonly string[],
  cwd = process.cwd(),
  stderr: 'pipe' | 'inherit' = 'inherit',
): WorkerProcess {
  const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', stderr] })
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | NodeJS.Signals)
  return {
    said: listenTo(child, ended),
    noted: notesOf(child, ended),
    kill: (signal) => child.kill(signal),
    ended,
  }
}

function listenTo(child: ChildProcess, ended: Promise<unknown>): WorkerProcess['said'] {
  const lines: string[] = []
  const listeners = new Set<() => void>()
  createInterface(child.stdout!).on('line', (line) => {
    lines.push(line)
    for (const listener of listeners) listener()
  })
  return (line, times = 1) =>
    new Promise((resolve, reject) => {
      const look = () => {
        const found = lines.filter((said) => (line instanceof RegExp ? line.test(said) : line === said))
        if (found.length < times) return
        listeners.delete(look)
        resolve(found[times - 1]!)
      }
      listeners.add(look)
      look()
      void ended.then(() => reject(new Error(`The process ended without saying "${line}"`)))
    })
}

function notesOf(child: ChildProcess, ended: Promise<unknown>): WorkerProcess['noted'] {
  let notes = ''
  const listeners = new Set<() => void>()
  child.stderr?.on('data', (data) => {
    notes += data
    for (const listener of listeners) listener()
  })
  return (text) =>
    new Promise((resolve, reject) => {
      const look = () => {
        if (!(text instanceof RegExp ? text.test(notes) : notes.includes(text))) return
        listeners.delete(look)
        resolve()
      }
      listeners.add(look)
      look()
      void ended.then(() => reject(new Error(`The process ended without noting "${text}", but: ${notes}`)))
    })
}
