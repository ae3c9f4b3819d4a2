/** What the page offers to read: files of this repository, and one that is not there, to see a run fail. */
export const documents = {
  'README.md': 'README',
  'ARCHITECTURE.md': 'ARCHITECTURE',
  'CONTRIBUTING.md': 'CONTRIBUTING',
  'MISSING.md': 'A file that is not there',
} as const
