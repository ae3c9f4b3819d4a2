import { useEffect, useState } from 'react'

interface ElapsedProps {
  /** ISO strings; without an end, the time goes on. */
  from: string
  to: string | null
}

/** A time that runs until it has an end. */
export function Elapsed({ from, to }: ElapsedProps) {
  const now = useNow(to === null)
  return <span className="number">{seconds((to === null ? now : Date.parse(to)) - Date.parse(from))}</span>
}

/** Milliseconds as seconds. */
export function seconds(milliseconds: number): string {
  return `${(Math.max(0, milliseconds) / 1000).toFixed(1)} s`
}

/** The current time, ten times a second while it is needed. */
export function useNow(isNeeded: boolean): number {
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    if (!isNeeded) return
    const timer = setInterval(() => setNow(Date.now()), 100)
    return () => clearInterval(timer)
  }, [isNeeded])
  return now
}
