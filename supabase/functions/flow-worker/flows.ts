import { Flow } from '@pgflow/sdk/flow'

/**
 * A flow is a graph of steps. Each step gets the outputs of the steps that it names, typed, and returns its own: any JSON.
 * `summary` waits for the other two, which run at the same time.
 *
 * Steps run when a user of your app starts the flow:
 *   const run = await client.startFlow<typeof SummarizeText>('summarize_text', { text: '…' })
 */
export const SummarizeText = new Flow({ slug: 'summarize_text', startRole: 'authenticated' })
  .input<{ text: string }>()
  .step('words', ({ run }) => run.text.match(/\p{L}+/gu)?.length ?? 0)
  .step('first_sentence', ({ run }) => run.text.split(/(?<=[.!?])\s/)[0] ?? '')
  .step('summary', ['words', 'first_sentence'], ({ words, first_sentence }) => ({ words, first_sentence }))

/** What the worker runs: add your flows here. */
export const flows = [SummarizeText]
