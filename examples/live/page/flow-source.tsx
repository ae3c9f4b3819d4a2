import type { StepState } from '@pgflow/sdk'
import { useEffect, useLayoutEffect, useRef } from 'react'
import source from '../flow.ts?raw'
import { linesOf, Tokens } from './highlight.tsx'
import { stepOfLines } from './source-steps.ts'

const lines = linesOf(source.trimEnd(), 'typescript')
const stepOf = stepOfLines(source)
const firstLine = lines.findIndex(({ value }) => value.startsWith('export const '))

interface FlowSourceProps {
  /** Of a run: the lines of a step have the colour of its status. */
  steps?: readonly StepState[]
  selected: string | null
}

/** The code of the flow, as the worker runs it. It scrolls to the selected step. */
export function FlowSource({ steps, selected }: FlowSourceProps) {
  const scroller = useRef<HTMLElement>(null)
  // What is above the flow are its imports and types.
  useLayoutEffect(() => scrollTo(scroller.current, '[data-first]', 'instant'), [])
  useEffect(() => {
    if (selected === null) return
    scrollTo(scroller.current, '[data-selected]', 'auto')
  }, [selected])
  const statuses = new Map(steps?.map(({ step_slug, status }) => [step_slug, status]))
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: the keyboard scrolls it
    <section className="code source" aria-label="Code of the flow" tabIndex={0} ref={scroller}>
      <pre>
        {lines.map((line) => {
          const step = stepOf[line.index]
          return (
            <span
              key={line.index}
              className="line"
              data-status={step && statuses.get(step)}
              data-first={line.index === firstLine - 1 || undefined}
              data-selected={(step !== undefined && step === selected) || undefined}
            >
              <Tokens line={line} />
              {'\n'}
            </span>
          )
        })}
      </pre>
    </section>
  )
}

function scrollTo(scroller: HTMLElement | null, target: string, behavior: ScrollBehavior): void {
  const line = scroller?.querySelector<HTMLElement>(target)
  if (line) scroller?.scrollTo({ top: line.offsetTop - 20, behavior })
}
