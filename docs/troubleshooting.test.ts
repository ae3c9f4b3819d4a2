import { describe, expect, it } from 'vitest'
import * as client from '../sdk/src/client/index.ts'
import * as flow from '../sdk/src/flow/index.ts'
import * as worker from '../sdk/src/worker/index.ts'
import { sdkCodes, sdkMessages, sqlMessages } from './testing/messages.ts'
import { pageOf } from './testing/pages.ts'

const { text } = pageOf('docs/troubleshooting.md')

/** Nothing to search for is left of these without what is filled in. */
const general = ['… is …', "… '…'", '… is …: give it …', '…: …']

/** In examples of comments. */
const examples = ['There is no page at …', 'The provider is being upgraded']

describe('troubleshooting.md', () => {
  it('has each error of a SQL function', () => {
    const messages = sqlMessages()
    expect(messages.length).toBeGreaterThan(45)
    expect(messages.filter((message) => !text.includes(message))).toEqual([])
  })

  it('has each message of the SDK', () => {
    const messages = sdkMessages().filter((message) => ![...general, ...examples].includes(message))
    expect(messages.length).toBeGreaterThan(45)
    expect(messages.filter((message) => !text.includes(message))).toEqual([])
  })

  it('has each class of errors and each code', () => {
    const exported = Object.entries({ ...client, ...flow, ...worker })
    const classes = exported.filter(([, value]) => value.prototype instanceof Error).map(([name]) => name)
    expect(classes).toContain('RunFailedError')
    expect([...classes, ...sdkCodes()].filter((name) => !text.includes(`\`${name}\``))).toEqual([])
  })
})
