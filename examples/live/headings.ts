import { Flow } from '@pgflow/sdk/flow'
import { headingsOf } from '../quickstart/document.ts'
import type { Resources } from './flow.ts'

/** Finds the headings of a text: a flow of its own, which others can start. */
export const FindHeadings = new Flow({ slug: 'find_headings' })
  .input<string>()
  .resources<Resources>()
  .step('list', async ({ run }, context) => {
    await context.resources.pause(context)
    return headingsOf(run)
  })
