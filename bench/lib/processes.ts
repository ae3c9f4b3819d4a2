import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Contender } from '../contenders/contender.ts'

const module = fileURLToPath(new URL('worker-process.ts', import.meta.url))
const STOP_MS = 15_000

/** A process with a contender's worker. */
export interface WorkerProcess {
  pid: number
  /** Starts the worker; resolves when it works. */
  go(): Promise<unknown>
  stop(): Promise<void>
}

/** Starts a process and loads the contender's modules; its worker waits for `go`. */
export async function startProcess(contender: Contender, url: string): Promise<WorkerProcess> {
  const child = fork(module, [contender.name, url], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    // Some peers use what later versions of `pg` will not have.
    env: { ...process.env, NODE_NO_WARNINGS: '1' },
  })
  const failed = once(child, 'exit').then(() => {
    throw new Error(`The worker of ${contender.name} has ended.`)
  })
  failed.catch(() => undefined)
  await Promise.race([said(child, 'ready'), failed])
  return {
    pid: child.pid ?? 0,
    go() {
      child.send('go')
      return Promise.race([said(child, 'working'), failed])
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.send('stop')
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      await exited
      clearTimeout(timer)
    },
  }
}

function said(child: ChildProcess, word: string): Promise<void> {
  return new Promise((resolve) => {
    child.on('message', (message) => {
      if (message === word) resolve()
    })
  })
}
