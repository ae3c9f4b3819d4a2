import type {
  AnyFlow,
  FlowOptions,
  FlowSchedule,
  Limit,
  MapSource,
  Singleton,
  StepDefinition,
  StepOptions,
  StepType,
} from './definition.ts'
import { FlowDefinitionError } from './errors.ts'
import {
  batchOptions,
  checkOptions,
  flowOptions,
  limitOptions,
  scheduleOptions,
  shown,
  singletonOptions,
  stepOptions,
  subFlowOptions,
  undoOptions,
} from './option-checks.ts'
import { versionedSlug } from './version.ts'

/** Throws if a flow cannot have this slug, these options or this schema. */
export function checkFlow(slug: string, options: FlowOptions, input: unknown): void {
  checkSlug('flow', slug)
  const subject = `flow '${slug}'`
  checkOptions(subject, options, flowOptions)
  options.schedules?.forEach((schedule, index) => {
    checkSchedule(subject, schedule, options.schedules!.slice(0, index))
  })
  if (options.singleton !== undefined) checkSingleton(subject, options.singleton)
  checkLimits(subject, options.limits, ['run'])
  checkLimitCount(subject, options.limits?.length ?? 0)
  checkSlug('flow', versionedSlug(slug, options.version))
  checkSchema(subject, 'input', input)
}

/** Throws if this step cannot follow those that a flow already has. */
export function checkStep(
  step: StepDefinition,
  earlier: ReadonlyMap<string, StepDefinition>,
  flow: FlowOptions,
): void {
  checkSlug('step', step.slug)
  const subject = `step '${step.slug}'`
  if (earlier.has(step.slug)) {
    throw new FlowDefinitionError(
      'duplicate_step',
      `The flow already has a ${subject}: give this one another slug.`,
    )
  }
  checkDeps(subject, step.deps, earlier)
  const isSubFlow = 'child' in step
  if (step.type === 'map' || isSubFlow) checkItems(subject, step)
  if (step.type === 'loop') checkStart(subject, step.items)
  checkOptions(subject, step.options, (isSubFlow && subFlowOptions[step.type]) || stepOptions[step.type])
  if (isSubFlow) checkChild(subject, step.child)
  checkBatch(subject, step)
  checkUndo(subject, step)
  if (step.type === 'wait') checkWait(subject, step.options)
  if (step.type === 'sleep') checkSleep(subject, step.options)
  if (step.type === 'map') checkTolerate(subject, step.options)
  if (step.type === 'loop') checkEnd(subject, step.options)
  if (step.type !== 'wait' && step.type !== 'sleep') checkTaskLimits(subject, step, flow)
  checkSchema(subject, 'input', step.inputSchema)
  checkSchema(subject, 'output', step.outputSchema)
  if (step.type === 'sql') checkCall(subject, step.options)
  if (!isSubFlow && !handlerless.includes(step.type) && typeof step.handler !== 'function') {
    throw new FlowDefinitionError(
      'invalid_handler',
      `The handler of ${subject} is ${shown(step.handler)}: give it a function (payload, context) => output.`,
    )
  }
}

