import { createRequire } from 'node:module'
import { basename, dirname } from 'node:path'
import type { CompletedConfig, SubTypeFormatter } from 'ts-json-schema-generator'
import type { Json } from '../flow/json-types.ts'
import { CommandError } from './command.ts'

type Module = typeof import('ts-json-schema-generator')
type Program = Parameters<Module['createParser']>[0]
type SourceFile = NonNullable<ReturnType<Program['getSourceFile']>>
type Host = { getSourceFile(name: string, ...rest: unknown[]): SourceFile | undefined }

/** What is used of TypeScript's API. The generator brings a TypeScript of its own, whatever the project has. */
interface TypeScript {
  readonly sys: { fileExists(path: string): boolean; readFile(path: string): string | undefined }
  readonly TypeFormatFlags: { readonly NoTruncation: number; readonly InTypeAlias: number }
  findConfigFile(folder: string, exists: (path: string) => boolean): string | undefined
  readConfigFile(path: string, read: unknown): { config?: unknown }
  parseJsonConfigFileContent(config: unknown, sys: unknown, folder: string): { options: object }
  createCompilerHost(options: object, setParents: boolean): Host
  createSourceFile(name: string, text: string, target: unknown, setParents: boolean): SourceFile
  createProgram(files: readonly string[], options: object, host: Host, old?: Program): Program
}

export interface Generator {
  readonly module: Module
  readonly ts: TypeScript
}

/** `undefined` where it is not installed. */
export async function loadGenerator(): Promise<Generator | undefined> {
  try {
    const module = await import('ts-json-schema-generator')
    const path = createRequire(import.meta.url).resolve('ts-json-schema-generator')
    return { module, ts: createRequire(path)('typescript') }
  } catch {
    return undefined
  }
}

/**
 * The JSON Schemas of types that are written as if they stood in the file, `undefined` for those that allow anything.
 * The compiler works the types out first, since the generator reads declarations only.
 *
 * @throws CommandError if a type cannot be a JSON Schema
 */
export function schemasOf(
  { module, ts }: Generator,
  file: string,
  types: readonly string[],
): (Json | undefined)[] {
  const options = optionsFor(ts, file)
  const imports = `
    import type { InputOf as PgflowInputOf, Json as PgflowJson, StepInputOf as PgflowStepInputOf } from '@pgflow/sdk/flow'
    import type * as PgflowSelf from './${basename(file)}'`
  const first = programWith(ts, options, file, imports, types)
  const worked = workedOut(ts, first, file, types.length)
  const program = programWith(ts, options, file, 'type PgflowJson = unknown', worked, first)
  const config: CompletedConfig = {
    ...module.DEFAULT_CONFIG,
    expose: 'none',
    topRef: false,
    additionalProperties: true,
  }
  const generator = new module.SchemaGenerator(
    program,
    module.createParser(program, config),
    module.createFormatter(config, (chain, whole) => chain.addTypeFormatter(mixedUnions(module, whole))),
    config,
  )
  return types.map((type, index) => {
    try {
      return tidied(generator.createSchema(nameOf(index)) as Json)
    } catch (cause) {
      throw new CommandError(
        `${type.replaceAll('Pgflow', '').replace('Self.', '')} cannot be a JSON Schema: ${(cause as Error).message}\nIt is ${worked[index]}. Give the flow or step a schema as its input, or use --no-schemas.`,
        { cause },
      )
    }
  })
}

/** `string | 1 | null`: of such unions the generator itself would lose the string. */
function mixedUnions(
  { LiteralType, StringType, UnionType }: Module,
  whole: SubTypeFormatter,
): SubTypeFormatter {
  const isString = (type: unknown) => type instanceof StringType
  const isOtherLiteral = (type: unknown) => type instanceof LiteralType && !type.isString()
  return {
    supportsType(type) {
      const types = type instanceof UnionType ? type.getFlattenedTypes() : []
      return types.some(isString) && types.some(isOtherLiteral)
    },
    getDefinition(type) {
      const types = (type as InstanceType<typeof UnionType>).getFlattenedTypes() // supported
      const others = new UnionType(types.filter((one) => !isString(one)))
      return { anyOf: [{ type: 'string' }, whole.getDefinition(others)] }
    },
    getChildren(type) {
      const types = (type as InstanceType<typeof UnionType>).getFlattenedTypes() // supported
      return types.flatMap((one) => whole.getChildren(one))
    },
  }
}

function optionsFor(ts: TypeScript, file: string): object {
  const config = ts.findConfigFile(dirname(file), ts.sys.fileExists)
  if (config === undefined) {
    return {
      strict: true,
      module: 199,
      moduleResolution: 99,
      target: 99,
      allowImportingTsExtensions: true,
      noEmit: true,
    } // NodeNext, ESNext
  }
  const { options } = ts.parseJsonConfigFileContent(
    ts.readConfigFile(config, ts.sys.readFile).config,
    ts.sys,
    dirname(config),
  )
  return { ...options, noEmit: true }
}

/** The program of a file to which type aliases are added, in memory. */
function programWith(
  ts: TypeScript,
  options: object,
  file: string,
  head: string,
  types: readonly string[],
  old?: Program,
): Program {
  const aliases = types.map((type, index) => `export type ${nameOf(index)} = ${type}`)
  const text = [ts.sys.readFile(file), head, ...aliases].join('\n')
  const host = ts.createCompilerHost(options, true)
  const getSourceFile = host.getSourceFile.bind(host)
  host.getSourceFile = (name, ...rest) =>
    name === file ? ts.createSourceFile(name, text, rest[0], true) : getSourceFile(name, ...rest)
  return ts.createProgram([file], options, host, old)
}

/** The types as the compiler writes them, without what only it could follow. */
function workedOut(ts: TypeScript, program: Program, file: string, count: number): string[] {
  const checker = program.getTypeChecker()
  const source = program.getSourceFile(file)!
  const symbols = checker.getExportsOfModule(checker.getSymbolAtLocation(source)!)
  const { NoTruncation, InTypeAlias } = ts.TypeFormatFlags
  return Array.from({ length: count }, (_, index) => {
    const symbol = symbols.find(({ name }) => name === nameOf(index))!
    return checker.typeToString(checker.getDeclaredTypeOfSymbol(symbol), source, NoTruncation | InTypeAlias)
  })
}

function nameOf(index: number): string {
  return `PgflowType${index}`
}

/** Names of definitions come from paths and positions: here from their order, so that they are the same everywhere. */
function tidied(schema: Json): Json | undefined {
  const names = new Map<string, string>()
  const text = JSON.stringify(schema).replaceAll(/"#\/definitions\/([^"]+)"/g, (_, name: string) => {
    const decoded = decodeURIComponent(name)
    if (!names.has(decoded)) names.set(decoded, `type_${names.size + 1}`)
    return `"#/definitions/${names.get(decoded)}"`
  })
  const { definitions = {}, ...rest } = JSON.parse(text) as { readonly [key: string]: Json }
  if (Object.keys(rest).every((key) => key === '$schema')) return undefined
  const used = Object.entries(definitions as { readonly [name: string]: Json }).flatMap(
    ([name, definition]) => {
      const tidy = names.get(name)
      return tidy === undefined ? [] : [[tidy, definition] as const]
    },
  )
  return used.length === 0 ? rest : { ...rest, definitions: Object.fromEntries(used.sort()) }
}
