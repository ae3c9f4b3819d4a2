import type { Sql } from 'postgres'
import { parsed } from './arguments.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { withDatabase } from './database.ts'
import {
  getSchedule,
  listSchedules,
  pauseSchedule,
  resumeSchedule,
  runSchedule,
} from './schedules-queries.ts'
import { linesOfSchedule } from './schedules-text.ts'

const usage =
  'schedules list [--flow <slug>] | schedules pause|resume|run <slug> [--owner <user id>]  [--json] [--db <url>]'

const common = { db: { type: 'string' }, json: { type: 'boolean' } } as const

/** Lists schedules, of everybody, and pauses, resumes or runs one. */
export const schedulesCommand: Command = {
  usage,
  summary:
    'Lists schedules with their next times and last runs, pauses or resumes one, or starts a run of it now. --owner names the user of a schedule that belongs to one.',
  async run([action, ...args], io) {
    if (action === 'list') return list(args, io)
    const change = action !== undefined && Object.hasOwn(changes, action) ? changes[action] : undefined
    if (change === undefined) {
      throw new CommandError(`name what to do: list, pause, resume or run\nUsage: pgflow ${usage}`)
    }
    const options = { ...common, owner: { type: 'string' } } as const
    const { values, words } = parsed(usage, args, options, { slug: 'name the schedule by its slug' })
    const [slug] = words
    const owner = values.owner ?? null
    await withDatabase(values.db, io, async (sql) => {
      await change(sql, slug!, owner)
      const schedule = await getSchedule(sql, slug!, owner)
      if (values.json) return io.out(JSON.stringify(schedule, null, 2))
      for (const line of linesOfSchedule(schedule)) io.out(line)
    })
  },
}

const changes: Readonly<Record<string, (sql: Sql, slug: string, owner: string | null) => Promise<void>>> = {
  pause: pauseSchedule,
  resume: resumeSchedule,
  run: runSchedule,
}

async function list(args: readonly string[], io: Io): Promise<void> {
  const { values } = parsed(usage, args, { ...common, flow: { type: 'string' } }, {})
  const schedules = await withDatabase(values.db, io, (sql) => listSchedules(sql, values.flow ?? null))
  if (values.json) return io.out(JSON.stringify(schedules, null, 2))
  for (const line of schedules.flatMap(linesOfSchedule)) io.out(line)
  if (schedules.length === 0) io.note('no schedules')
}
