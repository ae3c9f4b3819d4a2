import type { RunEvent } from '@pgflow/sdk'
import { seconds } from './elapsed.tsx'
import { countIn } from './progress.ts'
import './event-log.css'

interface EventLogProps {
  events: readonly RunEvent[]
  /** Whose run it is. */
  owner: string | null
  startedAt: string
  isOpen: boolean
}

/** All events of a run in their order. It stays at the newest one unless somebody scrolls back. */
export function EventLog({ events, owner, startedAt, isOpen }: EventLogProps) {
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
                <td>{[actorOf(event, owner), detailsOf(event)].filter(Boolean).join(': ')}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </section>
  )
}

/** The status that an event gives to its run or step, for its colour. */
function statusOf(event: RunEvent): string {
  const { type } = event
  if (
    (event.type === 'step:started' || event.type === 'run:started') &&
    event.waits_for &&
    event.waits_for !== 'sql'
  )
    return event.waits_for === 'slot' ? 'limited' : 'waiting'
  const change = type.slice(type.indexOf(':') + 1)
  return ['progress', 'retried', 'begun', 'admitted'].includes(change) ? 'started' : change
}

/** Who caused it, where that was a person. */
function actorOf({ actor }: RunEvent, owner: string | null): string | null {
  if (!actor?.id) return null
  return actor.id === owner ? 'by you' : `by visitor ${actor.id.slice(0, 8)}`
}

const waits = {
  signal: 'waits for a decision',
  time: 'sleeps',
  slot: 'waits for a slot',
  run: 'starts a run',
  sql: 'calls a function',
} as const

/** What an event says besides its type, in one line. */
function detailsOf(event: RunEvent): string | null {
  switch (event.type) {
    case 'run:retried':
      return event.step_slugs.join(', ')
    case 'step:started':
      if (event.waits_for) return waits[event.waits_for]
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
    case 'step:admitted':
      return 'has a slot'
    case 'run:started':
    case 'run:waiting':
      return event.waits_for ? `waits for ${event.waits_for === 'run' ? 'another run' : 'a time'}` : null
    case 'run:begun':
    case 'step:cancelled':
      return null
  }
}
