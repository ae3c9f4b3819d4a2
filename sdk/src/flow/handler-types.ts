import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { HandlerOf } from './batch-types.ts'
import type { ReturnedJson } from './json-types.ts'
import type { ProgressArguments } from './progress-types.ts'
import type { HandlerInput } from './schema-types.ts'
import type { FlowTypes, Payload } from './types.ts'

/** The handler of a step with these deps. */
export type Handler<
  F extends FlowTypes,
  Dep extends string,
  In extends StandardSchemaV1,
  Returned,
  Out extends StandardSchemaV1,
  Progress,
  Size extends number,
> = HandlerOf<
  Size,
  HandlerInput<Payload<F, Dep>, In>,
  F['resources'],
  HandlerInput<Payload<F, Dep>, In>,
  ProgressArguments<Progress>,
  Returned,
  Out
>

/** It is a condition as a whole, so that the compiler knows the schema when it looks at what the handler returns. */
export type HandlerFunction<Input, Context, Returned, Out extends StandardSchemaV1> = [Out] extends [never]
  ? (payload: Input, context: Context) => Returned & ReturnedJson<Returned>
  : (
      payload: Input,
      context: Context,
    ) => StandardSchemaV1.InferInput<Out> | PromiseLike<StandardSchemaV1.InferInput<Out>>
