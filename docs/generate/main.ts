import { mkdir, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { apiPages } from './api.ts'

const folder = fileURLToPath(new URL('../api/', import.meta.url))

const pages = await apiPages()
await rm(folder, { recursive: true, force: true })
await mkdir(folder)
for (const [name, text] of pages) await writeFile(folder + name, text)
