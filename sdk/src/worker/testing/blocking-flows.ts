import { Flow } from '../../flow/index.ts'

/** A step computes for as many milliseconds, while its neighbour, in slices, needs most of its timeout. */
export function blockingFlow(worker: string) {
  return new Flow<{ block: number }>({ slug: 'blocking', maxAttempts: 1 })
    .step('compute', ({ run }) => {
      const end = performance.now() + run.block
      while (performance.now() < end);
      return worker
    })
    .step({ slug: 'neighbour', timeout: 2 }, async () => {
      for (let slice = 0; slice < 10; slice++) await new Promise((resolve) => setTimeout(resolve, 150))
      return worker
    })
}
