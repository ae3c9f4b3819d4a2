import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { Cron } from 'croner'
import fc from 'fast-check'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'

/** For a longer search: `CRON_RUNS=20000 npx vitest run supabase/tests/schedules.test.ts`. */
const RUNS = Number(process.env.CRON_RUNS ?? (process.env.CI ? 1_000 : 300))

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 6, onnotice: () => undefined })
})

afterAll(async () => {
  await sql?.end()
  await stack?.stop()
})

const zones = [
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'Australia/Lord_Howe', // half an hour
  'Asia/Kolkata', // no change, and half an hour from UTC
  'America/Sao_Paulo', // no change any more
  'Africa/Casablanca', // an hour back for Ramadan
  'America/Santiago', // changes at midnight
]

const first = Date.UTC(2026, 0, 1)
const last = Date.UTC(2036, 0, 1)
const hour = 3_600_000

/** When the clock of a zone changes in these ten years, to the hour before. */
function changesOf(zone: string): number[] {
  const format = new Intl.DateTimeFormat('en', { timeZone: zone, timeZoneName: 'longOffset' })
  const offsetAt = (time: number) =>
    format.formatToParts(time).find(({ type }) => type === 'timeZoneName')!.value
  const found: number[] = []
  for (let day = first; day < last; day += 24 * hour) {
    if (offsetAt(day) === offsetAt(day + 24 * hour)) continue
    let change = day
    while (offsetAt(change) === offsetAt(change + hour)) change += hour
    found.push(change)
  }
  return found
}

const changes = new Map(zones.map((zone) => [zone, changesOf(zone)]))

interface Field {
  readonly text: string
  readonly values: readonly number[]
}

/** A field with what it means, so that nothing here has to read an expression. */
function field(least: number, most: number, names: readonly string[] = []): fc.Arbitrary<Field> {
  const word = (value: number, named: boolean) => (named && names[value - least]) || String(value)
  const range = (from: number, to: number, step = 1) =>
    Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, n) => from + n * step)
  const value = fc.integer({ min: least, max: most })
  const step = fc.integer({ min: 1, max: most }) // croner takes no larger one
  const star = fc.constant<Field>({ text: '*', values: range(least, most) })
  const stars = step.map((n): Field => ({ text: `*/${n}`, values: range(least, most, n) }))
  const part = fc.oneof(
    fc.tuple(value, fc.boolean()).map(([n, named]): Field => ({ text: word(n, named), values: [n] })),
    fc.tuple(value, value, fc.option(step), fc.boolean()).map(([one, other, n, named]): Field => {
      const [from, to] = one < other ? [one, other] : [other, one]
      if (from === to) return { text: `${from}`, values: [from] } // croner reads sun-sun as a whole week
      return {
        text: `${word(from, named)}-${word(to, named)}${n === null ? '' : `/${n}`}`,
        values: range(from, to, n ?? 1),
      }
    }),
  )
  const list = fc.array(part, { minLength: 1, maxLength: 3 }).map(
    (parts): Field => ({
      text: parts.map(({ text }) => text).join(','),
      values: [...new Set(parts.flatMap(({ values }) => values))].sort((a, b) => a - b),
    }),
  )
  return fc.oneof({ weight: 3, arbitrary: star }, stars, { weight: 3, arbitrary: list })
}

const months = 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ')
const weekdays = 'sun mon tue wed thu fri sat'.split(' ')

const every: Field = { text: '*', values: [] }
const atNight = fc.uniqueArray(fc.integer({ min: 0, max: 3 }), { minLength: 1 }).map((hours): Field => {
  return { text: hours.join(','), values: hours.sort((a, b) => a - b) }
})

const expression = fc.oneof(
  fc.tuple(field(0, 59), field(0, 23), field(1, 31), field(1, 12, months), field(0, 7, weekdays)),
  // When clocks change.
  fc.tuple(field(0, 59), atNight, fc.constant(every), fc.constant(every), fc.constant(every)),
)

const moment = fc.constantFrom(...zones).chain((zone) => {
  const near = changes.get(zone)!
  const any = fc.integer({ min: first, max: last })
  const beside = fc
    .tuple(fc.constantFrom(...(near.length > 0 ? near : [first])), fc.integer({ min: -50, max: 30 }))
    .map(([change, hours]) => change + hours * hour + (hours % 7) * 60_000)
  return fc.tuple(fc.constant(zone), fc.oneof(any, { weight: 3, arbitrary: beside }))
})

