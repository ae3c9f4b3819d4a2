export { NonRetryableError, RetryAfterError } from '../worker/errors.ts'
export type { FlowDefinition, FlowShape } from './compile.ts'
export { compile, definitionOf, shapeOf, sqlOf } from './compile.ts'
export type { Context, Log } from './context.ts'
export type {
  AnyFlow,
  Broadcast,
  Conditions,
  FlowOptions,
  MapSource,
  RetryOptions,
  StartRole,
  StepDefinition,
  StepFallback,
  StepHandler,
  StepOptions,
  StepTiming,
} from './definition.ts'
export type { FlowDefinitionErrorCode } from './errors.ts'
export { FlowDefinitionError, NotJsonError } from './errors.ts'
export type {
  InputOf,
  OutputOf,
  ResourcesOf,
  StepInputOf,
  StepOutputOf,
  StepProgressOf,
  StepsOf,
} from './extract.ts'
export { Flow } from './flow.ts'
export type { ErrorDescription } from './json.ts'
export { describeError, toJson } from './json.ts'
export type { Json, JsonOf } from './json-types.ts'
export { type PicturedRun, toMermaid } from './mermaid.ts'
export { type TypeOf, type } from './type.ts'
export type { FlowTypes, StepTypes } from './types.ts'
export { versionedSlug } from './version.ts'
