import { type Context, Flow, type } from '@pgflow/sdk/flow'
import { assistantMessage, type Message, type Model, type ToolCall, toolResult } from './model.ts'
import type { Tools } from './tools.ts'

interface Resources {
  readonly model: Model
  readonly tools: Tools
}

/** What goes from turn to turn. */
interface State {
  readonly messages: readonly Message[]
  /** Whether the loop has to end: with an answer, or with a call that has to be approved. */
  readonly stopped: boolean
  readonly answer?: string
  readonly call?: ToolCall
}

const instructions = 'You buy paint. Compare prices before you order. Answer in one sentence.'

/** Buys what its user asks for; before it orders, it asks them. */
export const Agent = new Flow({ slug: 'agent', startRole: 'authenticated' })
  .input<{ task: string }>()
  .resources<Resources>()

  // The model makes a plan before it gets tools.
  .step('plan', async ({ run }, { signal, resources: { model } }): Promise<State> => {
    const messages: Message[] = [{ role: 'user', content: run.task }]
    const { text } = await model({ instructions: 'Write a short plan.', messages, tools: [] }, signal)
    return { messages: [...messages, assistantMessage(text)], stopped: false }
  })

  // A turn is a call of the model and of the tools that it asks for.
  .loop({ slug: 'work', start: 'plan', until: { stopped: true }, max: 20, timeout: '5m' }, (state, context) =>
    turn(state, context, { mayOrder: true }),
  )

  // Nothing runs while the user thinks about it. Without a call that costs money, there is nothing to approve.
  .wait({
    slug: 'approval',
    dependsOn: ['work'],
    runIf: { work: { call: {} } },
    whenUnmet: 'skip',
    by: 'owner',
    output: type<{ approved: boolean }>(),
    timeout: '2d',
    whenTimedOut: { output: { approved: false } },
  })

  .step('order', ['work', 'approval'], async ({ work, approval }, context): Promise<State> => {
    const { messages, call, answer } = work
    if (call === undefined) return { messages, stopped: true, ...(answer !== undefined && { answer }) }
    const result = approval?.approved ? await use(call, context) : refused(call)
    return { messages: [...messages, { role: 'tool', content: [result] }], stopped: false }
  })

  // It goes on with what has become of the order. With `work` these are 25 turns at most.
  .loop(
    { slug: 'finish', start: 'order', until: { stopped: true }, max: 5, timeout: '5m' },
    (state, context) => turn(state, context, { mayOrder: false }),
  )

  .step('answer', ['finish'], ({ finish }) => finish.answer ?? '')

type TurnContext = Pick<Context<Resources>, 'runId' | 'signal' | 'resources'>

async function turn(state: State, context: TurnContext, { mayOrder }: { mayOrder: boolean }): Promise<State> {
  if (state.stopped) return state
  const { model, tools } = context.resources
  const offered = Object.entries(tools).filter(([, { costsMoney }]) => mayOrder || !costsMoney)
  const { text, calls } = await model(
    {
      instructions,
      messages: state.messages,
      tools: offered.map(([name, { description, parameters }]) => ({ name, description, parameters })),
    },
    context.signal,
  )
  const messages = [...state.messages, assistantMessage(text, calls)]
  if (calls.length === 0) return { messages, stopped: true, answer: text }

  const paid = mayOrder ? calls.find(({ name }) => tools[name]?.costsMoney) : undefined
  const others = calls.filter((call) => call !== paid)
  const content = await Promise.all(
    // Another call that costs money has not been approved.
    others.map((call) => (tools[call.name]?.costsMoney ? refused(call) : use(call, context))),
  )
  return {
    messages: content.length === 0 ? messages : [...messages, { role: 'tool', content }],
    stopped: paid !== undefined,
    ...(paid !== undefined && { call: paid }),
  }
}

function refused(call: ToolCall) {
  return toolResult(call, { error: 'The user does not allow this.' })
}

/** What a tool gives. What it throws fails the turn, which is attempted again; a model may name a tool that it does not have. */
async function use(call: ToolCall, { runId, signal, resources: { tools } }: TurnContext) {
  const tool = tools[call.name]
  if (tool === undefined) return toolResult(call, { error: `There is no tool ${call.name}` })
  return toolResult(call, await tool.run(call.input, { runId, callId: call.id, signal }))
}
