/** A statement that ran, as auto_explain reports it. */
export interface Explained {
  'Query Text': string
  Plan: Node
}

interface Node {
  'Node Type': string
  'Relation Name'?: string
  'Index Cond'?: string
  'Recheck Cond'?: string
  'Shared Hit Blocks': number
  'Shared Read Blocks': number
  'Actual Rows': number
  'Actual Loops': number
  Plans?: Node[]
}

/** What one statement did, over all its executions. */
export interface Statement {
  calls: number
  /** Pages that it looked at. */
  pages: number
  /** Rows that it found in tables that grow. */
  rows: number
  /** Where it read a table that grows without an index condition, and more than a few pages a row. */
  scans: Set<string>
}

/** The tables whose size depends on what has run, queues and their archives included. */
const GROWING = /^(runs|step_states|step_tasks|run_events|run_watches|messages_\d.*|[qa]_.*)$/

const FEW_PAGES = 8
/** Holds what is open only; pgmq reads it in its order. */
const QUEUE = /^q_/

/** Groups by the statement's text. */
export function statementsOf(explained: readonly Explained[]): Map<string, Statement> {
  const statements = new Map<string, Statement>()
  for (const { 'Query Text': text, Plan: plan } of explained) {
    const key = text.replace(/\s+/g, ' ').trim()
    const statement = statements.get(key) ?? { calls: 0, pages: 0, rows: 0, scans: new Set() }
    statements.set(key, statement)
    statement.calls += 1
    statement.pages += plan['Shared Hit Blocks'] + plan['Shared Read Blocks']
    for (const node of nodes(plan)) {
      const relation = node['Relation Name']
      const loops = node['Actual Loops']
      if (!relation || !GROWING.test(relation) || !node['Node Type'].endsWith('Scan') || loops === 0) continue
      statement.rows += node['Actual Rows'] * loops
      const pages = node['Shared Hit Blocks'] + node['Shared Read Blocks']
      const isIndexed = node['Index Cond'] !== undefined || node['Recheck Cond'] !== undefined
      if (
        !isIndexed &&
        !QUEUE.test(relation) &&
        pages > FEW_PAGES * Math.max(1, node['Actual Rows'] * loops)
      ) {
        statement.scans.add(`${node['Node Type']} on ${relation}`)
      }
    }
  }
  return statements
}

function* nodes(node: Node): Generator<Node> {
  yield node
  for (const child of node.Plans ?? []) yield* nodes(child)
}
