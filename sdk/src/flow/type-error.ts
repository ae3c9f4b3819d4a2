/** The type of what cannot be right in a flow's definition: its argument is the explanation. No value has this type. */
export interface FlowTypeError<Message> {
  readonly '~error': Message
}
