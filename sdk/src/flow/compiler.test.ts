import { describe, expect, it } from 'vitest'
import { complaintsAbout } from '../testing/typescript.ts'

// What the compiler says, word by word: which error it reports of several is seen nowhere else.

/** The compiler's errors for a program, as `line: text`. */
async function errorsOf(program: string): Promise<string[]> {
  const complaints = await complaintsAbout({
    'program.ts': `import { Flow, type OutputOf } from '@pgflow/sdk/flow'\n${program}`,
  })
  return complaints.map(({ line, text }) => `${line - 1}: ${text}`)
}

describe('the compiler', () => {
  it('explains a wrong step in English, on its line', async () => {
    const errors = await errorsOf(`const flow = new Flow<string>({ slug: 'flow' }).step('read', () => 1)
flow.step({ slug: 'a', dependsOn: ['raed'] }, () => 1)
flow.step('a', ['raed'], () => 1)
flow.step({ slug: 'read' }, () => 1)
flow.step('read', () => 1)
flow.step('read', [], () => 1, { timeout: 1 })
flow.step({ slug: 'a-b' }, () => 1)
flow.step('run', () => 1)
flow.step({ slug: 'a', maxAttempt: 1 }, () => 1)
flow.step('a', () => ({ list: [{ n: 1n }] }))
flow.step('a', async () => ({ error: new Error('x') }))
flow.step({ slug: 'a' }, ({ read }) => read)
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "2: Type 'string' is not assignable to type 'Mistake<"There is no step 'raed' before this one: define it first, or correct its name">'.",
        "3: Type 'string' is not assignable to type 'Mistake<"There is no step 'raed' before this one: define it first, or correct its name">'.",
        "4: Type 'string' is not assignable to type 'Mistake<"The flow already has a step 'read': give this one another slug">'.",
        "5: Argument of type 'string' is not assignable to parameter of type 'Mistake<"The flow already has a step 'read': give this one another slug"> | (Named<Mistake<"The flow already has a step 'read': give this one another slug">, never> & TypedOptions<never, never, "skip-cascade", "fail", never, never>)'.",
        "6: Argument of type 'string' is not assignable to parameter of type 'Mistake<"The flow already has a step 'read': give this one another slug">'.",
        "7: Type 'string' is not assignable to type 'Mistake<"The slug 'a-b' has a '-': use only letters, digits and underscores">'.",
        "8: Argument of type 'string' is not assignable to parameter of type 'Mistake<"'run' is the name of the run's input: give the step another slug"> | (Named<Mistake<"'run' is the name of the run's input: give the step another slug">, never> & TypedOptions<never, never, "skip-cascade", "fail", never, never>)'.",
        "9: Object literal may only specify known properties, but 'maxAttempt' does not exist in type 'Named<"a", never> & TypedOptions<never, never, "skip-cascade", "fail", never, never>'. Did you mean to write 'maxAttempts'?",
        "10: Type 'bigint' is not assignable to type 'bigint & Mistake<"A bigint is not JSON: return it as a string">'.",
        "11: Type 'Promise<{ error: Error; }>' is not assignable to type 'Promise<{ error: Error; }> & Mistake<{ error: Mistake<"JSON keeps nothing of an Error: throw it, or return its message">; }>'.",
        "12: Property 'read' does not exist on type '{ run: string; }'.",
      ]
    `)
  })

  it('takes a flow of sixty steps, and of two hundred', async () => {
    const program = (count: number) => `
interface Item { id: number; at: Date; tags: string[]; nested?: { deep: string | undefined } }
const flow = new Flow<{ items: Item[] }>({ slug: 'flow' })
  .step('step_0', ({ run }) => ({ first: run.items.length }))
${Array.from({ length: count - 1 }, (_, index) => step(index + 1)).join('\n')}
const output: OutputOf<typeof flow> = JSON.parse('{}')
const last: number = output.step_${count - 1}.first
const wrong: string = output.step_${count - 1}.first
export const used = [last, wrong]`
    const step = (n: number) =>
      n % 2
        ? `  .step('step_${n}', ['step_0', 'step_${n - 1}'], async (payload) => ({ first: payload.step_0.first, at: new Date() }))`
        : `  .step({ slug: 'step_${n}', dependsOn: ['step_${n - 1}'] }, ({ run, step_${n - 1} }) => ({ ...step_${n - 1}, items: run.items }))`
    for (const count of [60, 200]) {
      expect(await errorsOf(program(count))).toEqual([
        expect.stringMatching(/: Type 'number' is not assignable to type 'string'.$/),
      ])
    }
  })
})
