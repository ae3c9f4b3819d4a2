import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  Application,
  Converter,
  type DeclarationReflection,
  ReferenceType,
  ReflectionKind,
  type SignatureReflection,
  UnknownType,
} from 'typedoc'
import type { PluginOptions } from 'typedoc-plugin-markdown'
import { shortened } from './shorten.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** The entry points, by their pages. */
const entryPoints = {
  client: { name: '@pgflow/sdk', path: 'sdk/src/client/index.ts' },
  flow: { name: '@pgflow/sdk/flow', path: 'sdk/src/flow/index.ts' },
  schedules: { name: '@pgflow/sdk/schedules', path: 'sdk/src/schedules/index.ts' },
  worker: { name: '@pgflow/sdk/worker', path: 'sdk/src/worker/index.ts' },
  react: { name: '@pgflow/sdk/react', path: 'sdk/src/react/index.ts' },
  local: { name: '@pgflow/local', path: 'local/src/index.ts' },
} as const

const markdown: Partial<PluginOptions> = {
  outputFileStrategy: 'modules',
  hidePageHeader: true,
  hideBreadcrumbs: true,
  useCodeBlocks: true,
  expandParameters: true,
  parametersFormat: 'table',
  interfacePropertiesFormat: 'table',
  classPropertiesFormat: 'table',
  typeAliasPropertiesFormat: 'table',
  typeDeclarationFormat: 'table',
  tableColumnSettings: { hideInherited: true, hideModifiers: true, hideSources: true, hideOverrides: true },
}

/**
 * The API reference, made of the comments in the sources: one page for each entry point.
 *
 * @returns the pages by their file names
 */
export async function apiPages(): Promise<Map<string, string>> {
  const folder = await mkdtemp(join(tmpdir(), 'pgflow-api-'))
  try {
    const app = await Application.bootstrapWithPlugins({
      plugin: ['typedoc-plugin-markdown'],
      entryPoints: Object.values(entryPoints).map(({ path }) => join(root, path)),
      tsconfig: join(root, 'docs/generate/tsconfig.json'),
      readme: 'none',
      sort: ['source-order'],
      disableSources: true,
      excludeExternals: true,
      excludeInternal: true,
      excludePrivate: true,
      // The compiler of the repository does that.
      skipErrorChecking: true,
      validation: false,
      logLevel: 'Error',
      outputs: [{ name: 'markdown', path: folder }],
      ...markdown,
    })
    app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
      const members = project.getReflectionsByKind(ReflectionKind.ClassMember) as DeclarationReflection[]
      for (const member of members.filter(isLeftOut)) project.removeReflection(member)
      for (const signature of project.getReflectionsByKind(ReflectionKind.CallSignature)) {
        simplify(signature as SignatureReflection)
      }
      for (const module of project.children ?? []) module.name = pageNameOf(module)
      for (const parameter of project.getReflectionsByKind(ReflectionKind.Parameter)) {
        if (parameter.name === '__namedParameters') parameter.name = 'options'
      }
    })
    const project = await app.convert()
    if (project === undefined) throw new Error('typedoc has failed')
    await app.generateOutputs(project)
    const files = (await readdir(folder)).filter((file) => file !== 'README.md')
    const pages = files.map(
      async (file) => [file, pageOf(file, await readFile(join(folder, file), 'utf8'))] as const,
    )
    return new Map((await Promise.all(pages)).sort())
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** What says nothing that the reader does not find at the base class. */
function isLeftOut(member: DeclarationReflection): boolean {
  const isConstructor = member.kindOf(ReflectionKind.Constructor) && member.overwrites !== undefined
  return member.inheritedFrom?.reflection !== undefined || member.name === '[hasInstance]' || isConstructor
}

/** Types that nobody can read, such as those by which a flow infers its steps, are left out of a signature. */
function simplify(signature: SignatureReflection): void {
  const { parameters = [], type } = signature
  if (parameters.map((parameter) => String(parameter.type)).join().length < 400) return
  delete signature.typeParameters
  for (const parameter of parameters) parameter.type = new UnknownType('…')
  if (type instanceof ReferenceType)
    signature.type = ReferenceType.createBrokenReference(type.name, signature.project, undefined)
}

function pageNameOf({ name }: DeclarationReflection): string {
  const pages = Object.entries(entryPoints)
  return (
    pages.find(
      ([, { path }]) => path.replace('/index.ts', '') === name || path.startsWith(`${name}/`),
    )?.[0] ?? name
  )
}

function pageOf(file: string, text: string): string {
  const { name } = entryPoints[file.replace('.md', '') as keyof typeof entryPoints]
  return `# \`${name}\`\n\n${shortened(text).replaceAll(/\]\((\w+\.md)?#(\w+)-(\d+)\)/g, withOtherTitle)}`

  /** The title of a page is a heading less of that name. */
  function withOtherTitle(link: string, page: string | undefined, anchor: string, number: string): string {
    if ((page ?? file) !== `${anchor}.md`) return link
    return `](${page ?? ''}#${anchor}${number === '1' ? '' : `-${Number(number) - 1}`})`
  }
}
