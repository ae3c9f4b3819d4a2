import { createInterface } from 'node:readline/promises'

/** Asks a question at the terminal; anything but yes is no, and so are Ctrl-C and Ctrl-D. */
export function ask(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  return new Promise((resolve) => {
    terminal.on('close', () => resolve(false))
    terminal.question(`${question} [y/N] `).then((answer) => {
      resolve(/^y(es)?$/i.test(answer.trim()))
      terminal.close()
    })
  })
}
