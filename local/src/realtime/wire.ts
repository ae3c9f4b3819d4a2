import { WebSocket } from 'ws'

/** A WebSocket that can keep back what it sends. */
export class Wire extends WebSocket {
  #held: (() => void)[] | undefined

  /** What is sent from now on waits. */
  hold(): void {
    this.#held ??= []
  }

  /** Sends what `answer` sends, and then what has waited. */
  release(answer: () => void): void {
    const held = this.#held ?? []
    this.#held = undefined
    answer()
    for (const write of held) write()
  }

  override send(data: string | Buffer): void {
    this.#write(() => super.send(data, () => {}))
  }

  override pong(data: Buffer): void {
    this.#write(() => super.pong(data, false, () => {}))
  }

  #write(write: () => void): void {
    if (this.#held) this.#held.push(write)
    else write()
  }
}
