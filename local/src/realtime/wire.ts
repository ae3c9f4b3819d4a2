import { WebSocket } from 'ws'

/** A WebSocket that can keep back what it sends, or lose what it sends and receives. */
export class Wire extends WebSocket {
  #held: (() => void)[] | undefined
  #isCut = false
  /** Closes the socket as soon as the other side can be told. */
  #close: (() => void) | undefined

  get isHolding(): boolean {
    return this.#held !== undefined
  }

  /** What is sent from now on waits. */
  hold(): void {
    this.#held ??= []
  }

  /** Sends what `answer` sends, and then what has waited. */
  release(answer: () => void): void {
    const held = this.#held ?? []
    this.#held = undefined
    answer()
    for (const write of held) this.#write(write)
  }

  get isCut(): boolean {
    return this.#isCut
  }

  set isCut(value: boolean) {
    this.#isCut = value
    if (!value) this.#close?.()
  }

  override send(data: string | Buffer): void {
    this.#write(() => super.send(data, () => {}))
  }

  override pong(data: Buffer): void {
    this.#write(() => super.pong(data, false, () => {}))
  }

  /** Also called by the library to answer a close of the other side. */
  override close(code?: number, reason?: string | Buffer): void {
    const close = () => super.close(code, reason)
    if (this.#isCut) this.#close ??= close
    else close()
  }

  #write(write: () => void): void {
    if (this.#isCut) return
    if (this.#held) this.#held.push(write)
    else write()
  }
}
