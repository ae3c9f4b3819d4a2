import { Flow } from '../../flow/index.ts'

/** A flow of one step. */
export const Quick = new Flow<number>({ slug: 'quick', startRole: 'authenticated' }).step(
  'only',
  ({ run }) => run,
)
