const DAY_MS = 86_400_000;

/** Return the last day, to the minute, so that a look again within it asks the same. Pure. */
export function lastDay(now: number): { from: string; to: string } {
  const end = Math.floor(now / 60_000) * 60_000;
  return { from: new Date(end - DAY_MS).toISOString(), to: new Date(end).toISOString() };
}
