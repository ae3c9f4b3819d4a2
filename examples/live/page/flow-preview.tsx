import { useState } from 'react'
import { FlowSource } from './flow-source.tsx'
import { Graph } from './graph.tsx'
import { readDocument } from './shape.ts'

/** The flow, before a run is shown. */
export function FlowPreview() {
  const [selected, select] = useState<string | null>(null)
  const toggle = (slug: string) => select(slug === selected ? null : slug)
  return (
    <article aria-labelledby="flow">
      <div className="card">
        <h2 id="flow">
          <code>read_document</code>
        </h2>
        <p className="quiet">
          This flow reads a document of the repository and looks at it from several sides at once. Start a
          run, or choose one of yours.
        </p>
      </div>
      <div className="panels">
        <section className="card" aria-labelledby="graph">
          <h3 id="graph">Graph</h3>
          <Graph shape={readDocument} selected={selected} onSelect={toggle} />
        </section>
        <section className="card" aria-labelledby="code">
          <h3 id="code">Code</h3>
          <FlowSource selected={selected} />
        </section>
      </div>
    </article>
  )
}
