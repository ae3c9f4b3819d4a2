import type { StepOutputOf } from '@pgflow/sdk/flow'
import type { ReadDocument } from '../flow.ts'

/** The output of the flow, whose type comes from the flow itself. */
export function Report({ report }: { report: StepOutputOf<typeof ReadDocument, 'report'> }) {
  const { title, headings, links, words, longestChapter } = report
  return (
    <section aria-labelledby="report" className="report">
      <h3 id="report">{title ?? 'The report'}</h3>
      <p>
        {words} words under {headings} headings, with {links} links. The longest chapter has {longestChapter}{' '}
        words.
      </p>
    </section>
  )
}
