import type { RunEvent, RunRow, RunSnapshot, StepState } from '../client/types.ts'
import type { ErrorDescription } from '../flow/error-description.ts'
import { slotsIn } from './limits-text.ts'
import type { RunCount, StepTasks, TaskRow, Wait } from './queries.ts'

/** So much of a value or message is shown in one line. */
const longest = 200

/** So many of those who are asked in a wait. */
const mostAssignees = 3

/** So many lines of a stack. */
const deepest = 8

export function lineOfRun({ run_id, flow_slug, status, started_at, error, waits_for }: RunRow): string {
  const note = cut(error ?? waitOfRun(waits_for))
  return [run_id, started_at.slice(0, 19), status.padEnd(9), flow_slug, note].join('  ').trimEnd()
}

/** What a run waits for that has not begun. */
function waitOfRun(waits_for: RunRow['waits_for'] | undefined): string {
  if (!waits_for) return ''
  return waits_for === 'run' ? 'waits for another run' : 'waits for a time without further starts'
}

export function lineOfCount({ flow_slug, status, count }: RunCount): string {
  return `${String(count).padStart(7)}  ${status.padEnd(9)}  ${flow_slug}`
}

/** A run, its steps with attempts, times and errors, and the attempts that failed. */
export function linesOfRun(
  { steps, ...run }: RunSnapshot,
  tasks: readonly StepTasks[],
  retries: readonly RunEvent[],
): string[] {
  const end = run.completed_at ?? run.failed_at ?? run.cancelled_at
  const times = [
    `started ${time(run.started_at)}`,
    ...(end ? [`${run.status} ${time(end)}, after ${span(run.started_at, end)}`] : []),
  ]
  const width = Math.max(...steps.map(({ step_slug }) => step_slug.length))
  return [
    lineOfRun(run),
    `  ${times.join(', ')}`,
    ...(run.parent_run_id
      ? [`  for ${run.parent_step_slug}[${run.parent_task_index}] of run ${run.parent_run_id}`]
      : []),
    ...(run.undoes ? [`  undoes run ${run.undoes}`] : []),
    ...(run.undone_by ? [`  is undone by run ${run.undone_by}`] : []),
    ...steps.flatMap((step) => {
      const of = tasks.find(({ step_slug }) => step_slug === step.step_slug)
      const stepEnd = step.completed_at ?? step.failed_at ?? step.skipped_at
      const facts = [
        ...(step.started_at ? [`after ${span(run.started_at, step.started_at)}`] : []),
        ...(step.started_at && stepEnd ? [`took ${span(step.started_at, stepEnd)}`] : []),
        ...waitingOf(step, of?.wait ?? null),
        ...(of?.child_flow ? [`runs ${of.child_flow}`] : []),
        ...(of ? summaryOf(of) : []),
        ...(of && of.slots.length > 0 ? [`waits for a slot of ${slotsIn(of.slots)}`] : []),
      ].join(', ')
      const reason = step.error ?? step.skip_reason ?? ''
      return [
        ['', step.step_slug.padEnd(width), step.status.padEnd(9), facts].join('  ').trimEnd(),
        ...(reason === '' ? [] : [`      ${cut(reason)}`]),
        ...(of ? of.examples.filter(hasNoChild(of)).flatMap((task) => linesOfTask(task, partsOf(of))) : []),
        ...(of ? linesOfChildren(of) : []),
      ]
    }),
    ...(retries.length > 0 ? ['  attempts that failed and were followed by another:'] : []),
    ...retries.map((event) => `    ${lineOfEvent(event)}`),
  ]
}

/** Whom or what a step waits for, and until when; who has decided. */
function waitingOf({ status, waits_for, due_at }: StepState, wait: Wait | null): string[] {
  if (status !== 'started') return wait?.decided_by ? [`by ${wait.decided_by}`] : []
  const until = due_at === null ? [] : [`until ${time(due_at)}`]
  if (waits_for === 'time') return [`sleeps ${until}`]
  if (waits_for === 'run') return ['waits for its run']
  if (waits_for === 'sql') return ['its function is called by a worker or pg_cron']
  return wait === null ? [] : [`waits for ${askedIn(wait)}`, ...until]
}

function askedIn({ completed_by, not_by_owner, webhook, assignees }: Wait): string {
  const who = {
    service_role: webhook === null ? 'a server or SQL' : webhookNames(webhook),
    owner: 'the owner',
    authenticated: 'any signed-in user',
    assignees:
      assignees.length > mostAssignees
        ? `${assignees.slice(0, mostAssignees).join(', ')} and ${assignees.length - mostAssignees} more`
        : assignees.join(', '),
  }[completed_by]
  const others = completed_by !== 'service_role' && webhook !== null ? ` or ${webhookNames(webhook)}` : ''
  return `${who}${others}${not_by_owner ? ', not the owner' : ''}`
}

function webhookNames(webhook: string): string {
  return webhook === 'plain' ? 'a webhook' : `a webhook of ${webhook}`
}

/** Whether a task says what no child of the step says. */
function hasNoChild({ children }: StepTasks): (task: TaskRow) => boolean {
  return ({ task_index }) => children.every((child) => child.task_index !== task_index)
}

