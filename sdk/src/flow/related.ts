import type { AnyFlow } from './definition.ts'
import { FlowDefinitionError } from './errors.ts'
import { undoFlowOf, undoSlugOf } from './undo.ts'

/**
 * The flows with those that belong to them: the flows that their steps start, as far as they have them as values, and those
 * that undo them. Each comes once, after those that it starts and the one that undoes it.
 *
 * @throws FlowDefinitionError if two different flows have one slug
 *
 * @example
 * relatedFlows([Order]).map(({ slug }) => slug)
 * // ['order_line', 'order']
 */
export function relatedFlows(flows: readonly AnyFlow[]): AnyFlow[] {
  const all = new Map<string, AnyFlow>()
  for (const flow of flows) collect(flow, all)
  const sorted = new Set<AnyFlow>()
  for (const flow of all.values()) sort(flow, [...all.values()], sorted, new Set())
  return [...sorted]
}

/** Flows are immutable, and so cannot have themselves as values. */
function collect(flow: AnyFlow, all: Map<string, AnyFlow>): void {
  const known = all.get(flow.slug)
  if (known === flow) return
  if (known !== undefined) {
    const undone = [...all.values(), flow].find((one) => undoSlugOf(one) === flow.slug)
    if (undone !== undefined) {
      throw new FlowDefinitionError(
        'duplicate_flow',
        `The flow '${flow.slug}' has the slug of the flow that undoes '${undone.slug}': give it another one.`,
      )
    }
    throw new FlowDefinitionError(
      'duplicate_flow',
      `There are two different flows '${flow.slug}' among the flows and their sub-flows: use one of them everywhere, or give one another slug or version.`,
    )
  }
  all.set(flow.slug, flow)
  for (const { child } of flow.steps.values()) if (typeof child === 'object') collect(child, all)
  const undo = undoFlowOf(flow)
  if (undo !== undefined) collect(undo, all)
}

/** The database wants to know a flow before those that start it. Where flows start each other, one of them has to come first. */
function sort(flow: AnyFlow, all: readonly AnyFlow[], sorted: Set<AnyFlow>, open: Set<AnyFlow>): void {
  if (sorted.has(flow) || open.has(flow)) return
  open.add(flow)
  const children = [...flow.steps.values()].flatMap(({ child }) => child ?? []).map(aliasOfChild)
  for (const other of all) if (children.includes(other.alias)) sort(other, all, sorted, open)
  const undo = undoFlowOf(flow)
  if (undo !== undefined) sort(undo, all, sorted, open)
  sorted.add(flow)
}

/** The slug by which a sub-flow is started: that of the newest version. */
export function aliasOfChild(child: AnyFlow | string): string {
  return typeof child === 'string' ? child : child.alias
}
