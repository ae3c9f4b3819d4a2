import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Order, Report } from './dev-worker.ts'
import type { Environment } from './environment.ts'
import { FileWatch } from './watch.ts'

/** Milliseconds: an editor may write several files, or one in several steps. */
const calm = 100

/** Milliseconds for a worker to stop: its handlers have two seconds. */
const patience = 6_000

const script = fileURLToPath(
  new URL(import.meta.url.endsWith('.ts') ? './dev-worker.ts' : './dev-worker.js', import.meta.url),
)

export interface DevWorkersOptions extends Order {
  readonly cwd: string
  readonly environment: Environment
  onStarting(): void
  onStarted(flows: readonly string[]): void
  onFailed(failure: Extract<Report, { type: 'failed' }>): void
}

/**
 * A worker that is replaced when a module, or what it imports, has changed. The next one starts before the last one stops: as
 * long as the modules cannot be run, the last one goes on.
 */
export class DevWorkers {
  readonly #options: DevWorkersOptions
  readonly #watch: FileWatch
  #running: ChildProcess | undefined
  #starting: ChildProcess | undefined
  #timer: NodeJS.Timeout | undefined
  #isClosed = false
  /** What is done one after the other. */
  #work: Promise<unknown> = Promise.resolve()

  constructor(options: DevWorkersOptions) {
    this.#options = options
    this.#watch = new FileWatch(() => {
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.restart(), calm)
    })
    this.#watch.set(new Set(options.modules))
  }

  /** Starts a worker, unless there is one. */
  start(): void {
    if (this.#running === undefined && this.#starting === undefined) this.restart()
  }

  /** Starts another worker instead of the one that runs. */
  restart(): void {
    // One that has not started yet has older code.
    void stopped(this.#starting)
    this.#work = this.#work.then(() => this.#replace())
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#watch.close()
    await Promise.all([stopped(this.#starting), stopped(this.#running)])
  }

  async #replace(): Promise<void> {
    if (this.#isClosed) return
    const { connection, modules, cwd, environment, onStarting, onStarted, onFailed } = this.#options
    onStarting()
    const child = fork(script, { cwd, env: environment as NodeJS.ProcessEnv, stdio: 'inherit' })
    this.#starting = child
    const files = new Set(modules)
    child.on('message', (report: Report) => {
      if (report.type === 'imported' && !report.file.includes('/node_modules/')) files.add(report.file)
    })
    child.send({ connection, modules } satisfies Order)
    const result = await outcome(child)
    this.#starting = undefined
    if (result === undefined || this.#isClosed) return
    if (result.type === 'failed') {
      this.#watch.add(files)
      return onFailed(result)
    }
    const last = this.#running
    this.#running = child
    this.#watch.set(files)
    child.on('exit', (code, signal) => {
      if (this.#running !== child || this.#isClosed) return
      this.#running = undefined
      onFailed({ type: 'failed', message: `The worker ended (${signal ?? `exit code ${code}`})` })
    })
    await stopped(last)
    onStarted(result.flows)
  }
}

/** How the start of a worker ended; `undefined` if it was stopped before. */
function outcome(child: ChildProcess): Promise<Exclude<Report, { type: 'imported' }> | undefined> {
  return new Promise((resolve) => {
    child.on('message', (report: Report) => {
      if (report.type !== 'imported') resolve(report)
    })
    child.on('exit', (code, signal) => {
      const how = signal ?? `exit code ${code}`
      resolve(code === 0 ? undefined : { type: 'failed', message: `The worker ended as it started (${how})` })
    })
  })
}

async function stopped(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  const timer = setTimeout(() => child.kill('SIGKILL'), patience)
  if (child.connected) child.send('stop')
  await ended
  clearTimeout(timer)
}
