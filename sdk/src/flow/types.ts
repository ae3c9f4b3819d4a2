import type { JsonOf, Mistake, OutputFrom, Plain } from './json-types.ts'

/** Everything that a flow's type knows, read by key. */
export interface FlowTypes {
  input: unknown
  resources: object
  steps: { [slug: string]: StepTypes }
}

/** What a flow's type knows of one step. */
export interface StepTypes {
  deps: string
  output: unknown
}

/** A flow before its first step. */
export interface NewFlow<Input, Resources extends object> {
  input: Input
  resources: Resources
  steps: Record<never, never>
}

/**
 * The types of flow `F` with one more step. `infer` makes the compiler evaluate `F` at each step, and an intersection
 * stays flat: layers of mapped types or of `F['steps']` would be too deep for it after fifty steps.
 */
export type WithStep<F extends FlowTypes, Slug extends string, Dep extends string, Returned> = F extends {
  input: infer Input
  resources: infer Resources extends object
  steps: infer Steps extends FlowTypes['steps']
}
  ? {
      input: Input
      resources: Resources
      steps: Steps & { [K in Slug]: { deps: Dep; output: OutputFrom<Returned> } }
    }
  : never

/** What the handler of a step with these deps gets: `run`, and each dep's output under its slug. */
export type Payload<F extends FlowTypes, Dep extends string> = Plain<{
  [K in 'run' | Dep]: K extends 'run' ? JsonOf<F['input']> : F['steps'][K]['output']
}>

/** `Dep` if the flow has such a step, a mistake in English if not. */
export type KnownDep<F extends FlowTypes, Dep extends string> = Dep extends keyof F['steps']
  ? Dep
  : string extends Dep
    ? Dep
    : Mistake<`There is no step '${Dep}' before this one: define it first, or correct its name`>

/** `Slug` if a step of the flow may have this name, a mistake in English if not. */
export type NewSlug<F extends FlowTypes, Slug extends string> = string extends Slug
  ? Slug
  : string extends keyof F['steps']
    ? ValidSlug<Slug>
    : Slug extends keyof F['steps']
      ? Mistake<`The flow already has a step '${Slug}': give this one another slug`>
      : ValidSlug<Slug>

type ValidSlug<Slug extends string> = Slug extends 'run'
  ? Mistake<"'run' is the name of the run's input: give the step another slug">
  : Slug extends ''
    ? Mistake<'A slug cannot be empty'>
    : Slug extends `${Digit}${string}`
      ? Mistake<`The slug '${Slug}' starts with a digit: start it with a letter or an underscore`>
      : SlugProblem<Slug> extends infer Problem extends string
        ? Mistake<Problem>
        : Slug

type Digit = '0' | '1' | '2' | '3' | '4' | '5' | '6' | '7' | '8' | '9'

type SlugCharacter = Digit | Characters<'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_'>

type Characters<Text extends string, Found = never> = Text extends `${infer First}${infer Rest}`
  ? Characters<Rest, Found | First>
  : Found

type SlugProblem<
  Slug extends string,
  Rest extends string = Slug,
  Length extends unknown[] = [],
> = Rest extends `${infer First}${infer Others}`
  ? First extends SlugCharacter
    ? Length['length'] extends 128
      ? 'A slug has at most 128 characters'
      : SlugProblem<Slug, Others, [...Length, First]>
    : `The slug '${Slug}' has a '${First}': use only letters, digits and underscores`
  : null