/** The runs that a step has started. */
function linesOfChildren({ is_map, children, statuses }: StepTasks): string[] {
  const count = totalOf(statuses)
  const lines = children.map(({ run_id, task_index, status, error }) => {
    const place = is_map ? [`item ${task_index}`] : []
    return ['      run', run_id, status.padEnd(9), ...place, cut(error ?? '')].join('  ').trimEnd()
  })
  if (children.length < 10 || count <= 10) return lines
  return [...lines, `      and others of ${count}: select run_id, status from pgflow.list_children(…)`]
}

/** What one of several tasks of a step is called. */
function partsOf({ is_map, is_loop }: StepTasks): 'item' | 'turn' | undefined {
  if (is_loop) return 'turn'
  return is_map ? 'item' : undefined
}

function summaryOf(of: StepTasks): string[] {
  const { max_attempts, statuses, examples, child_flow } = of
  const part = partsOf(of)
  if (max_attempts === null && child_flow === null) return []
  if (part === undefined && child_flow !== null) return []
  if (part === undefined) return [`attempt ${examples[0]?.attempts ?? 0} of ${max_attempts}`]
  const counts = Object.entries(statuses).map(([status, count]) => `${count} ${status}`)
  return [`${totalOf(statuses)} ${part}s: ${counts.join(', ')}`]
}

function totalOf(statuses: StepTasks['statuses']): number {
  return Object.values(statuses).reduce((sum, count) => sum + count, 0)
}

function linesOfTask(task: TaskRow, part: string | undefined): string[] {
  const isTelling = task.last_error !== null || (part !== undefined && task.error_message !== null)
  if (!isTelling) return []
  const head = part
    ? [`      ${part} ${task.task_index}, ${task.status}: ${cut(task.error_message ?? '')}`]
    : []
  return [...head, ...(task.last_error ? linesOfError(task.last_error).map((line) => `      ${line}`) : [])]
}

/** The stack, which begins with the message, and the causes. */
function linesOfError({ name, message, code, stack, cause, errors = [] }: ErrorDescription): string[] {
  const own = (stack ?? `${name}: ${message}`).split('\n').filter((line) => !isForeign(line))
  const lines = own.slice(0, deepest).concat(own.length > deepest ? ['    …'] : [])
  const inner = [...(cause ? [cause] : []), ...errors].flatMap((one) => {
    return linesOfError(one).map((line, index) => (index === 0 ? `  caused by ${line}` : `  ${line}`))
  })
  return [...lines, ...(code === undefined ? [] : [`  code ${code}`]), ...inner].map((line) => cut(line))
}

/** Whether a line of a stack is Node's or the worker's own. */
function isForeign(line: string): boolean {
  return /^ +at .*(\(| )node:internal\/|^ +at .*\/@pgflow\/sdk\/dist\/|^ +at .*\/sdk\/src\/worker\//.test(
    line,
  )
}

/** Time, type, step and what the type says. */
export function lineOfEvent(event: RunEvent): string {
  const clock = event.at.slice(11, 23).padEnd(12)
  return [clock, event.type.padEnd(13), event.step_slug ?? '', cut(factsOf(event))].join('  ').trimEnd()
}

function factsOf(event: RunEvent): string {
  switch (event.type) {
    case 'run:completed':
    case 'step:completed':
      return event.output === undefined ? '(large output)' : json(event.output)
    case 'run:failed':
    case 'run:cancelled':
    case 'step:failed':
      return event.error ?? ''
    case 'run:started':
    case 'run:waiting':
      return waitOfRun(event.waits_for)
    case 'run:retried':
      return event.step_slugs.join(', ')
    case 'step:started':
      if (event.waits_for !== undefined) {
        if (event.waits_for === 'slot') return 'waits for a slot'
        if (event.waits_for === 'run') return 'waits for its run'
        if (event.waits_for === 'sql') return 'calls a function'
        const until = event.due_at ? ` until ${time(event.due_at)}` : ''
        return event.waits_for === 'time' ? `sleeps${until}` : `waits${until}`
      }
      return event.initial_tasks === null || event.initial_tasks === 1 ? '' : `${event.initial_tasks} tasks`
    case 'step:retrying':
      return `${event.error} (failures so far: ${event.retries}, next attempt ${time(event.retry_at)})`
    case 'step:progress':
      return json(event.progress)
    case 'step:skipped':
      return event.error ?? event.skip_reason
    default:
      return ''
  }
}

function json(value: unknown): string {
  return JSON.stringify(value) ?? ''
}

export function time(at: string): string {
  return `${at.slice(0, 19).replace('T', ' ')} UTC`
}

/** @example span(start, end) // '340 ms', '5.2 s', '3 min 5 s', '2 h 10 min' */
export function span(from: string, to: string): string {
  const ms = Math.max(0, Date.parse(to) - Date.parse(from))
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes} min ${Math.floor((ms % 60_000) / 1_000)} s`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** In one line, without what would move a terminal's cursor. */
export function cut(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is replaced
  const line = text.replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, ' ').trimEnd()
  return line.length > longest ? `${line.slice(0, longest - 1)}…` : line
}
