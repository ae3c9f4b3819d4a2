import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Json, JsonOf, OnlyJson, OutputFrom } from './json-types.ts'
import type { Checked, SourceStep } from './path-types.ts'
import type { TakesJson } from './schema-types.ts'
import type { TypeOf } from './type.ts'
import type { FlowTypes } from './types.ts'

/** Who may complete a wait, where the flow does not name users. */
export type WaitRole = 'service_role' | 'owner' | 'authenticated'

/** Where a webhook comes from: of a provider, its signature is verified; of `true`, the secret URL is all. */
export type WebhookProvider = 'stripe' | 'github' | 'slack' | 'standard'

/** The option `output` of a wait: a schema of what completes it, or its type. */
export type WaitOutputOption<Out> = Out extends StandardSchemaV1
  ? TakesJson<Out>
  : Out extends TypeOf<infer T>
    ? TypeOf<[T] extends [OnlyJson<T>] ? T : OnlyJson<T>>
    : Out

/** What completes a wait: it is stored as it was given. Any JSON, where the wait does not say. */
export type WaitOutput<Out> = [Out] extends [never]
  ? Json
  : Out extends StandardSchemaV1
    ? OutputFrom<StandardSchemaV1.InferInput<Out>>
    : Out extends TypeOf<infer T>
      ? JsonOf<T>
      : Json

/** `By` if it is a role, or the path of a user id or an array of them; a `FlowTypeError` if not. */
export type KnownBy<F extends FlowTypes, By extends string> = [By] extends [never]
  ? WaitRole
  : By extends WaitRole
    ? By
    : Checked<F, By, string | readonly string[], 'a user id or an array of them is needed'>

/** The step that a wait depends on because `by` names users in its output. */
export type AssigneesStep<By extends string> = By extends WaitRole ? never : SourceStep<By>

/** `Until` if it is the path of a time; a `FlowTypeError` if not. */
export type KnownUntil<F extends FlowTypes, Until extends string> = Checked<
  F,
  Until,
  string | number,
  'an ISO date or epoch seconds are needed'
>

/** What happens when nobody has completed a wait in time. */
export type TimedOutOption<TimedOut, Output> = TimedOut extends { readonly output: unknown }
  ? { readonly output: Output }
  : TimedOut