function checkSchedule(flow: string, schedule: FlowSchedule, earlier: readonly FlowSchedule[]): void {
  const { slug, ...options } = schedule
  checkSlug('schedule', slug)
  const subject = `schedule '${slug}' of ${flow}`
  if (earlier.some((other) => other.slug === slug)) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${flow} already has a schedule '${slug}': give this one another slug.`,
    )
  }
  // A schedule without one is refused, too.
  checkOptions(subject, { ...options, cron: options.cron ?? '' }, scheduleOptions)
}

function checkSlug(kind: 'flow' | 'step' | 'schedule', slug: unknown): void {
  const problem = slugProblem(slug)
  if (problem !== undefined) {
    throw new FlowDefinitionError(
      'invalid_slug',
      `${shown(slug)} cannot be the slug of a ${kind}: ${problem}.`,
    )
  }
}

function slugProblem(slug: unknown): string | undefined {
  if (typeof slug !== 'string') return 'a slug is a string'
  if (slug === 'run') return 'run is the name of the input of a run, choose another'
  if (slug.length > 128) return `it has ${slug.length} characters, shorten it to 128 at most`
  if (!/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(slug)) {
    return 'use letters, digits and underscores only, and no digit at the start'
  }
  return undefined
}

function checkDeps(
  subject: string,
  deps: readonly string[],
  earlier: ReadonlyMap<string, StepDefinition>,
): void {
  if (!Array.isArray(deps)) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option dependsOn of ${subject} is ${shown(deps)}: make it an array of slugs.`,
    )
  }
  const unknown = deps.findIndex((dep) => !earlier.has(dep))
  if (unknown !== -1) {
    const known = earlier.size === 0 ? 'no step' : [...earlier.keys()].join(', ')
    throw new FlowDefinitionError(
      'unknown_dep',
      `The ${subject} depends on ${shown(deps[unknown])}, but before it the flow has ${known}: define the dep first, or correct its name.`,
    )
  }
  const twice = deps.find((dep, index) => deps.indexOf(dep) !== index)
  if (twice !== undefined) {
    throw new FlowDefinitionError(
      'duplicate_dep',
      `The ${subject} names its dep '${twice}' twice: name it once.`,
    )
  }
}

function checkItems(subject: string, { type, items }: StepDefinition): void {
  if (items === undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      type === 'map'
        ? `The map ${subject} has several deps: name the one with the array in items.`
        : `The sub-flow ${subject} has several deps: name the one with its input in input.`,
    )
  }
  if (items.path?.split('.').includes('')) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option ${type === 'map' ? 'items' : 'input'} of ${subject} is '${items.source}.${items.path}': make it a path like 'toc.urls'.`,
    )
  }
}

function checkChild(subject: string, child: AnyFlow | string | undefined): void {
  const alias = typeof child === 'object' ? child?.alias : child
  const problem = slugProblem(alias)
  if (problem !== undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option flow of ${subject} is ${shown(child)}: make it a flow, or the slug of one.`,
    )
  }
  if (typeof child === 'object' && child.options.singleton !== undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} starts the flow '${alias}', which has a singleton: take one without, since a run that waits for others, or is another's, cannot be a child.`,
    )
  }
}

function checkStart(subject: string, start: MapSource | undefined): void {
  if (start === undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The loop ${subject} has several deps: name the one with its first state in start.`,
    )
  }
  if (start.path?.split('.').includes('')) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option start of ${subject} is '${start.source}.${start.path}': make it a path like 'plan.tasks'.`,
    )
  }
}

function checkEnd(subject: string, { until, whenExceeded }: StepOptions): void {
  if (until === undefined && whenExceeded !== 'complete') {
    throw new FlowDefinitionError(
      'invalid_option',
      `The loop ${subject} does not say when it ends: give it until, such as until: { done: true }, or whenExceeded: 'complete'.`,
    )
  }
}

function checkWait(subject: string, { timeout, whenTimedOut }: StepOptions): void {
  if (whenTimedOut !== undefined && timeout === undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} has whenTimedOut but no timeout: give it one, such as timeout: '48h'.`,
    )
  }
}

function checkBatch(subject: string, { type, batch }: StepDefinition): void {
  if (batch === undefined) return
  checkOptions(subject, { batch }, stepOptions[type])
  // Without a size it is refused, too.
  checkOptions(`batch of ${subject}`, { ...batch, size: batch.size ?? null }, batchOptions)
}

function checkUndo(subject: string, { type, undo }: StepDefinition): void {
  if (undo === undefined) return
  if (type !== 'single' && type !== 'map') checkOptions(subject, { undo } as StepOptions, stepOptions[type])
  if (typeof undo.handler !== 'function') {
    throw new FlowDefinitionError(
      'invalid_handler',
      `The undo of ${subject} is ${shown(undo.handler)}: give it a function ({ run, output }, context) => …, or { handler, maxAttempts, … }.`,
    )
  }
  checkOptions(`undo of ${subject}`, undo.options, undoOptions)
}

function checkSleep(subject: string, options: StepOptions): void {
  if ((options.for === undefined) === (options.until === undefined)) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} needs either for ('3d') or until ('run.remind_at'): give it one of them.`,
    )
  }
}

