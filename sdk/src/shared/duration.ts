/**
 * A length of time: seconds as a number, or text with its unit (milliseconds, seconds, minutes, hours, days).
 *
 * @example
 * 90 // 90 seconds
 * '250ms', '90s', '5m', '1.5h', '3d'
 */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

const milliseconds: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/** How durations are written, for messages. */
export const durationForms = `seconds as a number, or text such as '250ms', '90s', '5m', '2h' or '3d'`

/**
 * The seconds of a duration; `undefined` if the value is none. Only a number may be infinite.
 *
 * @example
 * secondsOf('5m') // 300
 * secondsOf('soon') // undefined
 */
export function secondsOf(value: unknown): number | undefined {
  if (typeof value === 'number') return value >= 0 ? value : undefined
  if (typeof value !== 'string') return undefined
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|[smhd])$/.exec(value) ?? []
  return unit === undefined ? undefined : (Number(amount) * milliseconds[unit]!) / 1000
}
