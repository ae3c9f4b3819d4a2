import type { AnyFlow, StepDefinition } from '../flow/definition.ts'
import { NonRetryableError } from '../flow/errors.ts'
import { parse } from '../flow/schema.ts'

/**
 * What a handler gets: what the flow's schema makes of the run's input, and the step's of the whole. Items of a map and states
 * of a loop come from what the run was started with, so that only the step's schema has a part in them.
 *
 * @throws NonRetryableError with paths and reasons
 */
export async function checkedInput(flow: AnyFlow, step: StepDefinition, claimed: unknown): Promise<unknown> {
  const input =
    step.type === 'map' || step.type === 'loop' || flow.inputSchema === undefined
      ? claimed
      : await withRunInput(flow, claimed as { readonly run: unknown }) // as the database gives it
  return parse(step.inputSchema, input, refusal('its input is not what its schema says'))
}

/**
 * What is stored of a handler's output.
 *
 * @throws NonRetryableError with paths and reasons
 */
export async function checkedOutput(step: StepDefinition, output: unknown): Promise<unknown> {
  return parse(step.outputSchema, output, refusal('its output is not what its schema says'))
}

async function withRunInput(flow: AnyFlow, payload: { readonly run: unknown }): Promise<object> {
  const run = await parse(
    flow.inputSchema,
    payload.run,
    refusal('the run’s input is not what the flow takes'),
  )
  return { ...payload, run }
}

/** Another attempt would fail in the same way. */
function refusal(what: string) {
  return (reasons: string) => new NonRetryableError(`${what}: ${reasons}`)
}
