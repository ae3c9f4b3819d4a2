/** The steps of the flow and what they depend on. vite.ts puts it into the page, since the flow itself stays in the worker. */
export const readDocument = import.meta.env.FLOW_SHAPE
