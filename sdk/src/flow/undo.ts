import type { AnyFlow } from './definition.ts'

/** The flow that undoes what the completed steps of a run of this flow have done; none if no step has an undo. */
export function undoFlowOf(_flow: AnyFlow): AnyFlow | undefined {
  return undefined
}
