import type { PgflowClient, PgflowError, Run, StartOptions } from '../client/index.ts'
import type { AnyFlow, InputOf } from '../flow/index.ts'

/** How the latest start went; it is never changed, but replaced. */
export interface StartView {
  readonly pending: boolean
  readonly run: Run | null
  readonly error: PgflowError | null
}

const idle: StartView = { pending: false, run: null, error: null }

/** Starts runs of one flow for one component, as `useSyncExternalStore` expects it. */
export class FlowStarter {
  readonly client: PgflowClient
  readonly flowSlug: string
  #view = idle
  #notify = () => {}
  #userChanges: number
  #starting: Promise<Run | null> | undefined

  constructor(client: PgflowClient, flowSlug: string) {
    this.client = client
    this.flowSlug = flowSlug
    this.#userChanges = client.lives.userChanges
  }

  readonly initial = (): StartView => idle

  readonly view = (): StartView => this.#view

  readonly subscribe = (notify: () => void): (() => void) => {
    this.#notify = notify
    this.#forgetFormerUser()
    return this.client.lives.events.on('userChanged', this.#forgetFormerUser)
  }

  /** One start at a time: a second click gets the promise of the first. */
  readonly start = (input: InputOf<AnyFlow>, options?: StartOptions): Promise<Run | null> => {
    if (this.#starting !== undefined) return this.#starting
    const starting: Promise<Run | null> = this.client.startFlow<AnyFlow>(this.flowSlug, input, options).then(
      (run) => this.#finish(starting, { ...idle, run }),
      // All that a request is rejected with is of this class.
      (error: PgflowError) => this.#finish(starting, { ...idle, error }),
    )
    this.#starting = starting
    this.#show({ ...idle, pending: true })
    return starting
  }

  /** Forgets how the latest start went; one that is pending is not shown. */
  readonly reset = (): void => {
    this.#starting = undefined
    if (this.#view !== idle) this.#show(idle)
  }

  readonly #forgetFormerUser = (): void => {
    const { userChanges } = this.client.lives
    if (this.#userChanges === userChanges) return
    this.#userChanges = userChanges
    this.reset()
  }

  #finish(starting: Promise<Run | null>, view: StartView): Run | null {
    if (this.#starting === starting) {
      this.#starting = undefined
      this.#show(view)
    }
    return view.run
  }

  #show(view: StartView): void {
    this.#view = view
    this.#notify()
  }
}
