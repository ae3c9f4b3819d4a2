import * as React from 'react'

/**
 * The latest of the functions that a component passes in its renderings, for calls outside of rendering: another function
 * needs no new subscription. The returned object stays the same.
 */
export function useCurrent<Value>(value: Value): { readonly current: Value } {
  const latest = React.useRef(value)
  React.useInsertionEffect(() => {
    latest.current = value
  })
  return latest
}
