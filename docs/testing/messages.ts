import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './pages.ts'

/** The messages of the errors that the SQL chapters raise, with `…` for what is filled in. */
export function sqlMessages(): string[] {
  return sourcesIn('supabase/migrations', /\.sql$/).flatMap((sql) =>
    [...sql.matchAll(/raise exception using(.*?);\n/gs)].map(([, raised = '']) => {
      const [, text] = /message = (?:format\(\s*)?'((?:[^']|'')*)'/.exec(raised) ?? []
      if (text === undefined) throw new Error(`An error without a message: ${raised}`)
      return text.replaceAll("''", "'").replaceAll(/%[sIL]/g, '…')
    }),
  )
}

/** The messages with which the SDK creates its errors, with `…` for what is filled in. */
export function sdkMessages(): string[] {
  return sdkSources().flatMap((source) =>
    [
      ...source.matchAll(
        /(?:new (?:\w+Error|ConnectionProblem)|\binvalid|\berrorOf)\(\s*(?:'\w+',\s*)?(?:'([^'\n]+)'|"([^"\n]+)"|`((?:[^`]|\\`)+)`)\s*[,)]/g,
      ),
    ]
      .map(
        ([, single, double, template]) =>
          single ?? double ?? template?.replaceAll(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, '…') ?? '',
      )
      .filter((text) => text.includes(' ')),
  )
}

/** The values of `code` that are no SQLSTATEs. */
export function sdkCodes(): string[] {
  const codes = sdkSources().flatMap((source) =>
    [...source.matchAll(/(?:super|new (?:Pgflow|FlowDefinition)Error)\(\s*'(\w+)'/g)].map(
      ([, code]) => code!,
    ),
  )
  return [...new Set(codes)].filter((code) => !code.startsWith('PT'))
}

function sdkSources(): string[] {
  const folders = ['client', 'flow', 'react', 'schedules', 'shared', 'worker']
  return folders.flatMap((name) => sourcesIn(`sdk/src/${name}`, /^(?!.*\.test).*\.tsx?$/))
}

function sourcesIn(folder: string, name: RegExp): string[] {
  const files = readdirSync(join(root, folder)).filter((file) => name.test(file))
  return files.sort().map((file) => readFileSync(join(root, folder, file), 'utf8'))
}
