import type { Json } from '@pgflow/sdk/flow'

/** What a model asks for: a tool with its input. */
export interface ToolCall {
  readonly id: string
  readonly name: string
  readonly input: Json
}

/** A tool as a model sees it. */
export interface ToolDescription {
  readonly name: string
  readonly description: string
  /** JSON Schema of its input. */
  readonly parameters: { readonly [keyword: string]: Json }
}

/** What has been said, in the form of the AI SDK. It is JSON, and so it can be the state of a loop. */
export type Message =
  | { readonly role: 'user'; readonly content: string }
  | { readonly role: 'assistant'; readonly content: readonly AssistantPart[] }
  | { readonly role: 'tool'; readonly content: readonly ToolResult[] }

type AssistantPart =
  | { readonly type: 'text'; readonly text: string }
  | {
      readonly type: 'tool-call'
      readonly toolCallId: string
      readonly toolName: string
      readonly input: Json
    }

export interface ToolResult {
  readonly type: 'tool-result'
  readonly toolCallId: string
  readonly toolName: string
  readonly output: { readonly type: 'json'; readonly value: Json }
}

export interface Prompt {
  readonly instructions: string
  readonly messages: readonly Message[]
  readonly tools: readonly ToolDescription[]
}

/** A model: it answers with a text, or asks for tools. README.md has one that calls any model of the AI SDK. */
export type Model = (prompt: Prompt, signal: AbortSignal) => Promise<{ text: string; calls: ToolCall[] }>

/** What the model has said, as a message. */
export function assistantMessage(text: string, calls: readonly ToolCall[] = []): Message {
  return {
    role: 'assistant',
    content: [
      ...(text === '' ? [] : [{ type: 'text', text } as const]),
      ...calls.map(
        ({ id, name, input }) => ({ type: 'tool-call', toolCallId: id, toolName: name, input }) as const,
      ),
    ],
  }
}

/** What a tool has answered. */
export function toolResult({ id, name }: ToolCall, value: Json): ToolResult {
  return { type: 'tool-result', toolCallId: id, toolName: name, output: { type: 'json', value } }
}
