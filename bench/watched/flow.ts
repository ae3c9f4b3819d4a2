import { Flow } from '@pgflow/sdk/flow'

export const Watched = new Flow<number>({ slug: 'watched', startRole: 'authenticated' })
  .step('a', ({ run }) => run)
  .step('b', ['a'], ({ a }) => a)
  .step('c', ['b'], ({ b }) => b)
