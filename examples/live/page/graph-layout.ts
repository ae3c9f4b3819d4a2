import { Graph, layout } from '@dagrejs/dagre'
import type { FlowShape } from '@pgflow/sdk/flow'

export interface Point {
  x: number
  y: number
}

export interface PlacedStep extends Point {
  slug: string
}

export interface PlacedDep {
  from: string
  to: string
  /** As the `d` of an SVG path. */
  path: string
}

export interface GraphLayout {
  width: number
  height: number
  /** Row by row, in the order in which the keyboard reaches them. */
  steps: PlacedStep[]
  deps: PlacedDep[]
}

export interface NodeSize {
  width: number
  height: number
  /** Between nodes side by side. */
  gap: number
}

/** Where the steps are drawn, from top to bottom, by the corners of their boxes. */
export function layoutOf({ steps }: FlowShape, { width, height, gap }: NodeSize): GraphLayout {
  const graph = new Graph()
  graph.setGraph({ rankdir: 'TB', nodesep: gap, edgesep: 10, ranksep: 40 })
  graph.setDefaultEdgeLabel(() => ({}))
  for (const { step_slug } of steps) graph.setNode(step_slug, { width, height })
  for (const { step_slug, deps_slugs } of steps) {
    for (const dep of deps_slugs) graph.setEdge(dep, step_slug)
  }
  layout(graph)
  const { width: totalWidth, height: totalHeight } = graph.graph() as NodeSize
  const centerOf = (slug: string) => graph.node(slug) as Point
  const rows = new Set(steps.map(({ step_slug }) => centerOf(step_slug).y))

  function pathOf(from: string, to: string): string {
    const start = centerOf(from)
    const end = centerOf(to)
    const { points } = graph.edge({ v: from, w: to }) as { points: Point[] }
    // Where the line passes between the nodes of a row.
    const passes = points.filter(({ y }) => rows.has(y))
    return curve([{ x: start.x, y: start.y + height / 2 }, ...passes, { x: end.x, y: end.y - height / 2 }])
  }

  return {
    width: totalWidth,
    height: totalHeight,
    steps: steps
      .map(({ step_slug: slug }) => {
        const { x, y } = centerOf(slug)
        return { slug, x: x - width / 2, y: y - height / 2 }
      })
      .sort((a, b) => a.y - b.y || a.x - b.x),
    deps: steps.flatMap(({ step_slug: to, deps_slugs }) =>
      deps_slugs.map((from) => ({ from, to, path: pathOf(from, to) })),
    ),
  }
}

/** A curve through points that leaves and enters each of them vertically. */
function curve(points: Point[]): string {
  return points
    .map(({ x, y }, index) => {
      const before = points[index - 1]
      if (before === undefined) return `M ${x} ${y}`
      const middle = (before.y + y) / 2
      return `C ${before.x} ${middle}, ${x} ${middle}, ${x} ${y}`
    })
    .join(' ')
}
