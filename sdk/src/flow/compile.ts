import { secondsOf } from '../shared/duration.ts'
import {
  type AnyFlow,
  type FlowOptions,
  type FlowSchedule,
  hasHandler,
  type Limit,
  type StepDefinition,
  type StepOptions,
} from './definition.ts'
import type { Json } from './json-types.ts'
import { aliasOfChild } from './related.ts'
import { jsonSchemaOf } from './schema.ts'
import { undoSlugOf } from './undo.ts'
import { isWaitRole } from './wait.ts'

/** A flow as the database defines it: the arguments of `create_flow` and, per step, of `add_step`. */
export interface FlowDefinition {
  readonly [argument: string]: Json
  readonly flow_slug: string
  readonly steps: readonly StepArguments[]
}

type StepArguments = {
  readonly [argument: string]: Json
  readonly step_slug: string
  readonly deps_slugs: readonly string[]
}

/** What makes two flows the same: their steps, deps, maps, conditions and schemas, whatever their order and options. */
export interface FlowShape {
  readonly [key: string]: Json
  readonly flow_slug: string
  readonly steps: readonly StepArguments[]
}

/**
 * The SQL that defines a flow. The same flow gives the same text; running it twice changes nothing, and running it after
 * a change of options updates them.
 *
 * @example
 * compile(new Flow<string>({ slug: 'greet', timeout: 5 }).step('text', ({ run }) => `Hello ${run}`))
 * // select pgflow.register_flow('{
 * //   "flow_slug": "greet",
 * //   "timeout": 5,
 * //   "steps": [
 * //     {"step_slug":"text","deps_slugs":[]}
 * //   ]
 * // }');
 */
export function compile(flow: AnyFlow): string {
  return sqlOf(definitionOf(flow))
}

/** The SQL that registers a definition, a step on each line. */
export function sqlOf({ steps, ...flow }: FlowDefinition): string {
  const lines = Object.entries(flow).map(([key, value]) => `  "${key}": ${JSON.stringify(value)},\n`)
  const list = steps.map((step) => `    ${JSON.stringify(step)}`).join(',\n')
  const json = `{\n${lines.join('')}  "steps": [\n${list}\n  ]\n}`
  return `select pgflow.register_flow('${json.replaceAll("'", "''")}');\n`
}

/** A flow as one JSON value, in the form that the database registers. What is not given is left to its defaults. */
export function definitionOf(flow: AnyFlow): FlowDefinition {
  const {
    maxAttempts,
    baseDelay,
    timeout,
    startRole,
    broadcast,
    version = 1,
    schedulable,
    schedules,
    priority,
    deadline,
    singleton,
    limits,
  } = flow.options
  return {
    flow_slug: flow.slug,
    ...(version > 1 && { alias: flow.alias, version }),
    ...given({
      max_attempts: maxAttempts,
      base_delay: secondsOf(baseDelay),
      timeout: secondsOf(timeout),
      start_role: startRole,
      broadcast,
      schedulable,
      schedules: schedules?.map(scheduleArguments),
      priority,
      deadline: secondsOf(deadline),
      ...(singleton && {
        singleton_path: singleton.key,
        singleton_when_busy: singleton.whenBusy ?? 'return',
        singleton_wait: secondsOf(singleton.wait),
      }),
      limits: limits?.map(limitArguments),
      undo_flow: undoSlugOf(flow),
      input_schema: jsonSchemaOf(flow.inputSchema, 'input'),
    }),
    steps: [...flow.steps.values()].map((step) => stepArguments(step, flow.options)),
  }
}

function scheduleArguments(schedule: FlowSchedule): Record<string, Json> {
  const { slug, cron, timeZone, input, overlap, catchUp, catchUpWindow, spread } = schedule
  return {
    schedule_slug: slug,
    cron,
    ...given({
      time_zone: timeZone,
      // The builder has made sure that it is JSON.
      input: input as Json | undefined,
      overlap,
      catch_up: catchUp,
      catch_up_window: secondsOf(catchUpWindow),
      spread: secondsOf(spread),
    }),
  }
}

function limitArguments({ name, by, running, rate }: Limit): Record<string, Json> {
  return given({
    limit_slug: name,
    by_path: by,
    running,
    rate_count: rate?.[0],
    rate_period: secondsOf(rate?.[1]),
  })
}

