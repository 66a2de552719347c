const DAY_MS = 86_400_000;

/**
 * Return the last day, to the end of this minute, so that a look again within it asks the same. Pure.
 *
 * The service tells whole hours: up to this minute's beginning, the first minute of an hour would be missing.
 */
export function lastDay(now: number): { from: string; to: string } {
  const end = (Math.floor(now / 60_000) + 1) * 60_000;
  return { from: new Date(end - DAY_MS).toISOString(), to: new Date(end).toISOString() };
}
