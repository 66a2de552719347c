import type { Schemas } from "@/api/client";

type Step = Schemas["StepStatement"];
export type Lost = { hop: string; kind: string; reason: string; count: number };

/** Return what was lost over all steps, by hop, kind and reason, the most first. Pure. */
export function lossesOf(steps: readonly Step[]): Lost[] {
  const found = new Map<string, Lost>();
  for (const { hop, kind, reason, count } of steps.flatMap((step) => step.losses)) {
    const key = JSON.stringify([hop, kind, reason]);
    const known = found.get(key);
    if (known) known.count += count;
    else found.set(key, { hop, kind, reason, count });
  }
  return [...found.values()].sort((one, other) => other.count - one.count);
}

/** Tell whether anything was counted or should have been: other steps are left out of long tables. Pure. */
export function isQuiet(step: Step): boolean {
  const { minutes, requests_sampled: requests, rows_decoded: rows, losses } = step;
  return (
    minutes.with_traffic === 0 &&
    minutes.nobody_reported === 0 &&
    requests.denominator === 0 &&
    rows.denominator === 0 &&
    losses.length === 0
  );
}
