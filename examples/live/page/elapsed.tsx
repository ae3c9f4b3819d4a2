import { useEffect, useState } from 'react'

interface ElapsedProps {
  /** ISO strings; without an end, the time goes on. */
  from: string
  to: string | null
}

/** A time that runs until it has an end. */
export function Elapsed({ from, to }: ElapsedProps) {
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    if (to !== null) return
    const timer = setInterval(() => setNow(Date.now()), 100)
    return () => clearInterval(timer)
  }, [to])
  const milliseconds = (to === null ? now : Date.parse(to)) - Date.parse(from)
  return <time className="elapsed">{(Math.max(0, milliseconds) / 1000).toFixed(to === null ? 1 : 2)} s</time>
}
