import { Flow } from '@pgflow/sdk/flow'

/** Yours go here; a flow that the app names too lives best in `../_shared`. */
const Greet = new Flow<{ name: string }>({ slug: 'greet' })
  .step('greeting', ({ run }) => `Hello ${run.name}`)
  .step('shout', ['greeting'], ({ greeting }) => greeting.toUpperCase())

export const flows = [Greet]