function checkCall(subject: string, { call }: StepOptions): void {
  if (call === undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} does not say what it calls: give it the name of a function, such as call: 'public.save_embeddings'.`,
    )
  }
}

function checkTolerate(subject: string, { whenItemFails, tolerate }: StepOptions): void {
  if (tolerate !== undefined && whenItemFails !== 'collect') {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} has tolerate, but fails with its first failed item: give it whenItemFails: 'collect'.`,
    )
  }
}

function checkSingleton(flow: string, singleton: Singleton): void {
  checkOptions(`singleton of ${flow}`, singleton, singletonOptions)
  if (singleton.wait !== undefined && singleton.whenBusy !== 'after') {
    throw new FlowDefinitionError(
      'invalid_option',
      `The singleton of ${flow} has wait: give it whenBusy: 'after', or leave it out.`,
    )
  }
  if (singleton.key !== undefined) checkSource(`key of singleton of ${flow}`, singleton.key, ['run'])
}

/** With those of the flow, and that of a map's concurrency. */
function checkTaskLimits(subject: string, { deps, options }: StepDefinition, flow: FlowOptions): void {
  checkLimits(subject, options.limits, ['run', ...deps])
  const own = options.limits ?? []
  const twice = own.find(
    ({ name }) => name !== undefined && flow.limits?.some((other) => other.name === name),
  )
  if (twice !== undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} has the limit '${twice.name}', which its flow has, too: leave out one of them.`,
    )
  }
  const others = (flow.limits?.length ?? 0) + (options.concurrency === undefined ? 0 : 1)
  checkLimitCount(subject, own.length + others)
}

function checkLimitCount(subject: string, count: number): void {
  if (count <= 3) return
  throw new FlowDefinitionError(
    'invalid_option',
    `The ${subject} has ${count} limits, with those of its flow and its concurrency: give it three at most.`,
  )
}

function checkLimits(subject: string, limits: readonly Limit[] = [], sources: readonly string[]): void {
  limits.forEach((limit, index) => {
    const name = `limit ${limit.name === undefined ? index + 1 : shown(limit.name)} of ${subject}`
    checkOptions(name, limit, limitOptions)
    if (limit.running === undefined && limit.rate === undefined) {
      throw new FlowDefinitionError(
        'invalid_option',
        `The ${name} has neither running nor rate: give it running: 5, rate: [3000, '1m'], or both.`,
      )
    }
    if (limit.name !== undefined && limits.findIndex((other) => other.name === limit.name) !== index) {
      throw new FlowDefinitionError('invalid_option', `The ${subject} has the ${name} twice: give it once.`)
    }
    if (limit.by !== undefined) checkSource(`by of ${name}`, limit.by, sources)
  })
}

function checkSource(option: string, path: string, sources: readonly string[]): void {
  if (sources.includes(path.split('.')[0]!)) return
  throw new FlowDefinitionError(
    'invalid_option',
    `The option ${option} is ${shown(path)}: begin it with ${sources.join(', ')}.`,
  )
}

function checkSchema(subject: string, name: string, schema: unknown): void {
  if (schema === undefined) return
  const standard = (schema as { '~standard'?: { validate?: unknown } } | null)?.['~standard']
  if (typeof standard?.validate !== 'function') {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option ${name} of ${subject} is ${shown(schema)}: make it a Standard Schema, as zod, valibot and arktype have them.`,
    )
  }
}

const handlerless: readonly StepType[] = ['wait', 'sleep', 'sql']
