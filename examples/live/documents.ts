/** The documents that the page offers: files of this repository. */
export const documents = {
  'README.md': 'README',
  'ARCHITECTURE.md': 'ARCHITECTURE',
  'CONTRIBUTING.md': 'CONTRIBUTING',
} as const
