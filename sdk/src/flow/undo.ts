import { FlowBuilder } from './builder.ts'
import type { Context } from './context.ts'
import type { AnyFlow, RetryOptions, StepDefinition, StepHandler } from './definition.ts'
import type { UndoItemPayload, UndoPayload } from './undo-types.ts'
import { versionedSlug } from './version.ts'

/** What the database starts an undo run with. */
interface UndoInput {
  readonly run: unknown
  readonly error: string | null
  readonly completed: Readonly<Record<string, true>>
  /** By the slugs of steps; of a map, its completed items. */
  readonly outputs: Readonly<Record<string, unknown>>
}

type UndoItem = Omit<UndoItemPayload, 'run' | 'error'>

const known = new WeakMap<AnyFlow, AnyFlow>()

/** The slug of the flow that undoes this one; none if no step has an undo. */
export function undoSlugOf(flow: AnyFlow): string | undefined {
  if (![...flow.steps.values()].some(({ undo }) => undo !== undefined)) return undefined
  return versionedSlug(`${flow.alias}_undo`, flow.options.version)
}

/**
 * The flow that undoes what the completed steps of a run of this flow have done; none if no step has an undo. It has a step for
 * each step with an undo, which waits for the undo of all that depend on that one.
 */
export function undoFlowOf(flow: AnyFlow): AnyFlow | undefined {
  if (undoSlugOf(flow) === undefined) return undefined
  const undo = known.get(flow) ?? built(flow)
  known.set(flow, undo)
  return undo
}

function built(flow: AnyFlow): AnyFlow {
  const { version, broadcast, ...options } = flow.options
  let undo = new FlowBuilder({
    slug: `${flow.alias}_undo`,
    ...given({ version, broadcast }),
    ...retryOptions(options),
  })
  /** By the slug of a step, the nearest steps with an undo that come after it. */
  const later = new Map<string, Set<string>>()
  for (const step of [...flow.steps.values()].reverse()) {
    const dependsOn = [...(later.get(step.slug) ?? [])]
    for (const dep of step.deps) {
      later.set(dep, new Set([...(later.get(dep) ?? []), ...(step.undo ? [step.slug] : dependsOn)]))
    }
    if (step.undo !== undefined) undo = withUndo(undo, step, dependsOn, step.undo)
  }
  return undo as unknown as AnyFlow // its types are for the compiler only
}

function withUndo(
  flow: FlowBuilder,
  { slug, type, options }: StepDefinition,
  dependsOn: readonly string[],
  undo: NonNullable<StepDefinition['undo']>,
): FlowBuilder {
  const step = {
    slug,
    dependsOn,
    runIf: { run: { completed: { [slug]: true } } },
    whenUnmet: 'skip' as const,
    ...retryOptions(options),
    ...undo.options,
  }
  if (type !== 'map') return flow.step(step, undoing(slug, undo.handler))
  const { concurrency } = options
  return flow.map(
    { ...step, items: `run.outputs.${slug}`, ...(concurrency !== undefined && { concurrency }) },
    undoingItem(undo.handler),
  )
}

function undoing(slug: string, handler: StepHandler): StepHandler {
  return async (payload, context) => {
    const { run, error, outputs } = inputFrom(payload)
    await handler({ run, output: outputs[slug], error } satisfies UndoPayload, context)
    return null
  }
}

function undoingItem(handler: StepHandler): StepHandler {
  return async (item, context: Context) => {
    const { run, error } = inputFrom(await context.payload())
    await handler({ ...(item as UndoItem), run, error } satisfies UndoItemPayload, context) // begin_undos has made it
    return null
  }
}

function inputFrom(payload: unknown): UndoInput {
  return (payload as { run: UndoInput }).run // only begin_undos starts such a run
}

function retryOptions({ maxAttempts, baseDelay, timeout }: RetryOptions): RetryOptions {
  return given({ maxAttempts, baseDelay, timeout })
}

/** Without what is undefined. */
function given<T extends object>(options: T): { [K in keyof T]?: NonNullable<T[K]> } {
  // The entries that are left have their types.
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as ReturnType<
    typeof given<T>
  >
}
