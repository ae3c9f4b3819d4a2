import { Graph as Dagre, layout } from '@dagrejs/dagre'
import type { StepState } from '@pgflow/sdk'
import type { FlowShape } from '@pgflow/sdk/flow'
import { type Edge, Handle, type Node, type NodeProps, Position, ReactFlow } from '@xyflow/react'
import '@xyflow/react/dist/style.css'
import { useMemo } from 'react'
import { StepProgress } from './progress.tsx'
import { Status } from './status.tsx'

type StepNode = Node<{ step: StepState }, 'step'>

const size = { width: 168, height: 92 }

/** Where dagre puts the steps, from left to right. */
function place({ steps }: FlowShape): Map<string, { x: number; y: number }> {
  const graph = new Dagre()
  graph.setGraph({ rankdir: 'LR', nodesep: 24, ranksep: 56 })
  graph.setDefaultEdgeLabel(() => ({}))
  for (const { step_slug } of steps) graph.setNode(step_slug, { ...size })
  for (const { step_slug, deps_slugs } of steps) {
    for (const dep of deps_slugs) graph.setEdge(dep, step_slug)
  }
  layout(graph)
  // dagre gives the middles, and they are wanted by their corners.
  const corner = (slug: string) => {
    const { x, y } = graph.node(slug) as { x: number; y: number }
    return { x: x - size.width / 2, y: y - size.height / 2 }
  }
  return new Map(steps.map(({ step_slug }) => [step_slug, corner(step_slug)]))
}

function Step({ data: { step } }: NodeProps<StepNode>) {
  return (
    <div className="node" data-status={step.status}>
      <Handle type="target" position={Position.Left} />
      <strong>{step.step_slug}</strong>
      <Status status={step.status} />
      <StepProgress step={step} />
      <Handle type="source" position={Position.Right} />
    </div>
  )
}

const nodeTypes = { step: Step }

/** The steps and what they wait for, as they stand. The table of steps says the same in words. */
export function Graph({ shape, steps }: { shape: FlowShape; steps: readonly StepState[] }) {
  const places = useMemo(() => place(shape), [shape])
  const nodes = steps.map(
    (step): StepNode => ({
      id: step.step_slug,
      type: 'step',
      position: places.get(step.step_slug) ?? { x: 0, y: 0 },
      data: { step },
      ...size,
    }),
  )
  const running = new Set(
    steps.filter(({ status }) => status === 'started').map(({ step_slug }) => step_slug),
  )
  const edges = shape.steps.flatMap(({ step_slug, deps_slugs }) =>
    deps_slugs.map(
      (dep): Edge => ({
        id: `${dep}-${step_slug}`,
        source: dep,
        target: step_slug,
        animated: running.has(step_slug),
      }),
    ),
  )
  return (
    <figure className="graph" aria-label="The steps as a graph; the table says the same in words">
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={nodeTypes}
        colorMode="system"
        fitView
        fitViewOptions={{ padding: 0.08, maxZoom: 1 }}
        nodesDraggable={false}
        nodesConnectable={false}
        nodesFocusable={false}
        edgesFocusable={false}
        elementsSelectable={false}
        panOnDrag={false}
        zoomOnScroll={false}
        zoomOnPinch={false}
        zoomOnDoubleClick={false}
        preventScrolling={false}
      />
    </figure>
  )
}
