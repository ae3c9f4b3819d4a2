import { setTimeout } from 'node:timers/promises'
import type { Context } from '../../flow/context.ts'
import { Flow } from '../../flow/index.ts'
import { NonRetryableError } from '../index.ts'

/** More than leases can be lost; what a handler throws by itself ends earlier. */
const maxAttempts = 50
const baseDelay = 0

type Input = { readonly n: number }
type Run = { readonly flow_slug: string; readonly input: Input }
type End = { readonly status: string; readonly output: unknown }

/** Says which attempts run: `<run> <step> <task> <attempt>`. */
export type Say = (line: string) => void

/** A map, a chain with a loop and retries, and what fails: for good, and by its attempts. */
export function chaosFlows(say: Say) {
  async function work({ runId, stepSlug, taskIndex, attempt }: Context): Promise<void> {
    say(`${runId} ${stepSlug} ${taskIndex} ${attempt}`)
    await setTimeout(Math.random() * 30)
  }

  return [
    new Flow<Input>({ slug: 'mosaic', maxAttempts, baseDelay })
      .step('tiles', async ({ run }, context) => {
        await work(context)
        return tilesOf(run.n)
      })
      .map({ slug: 'squares', dependsOn: ['tiles'] }, async (tile, context) => {
        await work(context)
        if (tile % 4 === 0) failOnce(context)
        return tile ** 2
      })
      .step('sum', ['squares'], async ({ squares }, context) => {
        await work(context)
        return sum(squares)
      }),
    new Flow<Input>({ slug: 'order', maxAttempts, baseDelay })
      .step('reserve', async ({ run }, context) => {
        await work(context)
        if (run.n % 3 === 0) failOnce(context)
        return { left: 3, paid: 0 }
      })
      .loop({ slug: 'pay', start: 'reserve', until: { left: 0 } }, async ({ left, paid }, context) => {
        await work(context)
        if (left === 2) failOnce(context)
        const { run } = await context.payload()
        return { left: left - 1, paid: paid + run.n }
      })
      .step('ship', ['pay'], async ({ run, pay }, context) => {
        await work(context)
        return `${run.n}: ${pay.paid}`
      }),
    new Flow<Input>({ slug: 'refused', maxAttempts, baseDelay })
      .step('check', async (_, context) => {
        await work(context)
        throw new NonRetryableError('never')
      })
      .step('after', ['check'], (_, context) => work(context)),
    new Flow<Input>({ slug: 'hopeless', maxAttempts: 2, baseDelay }).step('try', async (_, context) => {
      await work(context)
      throw new Error('again')
    }),
  ]
}

/** The nth of the mixed runs, and how it ends. */
export function chaosRun(n: number): Run & End {
  const input = { n }
  if (n % 10 === 4) return { flow_slug: 'refused', input, status: 'failed', output: null }
  if (n % 10 === 9) return { flow_slug: 'hopeless', input, status: 'failed', output: null }
  if (n % 2 === 0) {
    const output = { sum: sum(tilesOf(n).map((tile) => tile ** 2)) }
    return { flow_slug: 'mosaic', input, status: 'completed', output }
  }
  return { flow_slug: 'order', input, status: 'completed', output: { ship: `${n}: ${n * 3}` } }
}

/** An attempt that came to nothing with its worker is none of these. */
function failOnce({ attempt }: Context): void {
  if (attempt === 1) throw new Error('the first attempt fails')
}

const tilesOf = (n: number) => Array.from({ length: n % 6 }, (_, index) => n + index)
const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0)
