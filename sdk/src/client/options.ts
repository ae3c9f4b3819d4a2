import { type Duration, durationForms, secondsOf } from '../shared/duration.ts'
import { InvalidInputError } from './errors.ts'

/** @throws InvalidInputError if the option is no duration */
export function secondsFrom(name: string, duration: Duration): number {
  const seconds = secondsOf(duration)
  if (seconds !== undefined) return seconds
  throw new InvalidInputError('PT400', `${name} is ${String(duration)}`, {
    hint: `Give it ${durationForms}.`,
  })
}

/** @throws InvalidInputError if the option is no duration of whole seconds */
export function wholeSecondsFrom(name: string, duration: Duration): number {
  const seconds = secondsFrom(name, duration)
  if (Number.isInteger(seconds)) return seconds
  throw new InvalidInputError('PT400', `${name} is ${duration}`, { hint: 'Give it whole seconds.' })
}
