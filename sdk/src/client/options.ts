import { type Duration, secondsOf } from '../shared/duration.ts'
import { InvalidInputError } from './errors.ts'

/**
 * Refuses options that do not exist or cannot be used. What knows them is loaded with the first call that has options.
 *
 * @throws InvalidInputError
 */
export async function checkOptions(options: object, known: string): Promise<void> {
  if (Object.keys(options).length === 0) return
  const { whyRefused } = await import('./refusal.ts')
  const refusal = whyRefused(options, known.split(' '), secondsOf)
  if (refusal) throw new InvalidInputError('PT400', refusal.message, refusal)
}

/** @throws InvalidInputError if the option is no duration */
export function secondsFrom(name: string, duration: Duration): number {
  const seconds = secondsOf(duration)
  if (seconds !== undefined) return seconds
  throw new InvalidInputError('PT400', `${name} is ${duration}`, {
    hint: "Give it a duration such as '15s'.",
  })
}
