/** The type of a program's mistake: its argument says in English what is wrong. No value has this type. */
export interface Mistake<Message> {
  readonly '~mistake': Message
}
