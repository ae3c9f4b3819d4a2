import { describe, expect, it } from 'vitest'
import { largeFlow } from '../testing/large-flow.ts'
import { complaintsAbout, declarationsOf } from '../testing/typescript.ts'

// What the compiler says, word by word: which error it reports of several is seen nowhere else.

/** The compiler's errors for a program, as `line: text`. */
async function errorsOf(program: string): Promise<string[]> {
  const complaints = await complaintsAbout({
    'program.ts': `import { Flow, type OutputOf } from '@pgflow/sdk/flow'\n${program}`,
  })
  return complaints.map(({ line, text }) => `${line - 1}: ${text}`)
}

describe('the compiler', () => {
  it('explains a wrong step in English, on its line', async () => {
    const errors = await errorsOf(`const flow = new Flow<string>({ slug: 'flow' }).step('read', () => 1)
flow.step({ slug: 'a', dependsOn: ['raed'] }, () => 1)
flow.step('a', ['raed'], () => 1)
flow.step({ slug: 'read' }, () => 1)
flow.step('read', () => 1)
flow.step('read', [], () => 1, { timeout: 1 })
flow.step({ slug: 'a-b' }, () => 1)
flow.step('run', () => 1)
flow.step({ slug: 'a', maxAttempt: 1 }, () => 1)
flow.step('a', () => ({ list: [{ n: 1n }] }))
flow.step('a', async () => ({ error: new Error('x') }))
flow.step({ slug: 'a' }, ({ read }) => read)
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "2: Type '"raed"' is not assignable to type '"read"'.",
        "3: Type '"raed"' is not assignable to type '"read" | FlowTypeError<"There is no step 'raed' before this one: define it first, or correct its name">'.",
        "4: Type 'string' is not assignable to type 'FlowTypeError<"The flow already has a step 'read': give this one another slug">'.",
        "5: Argument of type 'string' is not assignable to parameter of type 'FlowTypeError<"The flow already has a step 'read': give this one another slug"> | (Named<FlowTypeError<"The flow already has a step 'read': give this one another slug">, Deps<"read", never>> & StepSettings<{ readonly run?: string; }, { readonly run?: string; }, "skip-cascade", "fail", never, never, ProgressType<never>, "run"> & BatchSettings<never> & EarlyUndoOption<{ slug: string; version: number; input: string; run: string; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"read", never, number, never, false, Json>; }, never, unknown>)'.",
        "6: Argument of type 'string' is not assignable to parameter of type 'FlowTypeError<"The flow already has a step 'read': give this one another slug">'.",
        "7: Type 'string' is not assignable to type 'FlowTypeError<"The slug 'a-b' has a '-': use only letters, digits and underscores">'.",
        "8: Argument of type 'string' is not assignable to parameter of type 'FlowTypeError<"'run' is the name of the run's input: give the step another slug"> | (Named<FlowTypeError<"'run' is the name of the run's input: give the step another slug">, Deps<"read", never>> & StepSettings<{ readonly run?: string; }, { readonly run?: string; }, "skip-cascade", "fail", never, never, ProgressType<never>, "run"> & BatchSettings<never> & EarlyUndoOption<{ slug: string; version: number; input: string; run: string; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"read", never, number, never, false, Json>; }, never, unknown>)'.",
        "9: Object literal may only specify known properties, but 'maxAttempt' does not exist in type 'Named<"a", Deps<"read", never>> & StepSettings<{ readonly run?: string; }, { readonly run?: string; }, "skip-cascade", "fail", never, never, ProgressType<never>, "run"> & BatchSettings<never> & EarlyUndoOption<{ slug: string; version: number; input: string; run: string; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"read", never, number, never, false, Json>; }, never, unknown>'. Did you mean to write 'maxAttempts'?",
        "10: Type 'bigint' is not assignable to type 'bigint & FlowTypeError<"A bigint is not JSON: make it a string">'.",
        "11: Type 'Promise<{ error: Error; }>' is not assignable to type 'Promise<{ error: Error; }> & FlowTypeError<{ error: FlowTypeError<"JSON keeps nothing of an Error: use its message">; }>'.",
        "12: Property 'read' does not exist on type '{ run: string; }'.",
      ]
    `)
  })

  it('explains a wrong limit', async () => {
    const errors =
      await errorsOf(`const flow = new Flow<{ id: string; list: string[]; note?: string }>({ slug: 'flow' })
  .step('toc', () => ({ host: 'a' }))
flow.step({ slug: 'a', limits: [{ by: 'run.ids', running: 1 }] }, () => 1)
flow.step({ slug: 'a', limits: [{ by: 'toc.host', running: 1 }] }, () => 1)
flow.step({ slug: 'a', limits: [{ by: 'run.note', running: 1 }] }, () => 1)
flow.map({ slug: 'a', items: 'run.list', limits: [{ by: 'run.list', running: 1 }] }, () => 1)
flow.map({ slug: 'a', items: 'run.list', tolerate: 1 }, () => 1)
new Flow({ slug: 'f', limits: [{ by: 'run.ids', running: 1 }] }).input<{ id: string }>()
new Flow<{ id: string }>({ slug: 'f', singleton: { key: 'run.ids' } })
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "3: Type 'string' is not assignable to type 'FlowTypeError<"'run' has no 'ids'">'.",
        "4: Type 'string' is not assignable to type 'FlowTypeError<"'toc.host' does not begin with run">'.",
        "5: Type 'string' is not assignable to type 'FlowTypeError<"'run.note' may be missing: a string, number or boolean is needed">'.",
        "6: Type 'string' is not assignable to type 'FlowTypeError<"'run.list' is an object: a string, number or boolean is needed">'.",
        "7: Type 'number' is not assignable to type 'FlowTypeError<"Failed items are tolerated only with whenItemFails: 'collect'">'.",
        "8: The 'this' context of type 'FlowWithoutInput<NewFlow<"f", 1, unknown, Json, Record<never, never>>, never, "run.ids">' is not assignable to method's 'this' of type 'FlowWithoutInput<NewFlow<"f", 1, unknown, Json, Record<never, never>>, never, "run.ids"> & FlowTypeError<"'run' has no 'ids'">'.",
        "9: Type '"run.ids"' is not assignable to type '"run.id"'.",
      ]
    `)
  })

  it('explains a wrong map', async () => {
    const errors =
      await errorsOf(`const flow = new Flow<{ title: string; since?: string[] }>({ slug: 'flow' })
  .step('toc', () => ({ count: 1, urls: ['a'], maybe: Math.random() > 0.5 ? ['a'] : null }))
flow.map({ slug: 'a', items: 'toc.count' }, () => 1)
flow.map({ slug: 'a', items: 'toc' }, () => 1)
flow.map({ slug: 'a', items: 'toc.links' }, () => 1)
flow.map({ slug: 'a', items: 'toc.maybe' }, () => 1)
flow.map({ slug: 'a', items: 'run.since' }, () => 1)
flow.map({ slug: 'a', items: 'tok.urls' }, () => 1)
flow.map({ slug: 'a' }, () => 1)
flow.map({ slug: 'a', dependsOn: ['toc'] }, () => 1)
flow.step('b', () => 1).map({ slug: 'a', dependsOn: ['toc', 'b'] }, () => 1)
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "3: Type 'string' is not assignable to type 'FlowTypeError<"'toc.count' is a number: a map needs an array">'.",
        "4: Type 'string' is not assignable to type 'FlowTypeError<"'toc' is an object: a map needs an array">'.",
        "5: Type 'string' is not assignable to type 'FlowTypeError<"'toc' has no 'links'">'.",
        "6: Type 'string' is not assignable to type 'FlowTypeError<"'toc.maybe' may be null: a map needs an array">'.",
        "7: Type 'string' is not assignable to type 'FlowTypeError<"'run.since' may be missing: a map needs an array">'.",
        "8: Type 'string' is not assignable to type 'FlowTypeError<"There is no step 'tok' before this one: define it first, or correct its name">'.",
        "9: Argument of type '{ slug: "a"; }' is not assignable to parameter of type 'Named<"a", Deps<"toc", never>> & { readonly items?: "run.since" | "toc.maybe" | "toc.urls"; } & { readonly items: "run.since" | "toc.maybe" | "toc.urls" | FlowTypeError<"'run' is an object: a map needs an array">; } & StepSettings<{ readonly run?: { readonly title?: string; readonly since?: readonly string[]; }; }, { readonly run?: { readonly title?: string; readonly since?: readonly string[]; }; }, "skip-cascade", "fail", never, never, ProgressType<never>, "run.title"> & MapSettings<"fail"> & BatchSettings<never> & EarlyUndoItemOption<{ slug: string; version: number; input: { title: string; since?: string[]; }; run: { title: string; since?: string[]; }; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"toc", never, { count: number; urls: string[]; maybe: string[] | null; }, never, false, Json>; }, never, never, unknown>'.",
        "10: Argument of type '{ slug: "a"; dependsOn: "toc"[]; }' is not assignable to parameter of type 'Named<"a", Deps<"toc", "toc">> & { readonly items?: "run.since" | "toc.maybe" | "toc.urls"; } & { readonly items: "run.since" | "toc.maybe" | "toc.urls" | FlowTypeError<"'toc' is an object: a map needs an array">; } & StepSettings<{ readonly run?: { readonly title?: string; readonly since?: readonly string[]; }; readonly toc?: { readonly count?: number; readonly urls?: readonly string[]; readonly maybe?: readonly string[] | null; }; }, { readonly run?: { readonly title?: string; readonly since?: readonly string[]; }; readonly toc?: { readonly count?: number; readonly urls?: readonly string[]; readonly maybe?: readonly string[] | null; }; }, "skip-cascade", "fail", never, never, ProgressType<never>, "run.title" | "toc.count" | "toc.maybe"> & MapSettings<"fail"> & BatchSettings<never> & EarlyUndoItemOption<{ slug: string; version: number; input: { title: string; since?: string[]; }; run: { title: string; since?: string[]; }; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"toc", never, { count: number; urls: string[]; maybe: string[] | null; }, never, false, Json>; }, never, never, unknown>'.",
        "11: Argument of type '{ slug: "a"; dependsOn: ("b" | "toc")[]; }' is not assignable to parameter of type 'Named<"a", Deps<"b" | "toc", "b" | "toc">> & { readonly items?: "run.since" | StepArrayPath<{ slug: string; version: number; input: { title: string; since?: string[]; }; run: { title: string; since?: string[]; }; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"toc", never, { count: number; urls: string[]; maybe: string[] | null; }, never, false, Json> & StepEntry<"b", never, number, never, false, Json>; }>; } & { readonly items: FlowTypeError<"This map has several deps: name the one with the array in items">; } & StepSettings<{ readonly b?: number; readonly run?: { readonly title?: string; readonly since?: readonly string[]; }; readonly toc?: { readonly count?: number; readonly urls?: readonly string[]; readonly maybe?: readonly string[] | null; }; }, { readonly b?: number; readonly run?: { readonly title?: string; readonly since?: readonly string[]; }; readonly toc?: { readonly count?: number; readonly urls?: readonly string[]; readonly maybe?: readonly string[] | null; }; }, "skip-cascade", "fail", never, never, ProgressType<never>, "b" | "run.title" | "toc.count" | "toc.maybe"> & MapSettings<"fail"> & BatchSettings<never> & EarlyUndoItemOption<{ slug: string; version: number; input: { title: string; since?: string[]; }; run: { title: string; since?: string[]; }; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"toc", never, { count: number; urls: string[]; maybe: string[] | null; }, never, false, Json> & StepEntry<"b", never, number, never, false, Json>; }, never, never, unknown>'.",
      ]
    `)
  })

  it('explains a wrong batch', async () => {
    const errors = await errorsOf(`const flow = new Flow<{ urls: string[] }>({ slug: 'flow' })
const batch = { size: 10 }
flow.map({ slug: 'a', items: 'run.urls', batch }, (urls) => urls.length)
flow.map({ slug: 'a', items: 'run.urls', batch }, async (urls) => urls.map(() => 1n))
flow.step({ slug: 'a', batch: { size: 10, wiat: 1 } }, (payloads) => payloads.map(() => 1))
flow.step({ slug: 'a', batch }, (payloads, { attempt }) => payloads.map(() => attempt))
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "3: Type 'number' is not assignable to type 'number & FlowTypeError<"A batch handler returns an array with a result, or an Error, for each payload">'.",
        "4: Type 'Promise<bigint[]>' is not assignable to type 'Promise<bigint[]> & FlowTypeError<readonly FlowTypeError<"A bigint is not JSON: make it a string">[]>'.",
        "5: Object literal may only specify known properties, and 'wiat' does not exist in type 'BatchOptions<10>'.",
        "6: Property 'attempt' does not exist on type 'BatchContext<Record<never, never>, { run: { urls: string[]; }; }, [data?: unknown]>'.",
      ]
    `)
  })

  it('explains a wrong sub-flow', async () => {
    const errors =
      await errorsOf(`const Line = new Flow({ slug: 'line' }).input<{ sku: string; count: number }>().step('a', () => 1)
const flow = new Flow<{ line: { sku: string }; odd: { sku: string; count: string }; maybe?: { sku: string; count: number }; names: string[] }>({ slug: 'f' })
flow.flow({ slug: 'a', flow: Line, input: 'run.line' })
flow.flow({ slug: 'a', flow: Line, input: 'run.odd' })
flow.flow({ slug: 'a', flow: Line, input: 'run.maybe' })
flow.flow({ slug: 'a', flow: Line, input: 'run.names' })
flow.flow({ slug: 'a', flow: Line, input: 'run.none' })
flow.flow({ slug: 'a', flow: Line })
flow.flowMap({ slug: 'a', flow: Line, items: 'run.names' })
flow.flow({ slug: 'a', flow: 'line', input: 'run.line', maxAttempts: 3 })
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "3: Type 'string' is not assignable to type 'FlowTypeError<"In 'run.line', 'count' is missing: the input of the flow 'line' is needed">'.",
        "4: Type 'string' is not assignable to type 'FlowTypeError<"In 'run.odd', 'count' is of another type: the input of the flow 'line' is needed">'.",
        "5: Type 'string' is not assignable to type 'FlowTypeError<"'run.maybe' may be missing: the input of the flow 'line' is needed">'.",
        "6: Type 'string' is not assignable to type 'FlowTypeError<"'run.names' is an array: the input of the flow 'line' is needed">'.",
        "7: Type 'string' is not assignable to type 'FlowTypeError<"'run' has no 'none'">'.",
        "8: Argument of type '{ slug: "a"; flow: Flow<{ slug: "line"; version: 1; input: { sku: string; count: number; }; run: { sku: string; count: number; }; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"a", never, number, never, false, Json>; }>; }' is not assignable to parameter of type 'Named<"a", Deps<never, never>> & ChildOption<Flow<{ slug: "line"; version: 1; input: { sku: string; count: number; }; run: { sku: string; count: number; }; resources: Record<never, never>; steps: Record<never, never> & StepEntry<"a", never, number, never, false, Json>; }>, never> & { readonly input?: "run"; } & { readonly input: FlowTypeError<"In 'run', 'count' is missing: the input of the flow 'line' is needed" | "In 'run', 'sku' is missing: the input of the flow 'line' is needed">; } & Conditional<{ readonly run?: { readonly line?: { readonly sku?: string; }; readonly odd?: { readonly sku?: string; readonly count?: string; }; readonly maybe?: { readonly sku?: string; readonly count?: number; }; readonly names?: readonly string[]; }; }, { readonly run?: { readonly line?: { readonly sku?: string; }; readonly odd?: { readonly sku?: string; readonly count?: string; }; readonly maybe?: { readonly sku?: string; readonly count?: number; }; readonly names?: readonly string[]; }; }, "skip-cascade"> & SubFlowSettings<"fail", "run.line.sku" | "run.maybe.count" | "run.maybe.sku" | "run.odd.count" | "run.odd.sku">'.",
        "9: Type '"run.names"' is not assignable to type '"run.names" & FlowTypeError<"an item of 'run.names' is a string: the input of the flow 'line' is needed">'.",
        "10: Object literal may only specify known properties, and 'maxAttempts' does not exist in type 'Named<"a", Deps<never, never>> & ChildOption<"line", never> & { readonly input?: "run.line"; } & Conditional<{ readonly run?: { readonly line?: { readonly sku?: string; }; readonly odd?: { readonly sku?: string; readonly count?: string; }; readonly maybe?: { readonly sku?: string; readonly count?: number; }; readonly names?: readonly string[]; }; }, { readonly run?: { readonly line?: { readonly sku?: string; }; readonly odd?: { readonly sku?: string; readonly count?: string; }; readonly maybe?: { readonly sku?: string; readonly count?: number; }; readonly names?: readonly string[]; }; }, "skip-cascade"> & SubFlowSettings<"fail", "run.line.sku" | "run.maybe.count" | "run.maybe.sku" | "run.odd.count" | "run.odd.sku">'.",
      ]
    `)
  })

  it('explains an impossible condition', async () => {
    const errors =
      await errorsOf(`const flow = new Flow<{ kind: 'a' | 'b'; tags: string[]; size: { cm: 1 } | { in: 2 } }>({ slug: 'flow' })
  .step('check', () => ({ ok: true }))
flow.step({ slug: 's', runIf: { run: { kind: 'c' } } }, () => 1)
flow.step({ slug: 's', runIf: { run: { king: 'a' } } }, () => 1)
flow.step({ slug: 's', runUnless: { run: { tags: [1] } } }, () => 1)
flow.step({ slug: 's', runIf: { run: { size: { cm: 1, in: 2 } } } }, () => 1)
flow.step({ slug: 's', runIf: { check: { ok: true } } }, () => 1)
flow.step('s', ['check'], () => 1, { runIf: { check: { ok: 1 } } })
flow.step('s', ['check'], () => 1, { runIf: { check: { ok: { deep: 1 } } } })
flow.step({ slug: 's', runIf: ['run'] }, () => 1)
flow.step({ slug: 's', whenUnmet: 'stop' }, () => 1)
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "3: Type 'string' is not assignable to type 'FlowTypeError<"'run.kind' is never \\"c\\"">'.",
        "4: Type 'string' is not assignable to type 'FlowTypeError<"The step's input never has 'run.king'">'.",
        "5: Property ''~error'' is missing in type 'number[]' but required in type 'FlowTypeError<"'run.tags' never contains this array">'.",
        "6: Object literal may only specify known properties, and 'cm' does not exist in type 'FlowTypeError<"'run.size' never has all of this at once">'.",
        "7: Object literal may only specify known properties, and 'ok' does not exist in type 'FlowTypeError<"The step's input never has 'check'">'.",
        "8: Type 'number' is not assignable to type 'FlowTypeError<"'check.ok' is never 1">'.",
        "9: Object literal may only specify known properties, and 'deep' does not exist in type 'FlowTypeError<"'check.ok' is never an object">'.",
        "10: Property ''~error'' is missing in type 'string[]' but required in type 'FlowTypeError<"A condition is an object, a part of { run: …, <dep>: … }">'.",
        "11: Type '"stop"' is not assignable to type 'StepFallback | undefined'.",
      ]
    `)
  })

  it('explains an input that is not JSON', async () => {
    const errors = await errorsOf(`new Flow<{ m: Map<string, number> }>({ slug: 'flow' })
new Flow<{ list: { call(): void }[] }>({ slug: 'flow' })
new Flow<undefined>({ slug: 'flow' })
new Flow({ slug: 'flow' }).input<{ n: bigint }>()
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "1: Type 'string' is not assignable to type 'string & InputIsNotJson<{ m: FlowTypeError<"JSON keeps nothing of this object: make it a plain object or an array">; }>'.",
        "2: Type 'string' is not assignable to type 'string & InputIsNotJson<{ list: { call: FlowTypeError<"A function is not JSON: leave it out">; }[]; }>'.",
        "3: Type 'string' is not assignable to type 'string & InputIsNotJson<FlowTypeError<"A run has an input: make it null where it needs none">>'.",
        "4: The 'this' context of type 'FlowWithoutInput<NewFlow<"flow", 1, unknown, Json, Record<never, never>>, never, never>' is not assignable to method's 'this' of type 'FlowWithoutInput<NewFlow<"flow", 1, unknown, Json, Record<never, never>>, never, never> & InputIsNotJson<{ n: FlowTypeError<"A bigint is not JSON: make it a string">; }>'.",
      ]
    `)
  })

  it('explains a slug that is not there', async () => {
    const errors = await errorsOf(`import { PgflowClient, type FlowsOf } from '@pgflow/sdk'
const greet = new Flow({ slug: 'greet', version: 2 }).input<string>()
const other = new Flow<string>({ slug: 'other' })
declare const client: PgflowClient
client.startFlow<typeof greet>('graet', 'Ada')
declare const typed: PgflowClient<FlowsOf<[typeof greet]>>
typed.startFlow('graet', 'Ada')
declare const wrong: PgflowClient<FlowsOf<[typeof greet, typeof other]>>
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "5: Argument of type '"graet"' is not assignable to parameter of type '"greet" | "greet_v2"'.",
        "7: Argument of type '"graet"' is not assignable to parameter of type '"greet"'.",
        "8: Type 'FlowTypeError<"The slug of one of these flows is not in its type: define it as new Flow({ slug }).input<…>()">' does not satisfy the constraint '{ readonly '~error': AnyFlow; }'.",
      ]
    `)
  })

  it('explains what a schema does not take', async () => {
    const errors = await errorsOf(`import { z } from 'zod'
const flow = new Flow({ slug: 'flow', input: z.object({ url: z.string() }) })
new Flow({ slug: 'flow', input: { url: 'string' } })
flow.step({ slug: 's', output: z.object({ n: z.number() }) }, () => ({ n: 'one' }))
flow.step({ slug: 's', output: z.object({ n: z.number() }) }, async ({ run }) => ({ m: run.url }))
flow.step({ slug: 's' }, ({ run }) => run.path)
new Flow({ slug: 'flow', input: z.object({ at: z.date() }) })
flow.step({ slug: 's', input: z.object({ page: z.string() }) }, () => 1)
flow.step({ slug: 's', output: z.object({ n: z.bigint() }) }, () => ({ n: 1n }))
`)
    expect(errors).toMatchInlineSnapshot(`
      [
        "3: Object literal may only specify known properties, and 'url' does not exist in type 'StandardSchemaV1<unknown, unknown>'.",
        "4: Type 'string' is not assignable to type 'number'.",
        "5: Type 'Promise<{ m: string; }>' is not assignable to type 'PromiseLike<{ n: number; }> | { n: number; }'.",
        "6: Property 'path' does not exist on type '{ url: string; }'.",
        "7: Property ''~error'' is missing in type 'ZodObject<{ at: ZodDate; }, $strip>' but required in type 'FlowTypeError<"What this schema takes is not JSON: values arrive as JSON, for instance a date as a string">'.",
        "8: Property ''~error'' is missing in type 'ZodObject<{ page: ZodString; }, $strip>' but required in type 'FlowTypeError<"The step's input never has 'page'">'.",
        "9: Property ''~error'' is missing in type 'ZodObject<{ n: ZodBigInt; }, $strip>' but required in type 'FlowTypeError<{ n: FlowTypeError<"A bigint is not JSON: make it a string">; }>'.",
      ]
    `)
  })

  it('shows plain types', async () => {
    const declarations =
      await declarationsOf(`import { Flow, type OutputOf, type StepInputOf, type StepsOf } from '@pgflow/sdk/flow'
export const Crawl = new Flow<{ urls: string[]; deep: boolean }>({ slug: 'crawl' })
  .map({ slug: 'pages', items: 'run.urls' }, (url) => ({ url, at: new Date() }))
  .step({ slug: 'links', dependsOn: ['pages'], runIf: { run: { deep: true } }, whenUnmet: 'skip' }, ({ pages }) =>
    pages.map(({ url }) => url))
  .step('report', ['pages', 'links'], ({ pages, links = [] }) => ({ pages: pages.length, links }))
export const payload = (value: StepInputOf<typeof Crawl, 'report'>) => value
export const output = (value: OutputOf<typeof Crawl>) => value
export const steps = (value: StepsOf<typeof Crawl>) => value
`)
    expect(declarations).toMatchInlineSnapshot(`
      "import { Flow, type OutputOf, type StepInputOf, type StepsOf } from '@pgflow/sdk/flow';
      export declare const Crawl: Flow<{
          slug: string;
          version: number;
          input: {
              urls: string[];
              deep: boolean;
          };
          run: {
              urls: string[];
              deep: boolean;
          };
          resources: Record<never, never>;
          steps: Record<never, never> & {
              pages: {
                  deps: never;
                  output: {
                      url: string;
                      at: string;
                  }[];
                  skips: never;
                  handlerInput: [string];
                  progress: import("@pgflow/sdk/flow").MapProgress<never>;
              };
          } & {
              links: {
                  deps: "pages";
                  output: string[];
                  skips: "skip";
                  handlerInput: false;
                  progress: import("@pgflow/sdk/flow").Json;
              };
          } & {
              report: {
                  deps: "links" | "pages";
                  output: {
                      pages: number;
                      links: string[];
                  };
                  skips: never;
                  handlerInput: false;
                  progress: import("@pgflow/sdk/flow").Json;
              };
          };
      }>;
      export declare const payload: (value: StepInputOf<typeof Crawl, 'report'>) => {
          run: {
              urls: string[];
              deep: boolean;
          };
          links?: string[];
          pages: {
              url: string;
              at: string;
          }[];
      };
      export declare const output: (value: OutputOf<typeof Crawl>) => {
          report: {
              pages: number;
              links: string[];
          };
      };
      export declare const steps: (value: StepsOf<typeof Crawl>) => {
          links: string[];
          pages: {
              url: string;
              at: string;
          }[];
          report: {
              pages: number;
              links: string[];
          };
      };
      "
    `)
  })

  it('takes an input that is known at run time only, and returns it', async () => {
    expect(
      await errorsOf(`import type { Json } from '@pgflow/sdk/flow'
export const a = new Flow<unknown>({ slug: 'a' }).step('s', (payload) => payload).step('t', ['s'], (payload) => payload)
export const b = new Flow<Json>({ slug: 'b' }).step('s', ({ run }) => [run]).map({ slug: 't', items: 's' }, (item) => item)
export const c = new Flow({ slug: 'c' }).step('s', async (payload) => ({ ...payload, at: new Date() }))
export const output: { t: { run: Json; s: { run: Json } } } = {} as OutputOf<typeof a>
`),
    ).toEqual([])
  })

  it.each(['7', '5.9'] as const)('takes a flow of a hundred steps, as TypeScript %s', async (version) => {
    const program = `${largeFlow(100)}export const wrong: string = first\n`
    expect(await complaintsAbout({ 'program.ts': program }, { version })).toMatchObject([
      { text: "Type 'number' is not assignable to type 'string'." },
    ])
  })
})
