import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

function read(path: string): string {
  return readFileSync(fileURLToPath(new URL(path, import.meta.url)), 'utf8')
}

describe('docs/worker.md', () => {
  it('has every setting with its default', () => {
    const source = read('./options.ts')
    const settings = source.slice(source.indexOf('interface WorkerSettings'))
    const documented = [...settings.matchAll(/@default ([^*]+?)\s*\*\/\s+readonly (\w+)\?:/g)]
    const defaults = documented.map(([, value, name]) => [name, value])
    const rows = read('../../../docs/worker.md').matchAll(
      /^\| `(\w+)` \| ([^|]*) \| `?([^|`]+)`? \| .+ \|$/gm,
    )
    const table = Object.fromEntries([...rows].map(([, name, , value]) => [name, value]))
    expect(defaults).toHaveLength(12)
    for (const [name, value] of defaults) expect([name, table[name!]]).toEqual([name, value])
    expect(Object.keys(table)).toEqual([
      'flows',
      ...defaults.map(([name]) => name),
      'signal',
      'resources',
      'webhooks',
      'onStopped', // of stopOnSignals
      'closeTimeout',
    ])
  })
})
