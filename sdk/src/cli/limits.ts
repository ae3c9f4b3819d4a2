import { secondsOf } from '../shared/duration.ts'
import { countOf, parsed } from './arguments.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { withDatabase } from './database.ts'
import { getLimit, type ListedLimit, listLimits, resetLimit, setLimit } from './limits-queries.ts'
import { linesOfLimit } from './limits-text.ts'

const usage =
  'limits list [--flow <slug>] | limits set <limit> [--running <n>] [--rate <n>/<duration>] | limits reset <limit>  [--json] [--db <url>]'

const common = { db: { type: 'string' }, json: { type: 'boolean' } } as const

const theLimit = { limit: 'name the limit' }

/** Lists limits, sets one in place, and gives it back to the definitions of flows. */
export const limitsCommand: Command = {
  usage,
  summary:
    'Lists limits with the tasks that run and wait, sets one at once, or gives it back to the definitions of flows. A rate is such as 3000/1m.',
  async run([action, ...args], io) {
    if (action === 'list') return list(args, io)
    if (action === 'set') return set(args, io)
    if (action === 'reset') return reset(args, io)
    throw new CommandError(`name what to do: list, set or reset\nUsage: pgflow ${usage}`)
  },
}

async function list(args: readonly string[], io: Io): Promise<void> {
  const { values } = parsed(usage, args, { ...common, flow: { type: 'string' } }, {})
  const limits = await withDatabase(values.db, io, (sql) => listLimits(sql, values.flow ?? null))
  if (values.json) return io.out(JSON.stringify(limits, null, 2))
  for (const line of limits.flatMap(linesOfLimit)) io.out(line)
  if (limits.length === 0) io.note('no limits')
}

async function set(args: readonly string[], io: Io): Promise<void> {
  const options = { ...common, running: { type: 'string' }, rate: { type: 'string' } } as const
  const { values, words } = parsed(usage, args, options, theLimit)
  const running = countOf('running', values.running) ?? null
  const rate = values.rate === undefined ? null : rateFrom(values.rate)
  if (running === null && rate === null) {
    throw new CommandError(`say what the limit is: --running, --rate or both\nUsage: pgflow ${usage}`)
  }
  await withDatabase(values.db, io, async (sql) => {
    await setLimit(sql, words[0]!, running, rate)
    for (const line of linesOf(await getLimit(sql, words[0]!), values.json ?? false)) io.out(line)
  })
}

async function reset(args: readonly string[], io: Io): Promise<void> {
  const { values, words } = parsed(usage, args, common, theLimit)
  await withDatabase(values.db, io, async (sql) => {
    await resetLimit(sql, words[0]!)
    for (const line of linesOf(await getLimit(sql, words[0]!), values.json ?? false)) io.out(line)
  })
}

function linesOf(limit: ListedLimit | undefined, json: boolean): string[] {
  if (json) return [JSON.stringify(limit ?? null, null, 2)]
  return limit === undefined ? ['the limit is gone: no flow has it'] : linesOfLimit(limit)
}

/** @example rateFrom('3000/1m') // { count: 3000, period: 60 } */
function rateFrom(text: string): { count: number; period: number } {
  const [, count, time] = /^([1-9]\d{0,8})\/(.+)$/.exec(text) ?? []
  const period = secondsOf(time)
  if (period !== undefined && Number.isInteger(period) && period >= 1) return { count: Number(count), period }
  throw new CommandError('--rate is a number of tasks in a time of whole seconds, such as 3000/1m or 10/1s')
}
