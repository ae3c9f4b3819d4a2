import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { pack, packages } from '../../../scripts/pack.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../../', import.meta.url))

/** The names of this repository's packages that are published. */
export const packageNames = Object.values(packages)

export type PackageName = (typeof packageNames)[number]

export interface Manifest {
  readonly version: string
  readonly bin?: Readonly<Record<string, string>>
  readonly exports: Readonly<Record<string, Readonly<Record<string, string>>>>
  readonly dependencies: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
  readonly peerDependenciesMeta?: Readonly<Record<string, { readonly optional: boolean }>>
}

/** Projects outside the repository, which know its packages only as npm packs them. */
export class PackedPackages implements AsyncDisposable {
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async pack(): Promise<PackedPackages> {
    const folder = await mkdtemp(join(tmpdir(), 'pgflow-packages-'))
    await pack(folder)
    return new PackedPackages(folder)
  }

  /** The path of a package's file. */
  tarballOf(packageName: PackageName): string {
    return join(this.#folder, `${packageName.slice(1).replace('/', '-')}.tgz`)
  }

  /** A new project with the packages, what they need, and what else it asks for. */
  async project(name: string, others: readonly string[] = []): Promise<Project> {
    const project = new Project(join(this.#folder, name))
    for (const packageName of packageNames) {
      const target = project.pathOf(packageName)
      await mkdir(target, { recursive: true })
      await run('tar', ['-xzf', this.tarballOf(packageName), '--strip-components=1', '-C', target])
      const manifest = await project.manifestOf(packageName)
      for (const needed of neededBy(manifest)) await project.link(needed)
      for (const [bin, path] of Object.entries(manifest.bin ?? {})) {
        await chmod(join(target, path), 0o755) // as npm does
        await linkTo(join(target, path), project.pathOf(`.bin/${bin}`))
      }
    }
    for (const other of others) await project.link(other)
    await project.write({ 'package.json': JSON.stringify({ private: true, type: 'module' }) })
    return project
  }

  [Symbol.asyncDispose](): Promise<void> {
    return rm(this.#folder, { recursive: true })
  }
}

export class Project {
  readonly folder: string

  constructor(folder: string) {
    this.folder = folder
  }

  /** The folder of one of its packages. */
  pathOf(packageName: string): string {
    return join(this.folder, 'node_modules', packageName)
  }

  async manifestOf(packageName: string): Promise<Manifest> {
    return JSON.parse(await readFile(join(this.pathOf(packageName), 'package.json'), 'utf8'))
  }

  /** Adds a package that is installed in the repository. */
  async link(packageName: string): Promise<void> {
    await linkTo(join(root, 'node_modules', packageName), this.pathOf(packageName))
  }

  async write(files: Readonly<Record<string, string>>): Promise<void> {
    for (const [name, text] of Object.entries(files)) await writeFile(join(this.folder, name), text)
  }

  /** @returns what the command writes to its standard output */
  async run(command: string, ...args: readonly string[]): Promise<string> {
    const { stdout } = await run(command, args, { cwd: this.folder })
    return stdout
  }

  /** What a program prints, without the last line's end, in plain Node. */
  async node(program: string, ...options: readonly string[]): Promise<string> {
    return (await this.run(process.execPath, ...options, '--input-type=module', '--eval', program)).trimEnd()
  }
}

function neededBy({ dependencies, peerDependencies, peerDependenciesMeta }: Manifest): string[] {
  const peers = Object.keys(peerDependencies ?? {}).filter((name) => !peerDependenciesMeta?.[name]?.optional)
  return [...Object.keys(dependencies), ...peers]
}

/** Both packages may need the same one. */
async function linkTo(target: string, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await rm(path, { force: true })
  await symlink(target, path)
}
