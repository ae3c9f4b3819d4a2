import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import type { Account } from './account.ts'

/**
 * A shell that outlives its owner. It runs a command for each line on its standard input, which is the command's last
 * argument. At the end of the input, however the owner came to its end, it stops the command and removes the folder.
 * On descriptor 3 it reports `pid <n>` and `exit <code>`.
 *
 * Its jobs start with SIGINT and SIGQUIT ignored, until Postgres installs its handlers: hence the loop.
 */
const SCRIPT = `
folder=$1 signal=$2
shift 2
while read -r argument; do
  {
    sh -c 'echo $$ >"$0/pid"; echo "pid $$" >&3; exec "$@" 3>&-' "$folder" "$@" "$argument" </dev/null
    echo "exit $?" >&3
  } &
  job=$!
done
while [ -n "$job" ] && kill -0 "$job" 2>/dev/null; do
  kill "-$signal" "$(cat "$folder/pid")" 2>/dev/null
  sleep 0.02
done
rm -rf "$folder"
`

export interface GuardianOptions {
  /** Removed at the end. */
  folder: string
  /** What stops the command, without the prefix SIG. */
  signal: 'INT' | 'QUIT'
  command: string[]
  account: Account | undefined
}

/** Holds one process at a time for this one; emits `line` for each line of output, `pid` and `exit`. */
export class Guardian extends EventEmitter<{ line: [string]; pid: [number]; exit: [number] }> {
  readonly #child: ChildProcess

  constructor({ folder, signal, command, account }: GuardianOptions) {
    super()
    this.#child = spawn('/bin/sh', ['-c', SCRIPT, 'guardian', folder, signal, ...command], {
      ...account,
      cwd: folder,
      detached: true, // else Ctrl-C in the owner's terminal would end it too
      env: { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C' },
      stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    })
    this.#readLines(1, (line) => this.emit('line', line))
    this.#readLines(2, (line) => this.emit('line', line))
    this.#readLines(3, (line) => this.#report(line))
  }

  #readLines(descriptor: number, listener: (line: string) => void): void {
    createInterface({ input: this.#child.stdio[descriptor] as Readable }).on('line', listener)
  }

  #report(line: string): void {
    const [event, value] = line.split(' ')
    if (event === 'pid' || event === 'exit') this.emit(event, Number(value))
  }

  /** Starts the command with a last argument. */
  run(argument: string): void {
    const input = this.#child.stdin as Writable
    input.write(`${argument}\n`)
  }

  /** Stops the command, removes the folder; resolves when both are gone. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const closed = once(this.#child, 'close')
    this.#child.stdin?.end()
    await closed
  }
}
