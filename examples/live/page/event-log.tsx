import type { RunEvent } from '@pgflow/sdk'
import { seconds } from './elapsed.tsx'
import { useOnline } from './online.tsx'
import { countIn } from './progress.ts'
import { useRunEvents } from './use-run-events.ts'
import './event-log.css'

interface EventLogProps {
  runId: string
  startedAt: string
  isOpen: boolean
}

/** All events of a run in their order. It stays at the newest one unless somebody scrolls back. */
export function EventLog({ runId, startedAt, isOpen }: EventLogProps) {
  const events = useRunEvents(runId, isOpen, useOnline())
  return (
    <section className="card log" aria-labelledby="events">
      <h3 id="events">
        Events{' '}
        {isOpen && (
          <span className="live" data-status="completed">
            live
          </span>
        )}
      </h3>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: the keyboard scrolls it */}
      <section className="event-log" aria-label="Event log" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">seq</th>
              <th scope="col">Time</th>
              <th scope="col">Type</th>
              <th scope="col">Step</th>
              <th scope="col">Details</th>
            </tr>
          </thead>
          <tbody>
            {events.map((event) => (
              <tr key={event.seq}>
                <td>{event.seq}</td>
                <td title={event.at}>{seconds(Date.parse(event.at) - Date.parse(startedAt))}</td>
                <td data-status={statusOf(event)}>{event.type}</td>
                <td>{event.step_slug}</td>
                <td>{detailsOf(event)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </section>
  )
}

/** The status that an event gives to its run or step, for its colour. */
function statusOf({ type }: RunEvent): string {
  const change = type.slice(type.indexOf(':') + 1)
  return change === 'progress' || change === 'retried' ? 'started' : change
}

/** What an event says besides its type, in one line. */
function detailsOf(event: RunEvent): string | null {
  switch (event.type) {
    case 'run:started':
      return event.actor?.id ? 'by you' : null
    case 'run:retried':
      return event.step_slugs.join(', ')
    case 'step:started':
      return event.initial_tasks === 1 ? null : `${event.initial_tasks} tasks`
    case 'step:skipped':
      return event.skip_reason
    case 'step:progress': {
      const count = countIn(event.progress)
      return count ? `${count.done} of ${count.total}` : JSON.stringify(event.progress)
    }
    case 'step:completed':
    case 'run:completed':
      return JSON.stringify(event.output)?.slice(0, 200) ?? null
    case 'run:failed':
    case 'run:cancelled':
    case 'step:retrying':
    case 'step:failed':
      return event.error
    case 'step:cancelled':
      return null
  }
}
