const BUCKET_MS = 5_000
const BUCKETS = 12

/** An average over the last minute: an idle project may burst to sixty times the limit. */
export class RateLimit {
  #counts: { bucket: number; count: number }[] = []

  /** Counts `count` events unless the average is above `perSecond` already. */
  admits(count: number, perSecond: number, nowMs = Date.now()): boolean {
    const bucket = Math.floor(nowMs / BUCKET_MS)
    this.#counts = this.#counts.filter((entry) => entry.bucket > bucket - BUCKETS)
    const total = this.#counts.reduce((sum, entry) => sum + entry.count, 0)
    if (total > (perSecond * BUCKETS * BUCKET_MS) / 1000) return false
    const current = this.#counts.find((entry) => entry.bucket === bucket)
    if (current) current.count += count
    else this.#counts.push({ bucket, count })
    return true
  }
}
