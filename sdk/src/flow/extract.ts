import type { SubFlow } from './child-types.ts'
import type { AnyFlow } from './definition.ts'
import type { JsonOf, Plain } from './json-types.ts'
import type { Payload } from './types.ts'

/** What a run of the flow is started with. */
export type InputOf<F extends AnyFlow> = F['~types']['input']

/** What the flow's handlers need from the worker. */
export type ResourcesOf<F extends AnyFlow> = F['~types']['resources']

/**
 * The output of each step by its slug; the keys are the slugs.
 *
 * @example
 * type Outputs = StepsOf<typeof Greet>
 * //   { text: string; mail: { id: number } }
 */
export type StepsOf<F extends AnyFlow> = Plain<{
  [Slug in keyof F['~types']['steps']]: F['~types']['steps'][Slug]['output']
}>

/** What one step gives. */
export type StepOutputOf<
  F extends AnyFlow,
  Slug extends keyof F['~types']['steps'],
> = F['~types']['steps'][Slug]['output']

/** The flow of which a step starts runs; `never` if it starts none. */
export type ChildFlowOf<F extends AnyFlow, Slug extends keyof F['~types']['steps']> = ChildIn<
  F['~types']['steps'][Slug]['handlerInput']
>

type ChildIn<HandlerInput> = HandlerInput extends SubFlow<infer Child> ? Child : never

/** What clients see of the progress of one step. */
export type StepProgressOf<
  F extends AnyFlow,
  Slug extends keyof F['~types']['steps'],
> = F['~types']['steps'][Slug]['progress']

/**
 * What the handler of one step gets: `run` and the output of each of its deps, an item of a map, or what its schema makes of that.
 * Of a sub-flow, what its flow is started with.
 */
export type StepInputOf<
  F extends AnyFlow,
  Slug extends keyof F['~types']['steps'],
> = F['~types']['steps'][Slug]['handlerInput'] extends readonly [infer HandlerInput]
  ? HandlerInput
  : F['~types']['steps'][Slug]['handlerInput'] extends SubFlow<infer Child>
    ? JsonOf<InputOf<Child>>
    : Payload<F['~types'], F['~types']['steps'][Slug]['deps']>

/**
 * What a completed run gives: the output of each step on which no other depends, by its slug; optional where the step
 * may be skipped.
 *
 * @example
 * type Output = OutputOf<typeof Greet>
 * //   { mail?: { id: number } }
 */
export type OutputOf<F extends AnyFlow> = Plain<
  { [Slug in Exclude<LeafOf<F>, SkippableOf<F>>]: F['~types']['steps'][Slug]['output'] } & {
    [Slug in Extract<LeafOf<F>, SkippableOf<F>>]?: F['~types']['steps'][Slug]['output']
  }
>

type LeafOf<F extends AnyFlow> = string extends keyof F['~types']['steps']
  ? string
  : Exclude<keyof F['~types']['steps'], F['~types']['steps'][keyof F['~types']['steps']]['deps']>

/** The steps that may be skipped. */
type SkippableOf<F extends AnyFlow> = {
  [Slug in keyof F['~types']['steps']]: [F['~types']['steps'][Slug]['skips']] extends [never] ? never : Slug
}[keyof F['~types']['steps']]