function stepArguments(step: StepDefinition, flowOptions: FlowOptions): StepArguments {
  const { type, items, child, inputSchema, outputSchema, options } = step
  return {
    step_slug: step.slug,
    deps_slugs: step.deps,
    ...given({
      step_type: type === 'single' ? undefined : type,
      map_source: items?.source,
      map_path: items?.path,
      run_if: options.runIf,
      run_unless: options.runUnless,
      when_unmet: options.whenUnmet,
      when_exhausted: options.whenExhausted,
      max_attempts: options.maxAttempts,
      base_delay: secondsOf(options.baseDelay),
      timeout: secondsOf(options.timeout),
      deadline: secondsOf(options.deadline),
      limits: options.limits?.map(limitArguments),
      ...(type === 'map' && mapArguments(options)),
      ...(child !== undefined && {
        child_flow: aliasOfChild(child),
        when_parent_ends: options.whenParentEnds,
      }),
      ...(type === 'wait' && waitArguments(options)),
      ...(type === 'sleep' && { sleep_for: secondsOf(options.for), until_path: options.until }),
      ...(type === 'loop' && loopArguments(options)),
      sql_function: options.call,
      start_delay:
        hasHandler(step) || type === 'sql' || child !== undefined
          ? secondsOf(options.startDelay ?? flowOptions.startDelay)
          : undefined,
      input_schema: jsonSchemaOf(inputSchema, 'input'),
      // What completes a wait or a sub-flow, or a function returns, is stored as it is given.
      output_schema: jsonSchemaOf(outputSchema, hasHandler(step) ? 'output' : 'input'),
    }),
  }
}

function mapArguments({
  concurrency,
  whenItemFails,
  tolerate,
}: StepOptions): Record<string, Json | undefined> {
  return {
    concurrency,
    when_item_fails: whenItemFails === 'fail' ? undefined : whenItemFails,
    ...(typeof tolerate === 'string'
      ? { tolerate_share: Number.parseFloat(tolerate) / 100 }
      : { tolerate_count: tolerate }),
  }
}

function loopArguments({ until, max, whenExceeded }: StepOptions): Record<string, Json | undefined> {
  return {
    loop_until: until,
    loop_max: max,
    when_exceeded: whenExceeded === 'fail' ? undefined : whenExceeded,
  }
}

function waitArguments({ by, notBy, whenTimedOut, webhook }: StepOptions): Record<string, Json | undefined> {
  const isPath = by !== undefined && !isWaitRole(by)
  return {
    completed_by: isPath ? 'assignees' : by === 'service_role' ? undefined : by,
    assignees_path: isPath ? by : undefined,
    not_by_owner: notBy === 'owner' ? true : undefined,
    when_timed_out:
      typeof whenTimedOut === 'object' ? 'complete' : whenTimedOut === 'fail' ? undefined : whenTimedOut,
    timed_out_output: typeof whenTimedOut === 'object' ? whenTimedOut.output : undefined,
    webhook: webhook === true ? 'plain' : webhook || undefined,
  }
}

/** The flow's shape in the database's canonical form, so that equal shapes are equal as text too. */
export function shapeOf(flow: AnyFlow): FlowShape {
  const { flow_slug, input_schema, steps } = definitionOf(flow)
  const shapes = steps.map(stepShape).sort((one, other) => (one.step_slug < other.step_slug ? -1 : 1))
  return sorted({ flow_slug, ...given({ input_schema }), steps: shapes })
}

/** What is not here is an option. */
function stepShape(step: StepArguments): StepArguments {
  const { max_attempts, base_delay, timeout, start_delay, sleep_for, ...others } = step
  const {
    concurrency,
    deadline,
    limits,
    tolerate_count,
    tolerate_share,
    loop_max,
    when_parent_ends,
    ...shape
  } = others
  const defaults = {
    ...{ step_type: 'single', when_unmet: 'skip-cascade', when_exhausted: 'fail' },
    ...(step.step_type === 'map' && { when_item_fails: 'fail' }),
    ...(step.step_type === 'loop' && { when_exceeded: 'fail' }),
  }
  return { ...defaults, ...shape, deps_slugs: step.deps_slugs.toSorted() } as StepArguments // a step with more said
}

/** The same object with its keys in order, at each level. */
function sorted<T extends Json>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(sorted) as Json as T // a value of the same type
  const entries = Object.entries(value as Record<string, Json>).map(
    ([key, inner]) => [key, sorted(inner)] as const,
  )
  return Object.fromEntries(entries.sort(([one], [other]) => (one < other ? -1 : 1))) as Json as T // here too
}

function given(options: Record<string, Json | undefined>): Record<string, Json> {
  return Object.fromEntries(
    Object.entries(options).filter((entry): entry is [string, Json] => entry[1] !== undefined),
  )
}
