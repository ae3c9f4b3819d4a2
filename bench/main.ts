/**
 * Runs scenarios, each with all its contenders in turn, or a script of this folder.
 *
 *   npm run bench                            all scenarios that are not slow
 *   npm run bench throughput starts          some of them
 *   npm run bench maps                       a script
 *   npm run bench -- --help                  options
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { loadContenders } from './contenders/index.ts'
import { lowerThan, ratiosOf, readBaseline, writeBaseline } from './lib/baseline.ts'
import { chartOf } from './lib/chart.ts'
import { folder } from './lib/report.ts'
import { scenarios } from './scenarios/index.ts'

const HELP = `npm run bench [scenario …] -- [options]

  --rounds n          rounds after the one that warms up
  --runs n            runs in a round
  --size n            of growth, how many finished runs and tasks
  --contenders text   only contenders whose name contains one of the texts, separated by commas
  --compare           says which ratio is lower than in baseline.json by more than the noise; changes no file
  --baseline          writes baseline.json

Scenarios:
${Object.entries(scenarios)
  .map(([name, { about, isSlow }]) => `  ${name.padEnd(14)}${about}${isSlow ? ' (only when named)' : ''}`)
  .join('\n')}`

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string' },
    runs: { type: 'string' },
    size: { type: 'string' },
    contenders: { type: 'string' },
    compare: { type: 'boolean', default: false },
    baseline: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

async function main(): Promise<void> {
  if (options.help) return console.log(HELP)
  const [first] = positionals
  if (first && !scenarios[first]) return runScript(first)
  const names =
    positionals.length > 0 ? positionals : Object.keys(scenarios).filter((name) => !scenarios[name]?.isSlow)
  const lower: string[] = []
  for (const name of names) lower.push(...(await runScenario(name)))
  if (!options.compare) return
  console.log(
    lower.length === 0 ? '\nNothing is lower than baseline.json says.' : `\nLower than baseline.json says:`,
  )
  for (const line of lower) console.log(`- ${line}`)
  process.exitCode = lower.length === 0 ? 0 : 1
}

async function runScript(name: string): Promise<void> {
  const url = new URL(`./${name}.ts`, import.meta.url)
  if (!existsSync(url)) throw new Error(`There is no ${name}.\n\n${HELP}`)
  await import(url.href)
}

/** Prints and keeps what a scenario finds; answers with what is lower than in the baseline. */
async function runScenario(name: string): Promise<string[]> {
  const scenario = scenarios[name]
  if (!scenario) throw new Error(`There is no scenario ${name}.\n\n${HELP}`)
  const wanted = options.contenders?.split(',')
  const contenders = (await loadContenders()).filter(
    (one) => (scenario.fits?.(one) ?? true) && (wanted?.some((text) => one.name.includes(text)) ?? true),
  )
  const reports = await scenario.measure(contenders, {
    ...(options.rounds && { rounds: Number(options.rounds) }),
    ...(options.runs && { runs: Number(options.runs) }),
    ...(options.size && { size: Number(options.size) }),
  })
  const lower: string[] = []
  for (const report of reports) {
    console.log(`\n### ${report.scenario}\n\n${report.setup}\n\n${report.table()}`)
    const baseline = readBaseline()
    const ratios = ratiosOf(report)
    lower.push(
      ...lowerThan(baseline[report.scenario] ?? {}, ratios).map((line) => `${report.scenario}, ${line}`),
    )
    if (options.compare) continue
    // Part of the contenders is for looking at; what is kept has them all.
    if (wanted) continue
    report.save()
    if (report.chart) {
      mkdirSync(folder, { recursive: true })
      writeFileSync(
        `${folder}${report.scenario}.svg`,
        chartOf(report, report.chart.figure, report.chart.title),
      )
    }
    if (options.baseline) writeBaseline({ ...baseline, [report.scenario]: ratios })
  }
  return lower
}

await main()
