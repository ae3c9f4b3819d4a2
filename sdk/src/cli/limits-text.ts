import type { LimitKey, ListedLimit } from './limits-queries.ts'
import { cut, time } from './runs-text.ts'

/** What it limits, and how many tasks run and wait for each of its keys. */
export function linesOfLimit({ keys, keys_in_use, ...limit }: ListedLimit): string[] {
  const title =
    limit.limit_slug === null
      ? 'concurrency of maps'
      : [
          limit.limit_slug,
          boundsOf(limit.running, limit),
          `set by ${limit.made_by === 'sql' ? 'SQL' : 'a flow'}`,
        ].join('  ')
  const more = keys_in_use - keys.length
  return [
    cut(title),
    ...keys.map(lineOfKey),
    ...(more > 0 ? [`  … and ${more} more`] : []),
    ...(keys.length === 0 ? ['  no tasks'] : []),
  ]
}

function lineOfKey({
  limit_slug,
  value,
  running,
  running_limit,
  waiting,
  oldest_waiting_since,
}: LimitKey): string {
  const facts = [
    `${running}${running_limit === null ? '' : ` of ${running_limit}`} running`,
    ...(waiting > 0
      ? [`${waiting} waiting${oldest_waiting_since === null ? '' : ` since ${time(oldest_waiting_since)}`}`]
      : []),
  ]
  const words = limit_slug === null ? value.replace(':', '  ') : value
  return cut(`  ${[...(value === '' ? [] : [words]), facts.join(', ')].join('  ')}`)
}

/** @example '5 at a time, 3000 per 60 s' */
function boundsOf(
  running: number | null,
  { rate_count, rate_period }: Pick<LimitKey, 'rate_count' | 'rate_period'>,
): string {
  return [
    ...(running === null ? [] : [`${running} at a time`]),
    ...(rate_count === null ? [] : [`${rate_count} per ${rate_period} s`]),
  ].join(', ')
}

/** Which limits keep tasks waiting, and how far they are used. */
export function slotsIn(keys: readonly LimitKey[]): string {
  return keys
    .map((key) => {
      const name =
        key.limit_slug === null
          ? 'its concurrency'
          : key.value === ''
            ? key.limit_slug
            : `${key.limit_slug} for ${key.value}`
      const bounds = [
        ...(key.running_limit === null ? [] : [`${key.running} of ${key.running_limit} running`]),
        ...(key.rate_count === null ? [] : [boundsOf(null, key)]),
      ]
      return bounds.length === 0 ? name : `${name} (${bounds.join(', ')})`
    })
    .join(' and ')
}
