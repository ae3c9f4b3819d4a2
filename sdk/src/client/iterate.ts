/** The log as an iterator: loaded when it is used. */
import type { Live } from './live.ts'
import type { checkOptions } from './options.ts'
import type { RunEvent } from './types.ts'
import type { Outcome, WaitOptions } from './wait.ts'

export interface EventsOptions {
  /** The `seq` of the last event that is not needed. @default 0, the whole log */
  readonly after?: number
  /** Throws the signal's reason. */
  readonly signal?: AbortSignal
}

/** All events after one, those that were before and those that come, until the run is over. */
export async function* eventsOf(
  live: Live,
  options: EventsOptions,
  waitFor: (outcomeOf: () => Outcome | undefined, options: WaitOptions) => Promise<unknown>,
  check: typeof checkOptions, // given, since it is loaded already
): AsyncGenerator<RunEvent, void, undefined> {
  await check(options, 'after signal', {
    after: (value) => Number.isInteger(value) && (value as number) >= 0,
  })
  const { after = 0, ...wait } = options
  const release = live.hold()
  try {
    for (let seq = after + 1; ; seq++) {
      const outcome = () => {
        const output = live.store.eventAt(seq)
        return output === undefined ? undefined : { output }
      }
      // That is what `eventAt` gives.
      const event = (await waitFor(outcome, wait)) as RunEvent | null
      if (event === null) return
      yield event
    }
  } finally {
    release()
  }
}
