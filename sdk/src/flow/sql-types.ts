import type { FlowTypeError } from './type-error.ts'

/** A function is named with its schema. */
export type FunctionName<Call extends string> = string extends Call
  ? Call
  : Call extends `${string}.${string}`
    ? Call
    : FlowTypeError<`The function '${Call}' has no schema: name it with one, such as 'public.${Call}'`>
