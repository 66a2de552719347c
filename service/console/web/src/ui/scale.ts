/** Positions on an axis. Pure. */

/** Return the least span that holds all values and `also`, widened where they are one point. */
export function span(values: readonly number[], also: readonly number[] = []): [number, number] {
  const all = [...values, ...also].filter(Number.isFinite);
  if (all.length === 0) return [0, 1];
  const low = Math.min(...all);
  const high = Math.max(...all);
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

/** Return where a value lies between both ends, from 0 to 1; what lies outside is at the end. */
export function place(value: number, [low, high]: readonly [number, number]): number {
  return Math.min(1, Math.max(0, (value - low) / (high - low)));
}
