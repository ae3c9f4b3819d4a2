import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ts } from './typescript-5.9.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const file = join(root, 'sdk/src/program.ts')

let program = ''
let version = 0

const service = ts.createLanguageService({
  getScriptFileNames: () => [file],
  getScriptVersion: (name) => (name === file ? String(version) : ''),
  getScriptSnapshot(name) {
    const text = name === file ? program : ts.sys.readFile(name)
    return text === undefined ? undefined : ts.ScriptSnapshot.fromString(text)
  },
  getCompilationSettings: () => options(),
  getCurrentDirectory: () => root,
  getDefaultLibFileName: (settings) => ts.getDefaultLibFilePath(settings),
  fileExists: (name) => name === file || ts.sys.fileExists(name),
  readFile: (name) => ts.sys.readFile(name),
  readDirectory: (...args) => ts.sys.readDirectory(...args),
  directoryExists: (name) => ts.sys.directoryExists(name),
  getDirectories: (name) => ts.sys.getDirectories(name),
})

function options() {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), (name) => ts.sys.readFile(name))
  return ts.convertCompilerOptionsFromJson(config.compilerOptions, root).options
}

/**
 * What an editor offers where the cursor `¦` is in a program, in alphabetical order.
 *
 * @example
 * completionsAt("const a: 'x' | 'y' = '¦'") // ['x', 'y']
 */
export function completionsAt(text: string): string[] {
  program = text.replace('¦', '')
  version++
  const found = service.getCompletionsAtPosition(file, text.indexOf('¦'), undefined)
  return (found?.entries ?? []).map(({ name }) => name).sort()
}
