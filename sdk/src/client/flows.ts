import type { AnyFlow } from '../flow/index.ts'
import type { FlowTypeError } from '../flow/type-error.ts'
import type { Run } from './run.ts'
import type { RunRow } from './types.ts'

/** Any flow under any slug: the map of a client that was made without one. */
export type AnyFlows = { readonly [slug: string]: AnyFlow }

/**
 * The flows of a list or a module by the slugs with which clients start them. Of several versions it has the newest.
 *
 * @example
 * const client = new PgflowClient<FlowsOf<[typeof Crawl, typeof Review]>>(supabase)
 * const client = new PgflowClient<FlowsOf<typeof import('./flows.ts')>>(supabase)
 */
export type FlowsOf<Flows> = FlowsByAlias<
  Extract<Flows extends readonly unknown[] ? Flows[number] : Flows[keyof Flows], AnyFlow>
>

type FlowsByAlias<F extends AnyFlow> = string extends F['alias']
  ? FlowTypeError<'The slug of one of these flows is not in its type: define it as new Flow({ slug }).input<…>()'>
  : { readonly [Alias in F['alias']]: Newest<Extract<F, { alias: Alias }>> }

/** Of several versions of a flow the one with the highest number, found by counting. */
type Newest<F extends AnyFlow, Passed extends unknown[] = []> = number extends F['~types']['version']
  ? F
  : [OtherVersions<F, Passed['length']>] extends [never]
    ? F
    : Newest<OtherVersions<F, Passed['length']>, [...Passed, unknown]>

type OtherVersions<F extends AnyFlow, Version> = F extends unknown
  ? F['~types']['version'] extends Version
    ? never
    : F
  : never

/** Names one of the flows that a client knows, by its slug; or any flow, by its type. */
export type FlowName<Flows> = AnyFlow | (keyof Flows & string)

/** The flow that is named. */
export type FlowOf<Flows, Name> = Name extends AnyFlow
  ? Name
  : Name extends keyof Flows
    ? Flows[Name] extends infer F extends AnyFlow
      ? F
      : never
    : never

/** The slug of the flow that is named: its alias, or that of the version. */
export type SlugOf<Name> = [Name] extends [AnyFlow] ? Name['alias' | 'slug'] : Extract<Name, string>

/** A run of the flow that is named; of several, a run of one of them. */
export type RunOf<Flows, Name> = Name extends unknown ? Run<FlowOf<Flows, Name>> : never

/** What is listed of a run of the flow that is named. */
export type RunRowOf<Flows, Name> = Name extends unknown ? RunRow<FlowOf<Flows, Name>> : never
