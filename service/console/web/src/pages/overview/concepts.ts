import type { Schemas } from "@/api/client";

/** Return every model and concept of the list once, in order. Pure. */
export function conceptsOf(detectors: Schemas["DetectorList"]): [string, string][] {
  const found = new Map<string, [string, string]>();
  for (const { model, concept } of [
    ...detectors.items,
    ...detectors.without_flags.map((one) => ({ model: one.model, concept: one.canaries.concept })),
  ]) {
    found.set(JSON.stringify([model, concept]), [model, concept]);
  }
  return [...found].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, pair]) => pair);
}
