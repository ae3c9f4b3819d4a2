import { Flow, type OutputOf } from '@pgflow/sdk/flow'

export const Greet = new Flow<{ name: string }>({ slug: 'greet' })
  .step('greeting', ({ run }) => `Hello ${run.name}`)
  .step('length', ['greeting'], ({ greeting }) => greeting.length)

export type Greeted = OutputOf<typeof Greet>
