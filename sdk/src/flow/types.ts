import type { SubFlow } from './child-types.ts'
import type { AnyFlow } from './definition.ts'
import type { JsonOf, Plain } from './json-types.ts'
import type { FlowTypeError } from './type-error.ts'

/** Everything that a flow's type knows, read by key. */
export interface FlowTypes {
  /** Without the version; `string` where the type argument for the input was given, which keeps it from being inferred. */
  slug: string
  version: number
  /** What a run is started with. */
  input: unknown
  /** What handlers get of it, as `run`. */
  run: unknown
  resources: object
  steps: { [slug: string]: StepTypes }
}

/** What a flow's type knows of one step. */
export interface StepTypes {
  /** The slugs of the steps for which it waits. */
  deps: string
  output: unknown
  skips: Skip
  /** What its handler gets, in a tuple; `false` where that is the payload of its deps. Waits, sleeps, sub-flows and SQL steps have no handler. */
  handlerInput: readonly [unknown] | false | 'wait' | 'sleep' | 'sql' | SubFlow<AnyFlow>
  /** What clients see of its progress. */
  progress: unknown
}

/** How a step may be skipped: alone, or with all that depends on it. */
export type Skip = 'skip' | 'skip-cascade'

/** A flow before its first step. */
export interface NewFlow<Slug extends string, Version extends number, Input, Run, Resources extends object> {
  slug: Slug
  version: Version
  input: Input
  run: Run
  resources: Resources
  steps: Record<never, never>
}

/** The types of a flow before its first step with another input. */
export type WithInput<F extends FlowTypes, Input> = NewFlow<
  F['slug'],
  F['version'],
  Input,
  JsonOf<Input>,
  F['resources']
>

/** The types of a flow before its first step with other resources. */
export type WithResources<F extends FlowTypes, Resources extends object> = NewFlow<
  F['slug'],
  F['version'],
  F['input'],
  F['run'],
  Resources
>

/** The version of a flow whose option `version` is of this type; `never` where it has none. */
export type VersionFrom<Slug extends string, Option extends number> = [Option] extends [never]
  ? string extends Slug
    ? number
    : 1
  : Option

/** The slug under which the database knows a version of a flow, as `versionedSlug` makes it. */
export type VersionedSlug<Slug extends string, Version extends number> = Version extends 1
  ? Slug
  : number extends Version
    ? string
    : `${Slug}_v${Version}`

/**
 * The types of flow `F` with one more step. `infer` makes the compiler evaluate `F` at each step, and an intersection
 * stays flat: layers of mapped types or of `F['steps']` would be too deep for it after fifty steps.
 */
export type WithStep<
  F extends FlowTypes,
  Slug extends string,
  Dep extends string,
  Output,
  Skips extends Skip,
  HandlerInput extends StepTypes['handlerInput'],
  Progress,
> = F extends {
  slug: infer FlowSlug extends string
  version: infer Version extends number
  input: infer Input
  run: infer Run
  resources: infer Resources extends object
  steps: infer Steps extends FlowTypes['steps']
}
  ? {
      slug: FlowSlug
      version: Version
      input: Input
      run: Run
      resources: Resources
      steps: Steps &
        StepEntry<
          Slug,
          Dep,
          Output,
          Skips | Extract<Steps[Dep]['skips'], 'skip-cascade'>,
          HandlerInput,
          Progress
        >
    }
  : never

/** One step, by its slug. It names no other steps: with each use of it, the compiler would go through them all again. */
type StepEntry<
  Slug extends string,
  Dep extends string,
  Output,
  Skips extends Skip,
  HandlerInput extends StepTypes['handlerInput'],
  Progress,
> = {
  [K in Slug]: { deps: Dep; output: Output; skips: Skips; handlerInput: HandlerInput; progress: Progress }
}

/** What the handler of a step with these deps gets: `run`, and each dep's output under its slug, if it was not skipped. */
export type Payload<F extends FlowTypes, Dep extends string, Run = F['run']> = Plain<
  { run: Run } & { [K in Exclude<Dep, AloneSkipped<F, Dep>>]: F['steps'][K]['output'] } & {
    [K in AloneSkipped<F, Dep>]?: F['steps'][K]['output']
  }
>

/** What the database has for a step with these deps: what conditions and maps look at. */
export type StoredPayload<F extends FlowTypes, Dep extends string> = {
  [K in 'run' | Dep]: K extends 'run' ? JsonOf<F['input']> : F['steps'][K]['output']
}

/** Those of the deps without which their dependents may run. */
export type AloneSkipped<F extends FlowTypes, Dep extends string> = Dep extends keyof F['steps']
  ? 'skip' extends F['steps'][Dep]['skips']
    ? Dep
    : never
  : never

/** How a step itself may be skipped, by its conditions and its options. */
export type SkipsOf<If, Unless, Unmet, Exhausted> =
  | ([If | Unless] extends [never] ? never : Extract<Unmet, Skip>)
  | Extract<Exhausted, Skip>

/** The steps for which a step waits. Editors offer the slugs of all that it can wait for. */
export type Deps<Slug, Dep extends string> = readonly KnownDep<Slug, Dep>[] | readonly Slug[]

/** `Dep` if the flow has such a step, a `FlowTypeError` if not. */
export type KnownDep<Slug, Dep extends string> = Dep extends Slug
  ? Dep
  : string extends Dep
    ? Dep
    : FlowTypeError<`There is no step '${Dep}' before this one: define it first, or correct its name`>
