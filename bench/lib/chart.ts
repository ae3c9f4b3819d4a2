import { median } from '../measure.ts'
import type { Report } from './report.ts'

const ROW = 24
const LABELS = 290
const BARS = 380
const WIDTH = LABELS + BARS + 90

/** Bars of one figure, the best first, with a line from the lowest to the highest round. */
export function chartOf(
  { values, figures }: Pick<Report, 'values' | 'figures'>,
  key: string,
  title: string,
): string {
  const rows = Object.entries(values)
    .flatMap(([name, figuresOf]) =>
      figuresOf[key] ? [{ name, found: figuresOf[key], middle: median(figuresOf[key]) }] : [],
    )
    .sort((a, b) => (figures[key]?.better === 'lower' ? a.middle - b.middle : b.middle - a.middle))
  const most = Math.max(...rows.flatMap(({ found }) => found))
  const x = (value: number) => (LABELS + (value / most) * BARS).toFixed(1)
  const height = ROW * (rows.length + 1) + 12
  const bars = rows.map(({ name, found, middle }, index) => {
    const y = ROW * (index + 1) + 8
    const text = middle.toLocaleString('en', { maximumFractionDigits: middle < 100 ? 1 : 0 })
    return `  <text x="${LABELS - 8}" y="${y + 13}" text-anchor="end"${name.startsWith('ours') ? ' class="ours"' : ''}>${escaped(name)}</text>
  <rect x="${LABELS}" y="${y + 2}" width="${(Number(x(middle)) - LABELS).toFixed(1)}" height="${ROW - 8}" rx="2" class="${name.startsWith('ours') ? 'bar own' : 'bar'}"/>
  <path d="M${x(Math.min(...found))} ${y + 10}H${x(Math.max(...found))}" class="range"/>
  <text x="${Number(x(Math.max(...found))) + 8}" y="${y + 13}">${text}</text>`
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">
  <style>
    text { font: 13px system-ui, sans-serif; fill: #57606a }
    .title, .ours { font-weight: 600; fill: #24292f }
    .bar { fill: #afb8c1 }
    .own { fill: #2da06a }
    .range { stroke: #24292f; stroke-width: 1.5; opacity: .6 }
    @media (prefers-color-scheme: dark) {
      text { fill: #9da7b1 }
      .title, .ours { fill: #e6edf3 }
      .bar { fill: #57606a }
      .own { fill: #2da06a }
      .range { stroke: #e6edf3 }
    }
  </style>
  <text x="8" y="18" class="title">${escaped(title)}</text>
${bars.join('\n')}
</svg>
`
}

const escaped = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