/**
 * What croner says. Where the hour does not begin with `*`, minutes and hours are written out: then croner, too, has each of these
 * times once a day. Its option decides what it would not read out of a `*` with a step: that both fields of days have to match.
 */
function expected(fields: readonly Field[], timeZone: string, after: number, quantity: number): string[] {
  const [minute, hour, day, month, weekday] = fields as [Field, Field, Field, Field, Field]
  const isElapsed = hour.text.startsWith('*')
  const written = ({ text, values }: Field) => (isElapsed ? text : values.join(','))
  const pattern = [written(minute), written(hour), day.text, month.text, weekday.text].join(' ')
  const cron = new Cron(pattern, {
    timezone: timeZone,
    mode: '5-part',
    fixedTimeRule: 'no-wildcard',
    domAndDow: day.text.startsWith('*') || weekday.text.startsWith('*'),
    paused: true,
  })
  return cron.nextRuns(quantity, new Date(after)).map((time) => time.toISOString())
}

test('the times of any expression are those of croner, whatever the clock of its zone does', {
  timeout: 60_000 + RUNS * 50,
}, async () => {
  const property = fc.asyncProperty(
    expression,
    moment,
    fc.integer({ min: 1, max: 12 }),
    async (fields, [zone, after], quantity) => {
      const cron = fields.map(({ text }) => text).join(' ')
      const wanted = expected(fields, zone, after, quantity)
      const [answer] = await sql<{ times: Date[] }[]>`
        select pgflow.cron_times(pgflow.parsed_cron(${cron}), ${zone}, ${new Date(after)}, 'infinity', ${quantity}) as times`.catch(
        ({ code }) => [{ times: code === 'PT400' ? [] : [code] }],
      )
      expect(answer!.times.map((time) => time.toISOString())).toEqual(wanted)
    },
  )
  await fc.assert(property, { numRuns: RUNS })
})

test('each time has one run, however many look at once, and whatever their clocks say', async () => {
  const [{ began }] = await sql<[{ began: Date }]>`select pgflow.now() as began`
  await sql`select pgflow.create_flow('race'), pgflow.add_step('race', 'a')`
  await sql`
    select pgflow.schedule('s' || n, 'race', '*/10 * * * *', overlap => 'allow', catch_up => 'all', spread => n % 3 * 60)
    from generate_series(1, 12) n`
  const tickAt = (minutes: number) =>
    sql.begin(async (tx) => {
      await tx`select set_config('pgflow.now', ${new Date(began.getTime() + minutes * 60_000).toISOString()}, true)`
      const [row] = await tx<[{ started: number }]>`select started from pgflow.start_due_schedules(5)`
      return row.started
    })
  let started = 0
  for (let minutes = 0; minutes <= 90; minutes += 15) {
    // Some are late.
    const ticks = Array.from({ length: 12 }, (_, n) => tickAt(n % 4 === 0 ? minutes - 20 : minutes))
    started += (await Promise.all(ticks)).reduce((sum, count) => sum + count, 0)
  }
  for (let count = 1; count > 0; started += count) count = await tickAt(100)
  const rows = await sql<{ schedule: string; runs: number; times: string[]; wanted: string[] }[]>`
    select s.schedule_slug as schedule, count(*)::int as runs,
           array_agg(distinct (r.metadata ->> 'nominal_at')::timestamptz) as times,
           pgflow.cron_times(
             pgflow.parsed_cron(s.cron), s.time_zone, ${began},
             ${began}::timestamptz + interval '100 minutes' - (s.due_at - s.next_at), 100
           ) as wanted
    from pgflow.schedules s
    join pgflow.runs r on r.metadata ->> 'schedule' = s.schedule_slug
    group by s.schedule_id`
  expect(rows).toHaveLength(12)
  for (const { runs, times, wanted } of rows) {
    expect(times).toEqual(wanted)
    expect(runs).toBe(wanted.length)
  }
  expect(started).toBe(rows.reduce((sum, { runs }) => sum + runs, 0))
})
