import type { AnyFlow, StepDefinition, StepType } from './definition.ts'
import { aliasOfChild } from './related.ts'

/** What is looked at of a run's snapshot. */
export interface PicturedRun {
  readonly steps: readonly {
    readonly step_slug: string
    readonly status: string
    readonly waits_for?: string | null
  }[]
}

const colours: Readonly<Record<string, string>> = {
  created: 'fill:#f1f5f9,stroke:#94a3b8,color:#0f172a',
  started: 'fill:#dbeafe,stroke:#2563eb,color:#172554',
  limited: 'fill:#f8fafc,stroke:#2563eb,color:#172554',
  completed: 'fill:#dcfce7,stroke:#16a34a,color:#052e16',
  failed: 'fill:#fee2e2,stroke:#dc2626,color:#450a0a',
  skipped: 'fill:#fef9c3,stroke:#ca8a04,color:#422006',
  cancelled: 'fill:#e7e5e4,stroke:#78716c,color:#1c1917',
}

const shapes: Readonly<Record<StepType, (text: string) => string>> = {
  single: (text) => `[${text}]`,
  map: (text) => `[[${text}]]`,
  loop: (text) => `[/${text}\\]`,
  wait: (text) => `[/${text}/]`,
  sleep: (text) => `([${text}])`,
  sql: (text) => `[(${text})]`,
}

/**
 * A picture of a flow, as the text of a Mermaid flowchart: maps have double sides, loops are trapezoids, waits are slanted (as input by
 * hand), sleeps round, SQL steps cylinders, sub-flows hexagonal with the slug of their flow (`lines → invoice_line`), steps with a condition have a dashed
 * border. With a run's snapshot, each step has the colour of its status; one that
 * waits for a slot of a limit has the border of a running one, and is pale.
 *
 * @example
 * toMermaid(Greet)
 * // flowchart LR
 * //   s_text["text"]
 * //   s_mail["mail"]
 * //   s_text --> s_mail
 */
export function toMermaid(flow: AnyFlow, run?: PicturedRun): string {
  const steps = [...flow.steps.values()]
  const lines = [
    ...steps.map((step) => idOf(step.slug) + shapeOf(step)),
    ...steps.flatMap(({ slug, deps }) => deps.map((dep) => `${idOf(dep)} --> ${idOf(slug)}`)),
    ...classOf(steps.filter(isConditional), 'conditional', 'stroke-dasharray:4'),
    ...Object.entries(colours).flatMap(([status, colour]) => {
      const slugs = new Set(
        run?.steps.filter((step) => shownStatus(step) === status).map((step) => step.step_slug),
      )
      return classOf(
        steps.filter(({ slug }) => slugs.has(slug)),
        status,
        colour,
      )
    }),
  ]
  return `flowchart LR\n${lines.map((line) => `  ${line}\n`).join('')}`
}

function shownStatus({ status, waits_for }: PicturedRun['steps'][number]): string {
  return status === 'started' && waits_for === 'slot' ? 'limited' : status
}

function shapeOf({ slug, type, child }: StepDefinition): string {
  if (child === undefined) return shapes[type](`"${slug}"`)
  const text = `"${slug} → ${aliasOfChild(child)}"`
  return type === 'map' ? shapes.map(text) : `{{${text}}}`
}

/** A slug alone may be a word of Mermaid's, as `end` is. */
function idOf(slug: string): string {
  return `s_${slug}`
}

function isConditional({ options }: StepDefinition): boolean {
  return options.runIf !== undefined || options.runUnless !== undefined
}

function classOf(steps: readonly StepDefinition[], name: string, style: string): string[] {
  if (steps.length === 0) return []
  return [`classDef ${name} ${style}`, `class ${steps.map(({ slug }) => idOf(slug)).join()} ${name}`]
}
