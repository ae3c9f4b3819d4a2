import { Window } from 'happy-dom'

// A page around the test, which keeps everything else of Node (fetch, URL, timers): the local stack needs that.
// To be imported before React.
const window = new Window({ url: 'http://localhost/' })
const { document, navigator, Node, Element, HTMLElement, HTMLIFrameElement, MutationObserver, Event } = window
const addEventListener = window.addEventListener.bind(window)
const removeEventListener = window.removeEventListener.bind(window)

const globals = {
  window,
  document,
  navigator,
  Node,
  Element,
  HTMLElement,
  HTMLIFrameElement,
  MutationObserver,
  Event,
  addEventListener,
  removeEventListener,
}
// Some of these are read-only in later versions of Node.
for (const [name, value] of Object.entries(globals)) {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
}
