import type { AnyFlow } from '../flow/index.ts'
import type { Run } from './run.ts'
import type { RunRow } from './types.ts'

/** Any flow, by any slug: what a client knows that was not told of its flows. */
export type AnyFlows = { readonly [slug: string]: AnyFlow }

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

/** The slug of the flow that is named. */
export type SlugOf<Name> = [Name] extends [AnyFlow] ? string : Extract<Name, string>

/** A run of the flow that is named; of several, a run of one of them. */
export type RunOf<Flows, Name> = Name extends unknown ? Run<FlowOf<Flows, Name>> : never

/** What is listed of a run of the flow that is named. */
export type RunRowOf<Flows, Name> = Name extends unknown ? RunRow<FlowOf<Flows, Name>> : never
