/** A model behind an API, which is paid by the request. */
export interface Model {
  /** The embeddings of up to 100 texts, in their order; null for a text that has none. */
  embed(texts: readonly string[], signal: AbortSignal): Promise<readonly (number[] | null)[]>
}

/** Stands for a real one: it counts its requests, and the same text always has the same embedding. */
export class FakeModel implements Model {
  requests = 0

  async embed(texts: readonly string[], signal: AbortSignal): Promise<(number[] | null)[]> {
    signal.throwIfAborted()
    this.requests++
    if (texts.length > 100) throw new RangeError(`${texts.length} texts are too many for one request`)
    return texts.map(embeddingOf)
  }
}

/** How often a text has each letter, as a vector of length 1. */
function embeddingOf(text: string): number[] | null {
  const counts = [...'abcdefghijklmnopqrstuvwxyz'].map(
    (letter) => text.toLowerCase().split(letter).length - 1,
  )
  const length = Math.hypot(...counts)
  return length === 0 ? null : counts.map((count) => count / length)
}
