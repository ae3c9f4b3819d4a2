export type { Duration } from '../shared/duration.ts'
export { PgflowError } from '../shared/errors.ts'
export type { BatchContext, BatchHandler, BatchOptions, BatchTask } from './batch-types.ts'
export type { SubFlow, SubFlowOptions, WhenParentEnds } from './child-types.ts'
export type { FlowDefinition, FlowShape } from './compile.ts'
export { compile, definitionOf, shapeOf, sqlOf } from './compile.ts'
export type { Context, Log } from './context.ts'
export type {
  AnyFlow,
  Broadcast,
  Conditions,
  CronExpression,
  FlowOptions,
  FlowSchedule,
  Limit,
  LoopOptions,
  MapOptions,
  MapSource,
  Priority,
  Rate,
  RetryOptions,
  ScheduleTiming,
  Singleton,
  SleepOptions,
  SqlOptions,
  StartRole,
  StepDefinition,
  StepFallback,
  StepHandler,
  StepOptions,
  StepTiming,
  StepType,
  TaskOptions,
  WaitOptions,
} from './definition.ts'
export type { ErrorDescription } from './error-description.ts'
export { describeError } from './error-description.ts'
export type { FlowDefinitionErrorCode, RetryAfterOptions } from './errors.ts'
export { FlowDefinitionError, NonRetryableError, NotJsonError, RetryAfterError } from './errors.ts'
export type {
  ChildFlowOf,
  InputOf,
  OutputOf,
  ResourcesOf,
  StepInputOf,
  StepOutputOf,
  StepProgressOf,
  StepsOf,
} from './extract.ts'
export { Flow } from './flow.ts'
export { toJson } from './json.ts'
export type { Json, JsonOf } from './json-types.ts'
export type { ItemFallback, ItemResult } from './limit-types.ts'
export type { ExceededFallback } from './loop-types.ts'
export { type PicturedRun, toMermaid } from './mermaid.ts'
export type { OnceMethods, TransactionMethods } from './once-types.ts'
export type { MapProgress } from './progress-types.ts'
export { relatedFlows } from './related.ts'
export type { ResponseHeaders, ResponseLike, RetryTime } from './retry-after.ts'
export { type TypeOf, type } from './type.ts'
export type { FlowTypes, StepTypes } from './types.ts'
export { undoFlowOf } from './undo.ts'
export type { Undo, UndoHandler, UndoItemPayload, UndoPayload } from './undo-types.ts'
export { versionedSlug } from './version.ts'
export type { WaitRole, WebhookProvider } from './wait-types.ts'
