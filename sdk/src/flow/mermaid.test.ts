import { describe, expect, it } from 'vitest'
import { Flow, toMermaid } from './index.ts'

const Crawl = new Flow<{ urls: string[]; deep: boolean }>({ slug: 'crawl' })
  .map({ slug: 'pages', items: 'run.urls' }, (url) => url)
  .step({ slug: 'links', dependsOn: ['pages'], runIf: { run: { deep: true } }, whenUnmet: 'skip' }, () => 1)
  .step('end', ['pages', 'links'], () => 1)

describe('the picture of a flow', () => {
  it('has its steps and deps', () => {
    expect(toMermaid(Crawl)).toMatchInlineSnapshot(`
      "flowchart LR
        s_pages[["pages"]]
        s_links["links"]
        s_end["end"]
        s_pages --> s_links
        s_pages --> s_end
        s_links --> s_end
        classDef conditional stroke-dasharray:4
        class s_links conditional
      "
    `)
  })

  it('tells a step that waits for a slot from one that runs, or has ended', () => {
    const step = { step_slug: 'end', status: 'started', waits_for: 'slot' }
    const pages = { step_slug: 'pages', status: 'started', waits_for: null }
    const lines = toMermaid(Crawl, { steps: [step, pages] }).split('\n')
    expect(lines.filter((line) => line.startsWith('  class s_'))).toEqual([
      '  class s_links conditional',
      '  class s_pages started',
      '  class s_end limited',
    ])
    expect(toMermaid(Crawl, { steps: [{ ...step, status: 'cancelled' }] })).toContain('class s_end cancelled')
  })

  it('has the colours of a run', () => {
    const run = {
      steps: [
        { step_slug: 'pages', status: 'completed' },
        { step_slug: 'links', status: 'skipped' },
        { step_slug: 'end', status: 'started' },
        { step_slug: 'of_another_version', status: 'started' },
      ],
    }
    const lines = toMermaid(Crawl, run).slice(toMermaid(Crawl).length)
    expect(lines).toMatchInlineSnapshot(`
      "  classDef started fill:#dbeafe,stroke:#2563eb,color:#172554
        class s_end started
        classDef completed fill:#dcfce7,stroke:#16a34a,color:#052e16
        class s_pages completed
        classDef skipped fill:#fef9c3,stroke:#ca8a04,color:#422006
        class s_links skipped
      "
    `)
  })
})
