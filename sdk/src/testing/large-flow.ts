/** A program with a flow of so many steps, of all forms; the last one gives `{ first: number }`. */
export function largeFlow(count: number): string {
  const steps = Array.from({ length: count - 1 }, (_, index) => stepAt(index + 1, index + 2 === count))
  return `import { Flow, type OutputOf, type StepsOf } from '@pgflow/sdk/flow'
interface Item { id: number; at: Date; tags: string[]; nested?: { deep: string | undefined } }
const Child = new Flow({ slug: 'child' }).input<{ first: number }>().step('first', ({ run }) => run.first)
export const LargeFlow = new Flow<{ items: Item[]; deep: boolean }>({ slug: 'large' })
  .step('step_0', ({ run }) => ({ first: run.items.length }))
${steps.join('\n')}
export const output: OutputOf<typeof LargeFlow> = JSON.parse('{}')
export const steps: StepsOf<typeof LargeFlow> = JSON.parse('{}')
export const first = output.step_${count - 1}.first
`
}

function stepAt(n: number, isLast: boolean): string {
  const before = `step_${n - 1}`
  if (!isLast && n % 8 === 5) {
    return `  .flow({ slug: 'step_${n}', flow: Child, input: 'step_0', dependsOn: ['${before}'] })`
  }
  if (isLast || n % 4 === 1) {
    return `  .step('step_${n}', ['step_0', '${before}'], async (payload) => ({ first: payload.step_0.first, at: new Date() }))`
  }
  if (n % 4 === 2) {
    return `  .step({ slug: 'step_${n}', dependsOn: ['${before}'] }, ({ run, ${before} }) => ({ ...${before}, items: run.items }))`
  }
  if (n % 4 === 3) {
    return `  .map({ slug: 'step_${n}', items: '${before}.items' }, async (item) => ({ ...item, size: item.tags.length }))`
  }
  return `  .step({ slug: 'step_${n}', dependsOn: ['${before}'], runIf: { run: { deep: true } }, whenUnmet: 'skip' }, ({ ${before} }) => ({ first: ${before}.length }))`
}
