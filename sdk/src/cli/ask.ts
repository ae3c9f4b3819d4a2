import { createInterface } from 'node:readline/promises'

/**
 * Asks a question at the terminal; anything but yes is no, and so is Ctrl-D.
 *
 * @param signal withdraws the question
 */
export function ask(question: string, signal?: AbortSignal): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  return new Promise((resolve) => {
    terminal.on('close', () => resolve(false))
    // The terminal is ours while it asks: Ctrl-C is no signal then.
    terminal.on('SIGINT', () => {
      terminal.close()
      process.kill(process.pid, 'SIGINT')
    })
    signal?.addEventListener('abort', () => {
      process.stdout.write('\n')
      terminal.close()
    })
    terminal.question(`${question} [y/N] `).then((answer) => {
      resolve(/^y(es)?$/i.test(answer.trim()))
      terminal.close()
    })
  })
}
