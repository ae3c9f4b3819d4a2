import type { StepOutputOf } from '@pgflow/sdk/flow'
import type { ReadDocument } from '../flow.ts'

/** The output of the flow, whose type comes from the flow itself. */
export function Report({ report }: { report: StepOutputOf<typeof ReadDocument, 'publish'> }) {
  const { title, headings, links, words, longestChapter } = report
  return (
    <section aria-labelledby="report" className="report">
      <h3 id="report">{title ?? 'Report'}</h3>
      <dl>
        <Figure name="words" value={words} />
        <Figure name="headings" value={headings} />
        <Figure name="links" value={links} />
        {longestChapter && <Figure name="longest chapter" value={longestChapter} />}
      </dl>
    </section>
  )
}

function Figure({ name, value }: { name: string; value: string | number }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{typeof value === 'number' ? value.toLocaleString('en') : value}</dd>
    </div>
  )
}
