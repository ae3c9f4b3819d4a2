export type { CronExpression, ScheduleTiming } from '../flow/index.ts'
export type { ScheduleListOptions, ScheduleOptions, ScheduleOwner } from './schedules.ts'
export { PgflowSchedules } from './schedules.ts'
export type { ScheduleRow } from './types.ts'
