import type { RunEvent } from '@pgflow/sdk'
import { usePgflow } from '@pgflow/sdk/react'
import { useEffect, useState } from 'react'

/**
 * The log of a run, event by event as it happens. The client's iterator ends with the run, so it is asked again when the run
 * is retried, and when the browser is online again.
 */
export function useRunEvents(runId: string, isOpen: boolean, isOnline: boolean): readonly RunEvent[] {
  const client = usePgflow()
  const [events, setEvents] = useState<readonly RunEvent[]>([])

  // biome-ignore lint/correctness/useExhaustiveDependencies(isOpen): the log goes on when the run is retried
  // biome-ignore lint/correctness/useExhaustiveDependencies(isOnline): a request that failed is repeated
  useEffect(() => {
    const stop = new AbortController()
    const add = (event: RunEvent) =>
      setEvents((known) => (event.seq > (known.at(-1)?.seq ?? 0) ? [...known, event] : known))

    async function read() {
      const run = await client.getRun(runId, { signal: stop.signal })
      try {
        for await (const event of run.events({ signal: stop.signal })) add(event)
      } finally {
        await run.close()
      }
    }

    // What a request fails with is shown by `useRun`, which makes the same ones.
    read().catch(() => {})
    return () => stop.abort()
  }, [client, runId, isOpen, isOnline])

  return events
}
