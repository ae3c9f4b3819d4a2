import { cut, time } from './runs-text.ts'
import type { ListedSchedule } from './schedules-queries.ts'

/** What and when, its next times, and what has become of the last one. */
export function linesOfSchedule(schedule: ListedSchedule): string[] {
  const { schedule_slug, alias, cron, time_zone, owner_id, paused_at, next_times } = schedule
  const owner = owner_id === null ? [] : [`owner ${owner_id}`]
  return [
    cut([schedule_slug, alias, `${cron} ${time_zone}`, ...owner].join('  ')),
    `  ${paused_at === null ? 'next' : `paused since ${time(paused_at)}, else next`} ${next_times.map(time).join(', ')}`,
    ...lastOf(schedule),
  ]
}

function lastOf({ last_at, last_run_id, last_run, last_problem }: ListedSchedule): string[] {
  const run =
    last_run_id === null
      ? []
      : [
          `  last run ${last_run_id}${last_run ? `, started ${time(last_run.started_at)}, ${last_run.status}` : ', deleted since'}`,
        ]
  const problem =
    last_at === null || last_problem === null ? [] : [cut(`  no run at ${time(last_at)}: ${last_problem}`)]
  return [...run, ...problem]
}
