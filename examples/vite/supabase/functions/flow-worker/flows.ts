import { Flow } from '@pgflow/sdk/flow'

export const AnalyzeText = new Flow({ slug: 'analyze_text', startRole: 'authenticated' })
  .input<{ text: string }>()
  .step('words', ({ run }) => run.text.toLowerCase().match(/\p{L}+/gu) ?? [])
  .step('longest', ['words'], ({ words }) => words.reduce((a, b) => (b.length > a.length ? b : a), ''))
  .step('report', ['words', 'longest'], ({ words, longest }) => ({ words: words.length, longest }))

export const flows = [AnalyzeText]
