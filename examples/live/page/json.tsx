import { useMemo } from 'react'
import { linesOf, Tokens } from './highlight.tsx'

/** A value as formatted JSON. It scrolls, so the keyboard can reach it. */
export function JsonView({ label, value }: { label: string; value: unknown }) {
  const lines = useMemo(() => linesOf(JSON.stringify(value, null, 2), 'json'), [value])
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: the keyboard scrolls it
    <section className="code json" aria-label={label} tabIndex={0}>
      <pre>
        {lines.map((line) => (
          <span key={line.index} className="line">
            <Tokens line={line} />
            {'\n'}
          </span>
        ))}
      </pre>
    </section>
  )
}
