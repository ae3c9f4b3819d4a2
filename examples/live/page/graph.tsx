import type { StepState } from '@pgflow/sdk'
import type { FlowShape } from '@pgflow/sdk/flow'
import { useMemo, useSyncExternalStore } from 'react'
import { layoutOf, type NodeSize } from './graph-layout.ts'
import { progressOf } from './progress.ts'
import { Status, shownStatus } from './status.tsx'
import './graph.css'

const wide: NodeSize = { width: 128, height: 60, gap: 14 }
const narrow: NodeSize = { width: 102, height: 56, gap: 10 }
const narrowScreen = matchMedia('(max-width: 30rem)')

function useNodeSize(): NodeSize {
  const isNarrow = useSyncExternalStore(
    (changed) => {
      narrowScreen.addEventListener('change', changed)
      return () => narrowScreen.removeEventListener('change', changed)
    },
    () => narrowScreen.matches,
  )
  return isNarrow ? narrow : wide
}

interface GraphProps {
  shape: FlowShape
  /** The steps of a run; without a run, no status is shown. */
  steps?: readonly StepState[]
  selected: string | null
  onSelect: (slug: string) => void
}

/** The steps and their deps as a picture. The list of steps says the same in words. */
export function Graph({ shape, steps, selected, onSelect }: GraphProps) {
  const size = useNodeSize()
  const layout = useMemo(() => layoutOf(shape, size), [shape, size])
  const states = new Map(steps?.map((step) => [step.step_slug, step]))
  const typeOf = new Map(shape.steps.map(({ step_slug, step_type }) => [step_slug, step_type]))
  const statusOf = (slug: string) => {
    const step = states.get(slug)
    return step ? shownStatus(step) : 'created'
  }
  return (
    <div className="graph">
      <div className="canvas" style={{ width: layout.width, height: layout.height }}>
        <svg width={layout.width} height={layout.height} aria-hidden="true">
          {layout.deps.map(({ from, to, path }) => (
            <path key={`${from} ${to}`} d={path} data-from={statusOf(from)} data-to={statusOf(to)} />
          ))}
        </svg>
        <ul aria-label="Steps as a graph">
          {layout.steps.map(({ slug, x, y }) => (
            <li key={slug} style={{ left: x, top: y, width: size.width, height: size.height }}>
              <Node
                slug={slug}
                type={typeOf.get(slug)}
                step={states.get(slug)}
                isSelected={slug === selected}
                onSelect={() => onSelect(slug)}
              />
            </li>
          ))}
        </ul>
      </div>
    </div>
  )
}

interface NodeProps {
  slug: string
  /** A wait and a sleep have shapes of their own. */
  type: FlowShape['steps'][number]['step_type'] | undefined
  step: StepState | undefined
  isSelected: boolean
  onSelect: () => void
}

function Node({ slug, type, step, isSelected, onSelect }: NodeProps) {
  return (
    <button
      type="button"
      className="node"
      data-type={type}
      data-status={step ? shownStatus(step) : 'created'}
      aria-pressed={isSelected}
      onClick={onSelect}
    >
      <span className="slug">{slug}</span>
      {step && <NodeStatus step={step} />}
    </button>
  )
}

function NodeStatus({ step }: { step: StepState }) {
  const progress = progressOf(step)
  if (!progress) return <Status status={shownStatus(step)} />
  const { done, total } = progress
  return (
    <>
      <span className="status" data-status="started">
        {done} of {total}
      </span>
      <span className="node-progress" style={{ width: `${(100 * done) / total}%` }} />
    </>
  )
}
