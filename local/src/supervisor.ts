import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Account } from './account.ts'

/**
 * A shell that outlives its owner. It makes a folder, then runs a command for each line on its standard input, which is
 * the command's last argument. At the end of the input, however the owner came to its end, it stops the command and
 * removes the folder. Among the command's output it reports `supervisor: ready`, `supervisor: pid <n>` and
 * `supervisor: exit`: in one pipe, so that the report of the end comes after all output.
 *
 * A job starts with SIGINT and SIGQUIT ignored, until Postgres installs its handlers, and an interrupted initdb may
 * still write into the folder: hence the loops. The owner may be gone when it gets its reports: hence the trap.
 */
const SCRIPT = `
folder=$1 signal=$2
shift 2
exec 2>&1
trap '' PIPE
mkdir -m 700 "$folder" || exit
echo 'supervisor: ready'
while read -r argument; do
  {
    sh -c 'echo $$ >"$0/pid"; echo "supervisor: pid $$"; exec "$@"' "$folder" "$@" "$argument" </dev/null
    echo 'supervisor: exit'
  } &
  job=$!
done
while [ -n "$job" ] && kill -0 "$job" 2>/dev/null; do
  kill "-$signal" "$(cat "$folder/pid")" 2>/dev/null
  sleep 0.02
done
attempts=0
until rm -rf "$folder" 2>/dev/null || [ $((attempts += 1)) -ge 100 ]; do
  sleep 0.05
done
`

export interface SupervisorOptions {
  /** Made at the start, removed at the end. */
  folder: string
  /** What stops the command, without the prefix SIG. */
  signal: 'INT' | 'QUIT'
  command: string[]
  account: Account | undefined
}

interface SupervisorEvents {
  /** The folder is there. */
  ready: []
  /** A line of output. */
  line: [string]
  /** The command runs. */
  pid: [number]
  /** The command ended, or the shell itself. */
  exit: []
}

/** Runs one process at a time, and ends it when this process ends, however it ends. */
export class Supervisor extends EventEmitter<SupervisorEvents> {
  readonly #child: ChildProcess

  constructor({ folder, signal, command, account }: SupervisorOptions) {
    super()
    this.#child = spawn('/bin/sh', ['-c', SCRIPT, 'supervisor', folder, signal, ...command], {
      ...account,
      cwd: '/',
      detached: true, // else Ctrl-C in the owner's terminal would end it too
      env: { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C' },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#child.stdin!.on('error', () => {}) // it ended before: see `exit`
    this.#child.on('close', () => this.emit('exit'))
    createInterface({ input: this.#child.stdout! }).on('line', (line) => this.#report(line))
  }

  #report(line: string): void {
    const [, event, value] = /^supervisor: (\w+) ?(\d*)$/.exec(line) ?? []
    if (event === 'ready' || event === 'exit') this.emit(event)
    else if (event === 'pid') this.emit(event, Number(value))
    else this.emit('line', line)
  }

  /**
   * Resolves when the folder is there.
   *
   * @throws {Error} with what the shell said instead
   */
  ready(): Promise<void> {
    const said: string[] = []
    this.on('line', (line) => said.push(line))
    return new Promise((resolve, reject) => {
      this.once('ready', resolve)
      this.once('exit', () => reject(new Error(said.join('\n'))))
    })
  }

  /** Starts the command with a last argument. */
  run(argument: string): void {
    this.#child.stdin!.write(`${argument}\n`)
  }

  /** Stops the command, removes the folder; resolves when both are gone. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const closed = once(this.#child, 'close')
    this.#child.stdin!.end()
    await closed
  }
}
