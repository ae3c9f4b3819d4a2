import { styleText } from 'node:util'
import type { RunStatus, StepState, StepStatus } from '@pgflow/sdk'

/** What is shown of an event. */
export interface ShownEvent {
  readonly seq: number
  readonly type: string
  readonly step_slug: string | null
  readonly at: string
}

/** What is shown of a run. */
export interface ShownRun {
  readonly status: RunStatus
  readonly started_at: string
  readonly steps: readonly StepState[]
}

/** Shows how a run stands after each of its events. */
export interface Display {
  show(event: ShownEvent, run: ShownRun): void
}

const marks = {
  created: ['○', 'gray'],
  started: ['◐', 'cyan'],
  completed: ['✓', 'green'],
  failed: ['✗', 'red'],
  skipped: ['–', 'gray'],
  cancelled: ['–', 'yellow'],
} as const satisfies Record<StepStatus, readonly [string, string]>

const colors = process.stdout.hasColors?.() ?? false

export function paint(color: 'gray' | 'cyan' | 'green' | 'red' | 'yellow' | 'bold', text: string): string {
  return colors ? styleText(color, text) : text
}

/** Time between two ISO strings; without an end, until now. */
function elapsed(from: string, to: string | null = null): string {
  const milliseconds = (to ? Date.parse(to) : Date.now()) - Date.parse(from)
  return `${(Math.max(0, milliseconds) / 1000).toFixed(2)} s`
}

/** A table that is drawn again at each event. */
function createTable(): Display {
  let drawn = 0
  return {
    show(_event, run) {
      const done = run.steps.filter(({ status }) => status !== 'created' && status !== 'started').length
      const lines = run.steps.map((step) => {
        const [mark, color] = marks[step.status]
        const time = step.started_at ? elapsed(step.started_at, step.completed_at ?? step.failed_at) : ''
        return `  ${paint(color, `${mark} ${step.step_slug.padEnd(12)} ${step.status.padEnd(10)}`)} ${time} ${step.error ?? ''}`
      })
      lines.push(`  ${done}/${run.steps.length} steps · run ${run.status} · ${elapsed(run.started_at)}`)
      const back = drawn > 0 ? `\x1b[${drawn}A\x1b[0J` : ''
      process.stdout.write(`${back}${lines.join('\n')}\n`)
      drawn = lines.length
    },
  }
}

/** A line for each event, for logs. */
function createLines(): Display {
  return {
    show(event, run) {
      const done = run.steps.filter(({ status }) => status === 'completed').length
      const when = `+${elapsed(run.started_at, event.at)}`.padStart(9)
      const what = `${event.type.padEnd(14)} ${event.step_slug ?? ''}`.padEnd(28)
      console.log(
        `  ${String(event.seq).padStart(3)} ${when}  ${what} ${done}/${run.steps.length} steps done`,
      )
    },
  }
}

export function createDisplay(): Display {
  return process.stdout.isTTY ? createTable() : createLines()
}
