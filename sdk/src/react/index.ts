export { PgflowProvider, type PgflowProviderProps, usePgflow } from './provider.ts'
export { type RunState, type UseRunOptions, useRun } from './use-run.ts'
export { type StartFlow, useStartFlow } from './use-start-flow.ts'
