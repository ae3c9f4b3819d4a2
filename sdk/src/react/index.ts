'use client'

export { PgflowProvider, type PgflowProviderProps, usePgflow } from './provider.ts'
export type { RunFilter } from './run-list.ts'
export { type ChildrenState, type UseChildrenOptions, useChildren } from './use-children.ts'
export { type FlowState, type UseFlowOptions, useFlow } from './use-flow.ts'
export {
  type AnnotateTheParameterOfSelect,
  type RunState,
  type SelectedRun,
  type UseRunOptions,
  type UseSelectedRunOptions,
  useRun,
} from './use-run.ts'
export { type RunsState, type UseRunsOptions, useRuns } from './use-runs.ts'
export { type StartFlow, useStartFlow } from './use-start-flow.ts'
export { type UseWaitsOptions, useWaits, type WaitsState } from './use-waits.ts'
export type { WaitFilter } from './wait-list.ts'
