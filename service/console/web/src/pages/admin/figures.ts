/** What the sections show of figures, ranges and documents. Pure. */
import type { Schemas } from "@/api/client";
import { percent, whole } from "@/ui/numbers";

export type Figure = Schemas["DryRunFigure"];

/** Return a figure with its limits, and never a number that cannot be told. */
export function figure({ expected, lower, upper, basis }: Figure): string {
  const limits = `${whole(Math.floor(lower))} to ${whole(Math.ceil(upper))}`;
  if (expected === null || basis === "bounds") return `not told: ${limits}`;
  if (lower === upper) return `${whole(expected)} exactly`;
  return `${basis === "estimate" ? "about " : ""}${rounded(expected)} (${limits})`;
}

function rounded(value: number): string {
  return value > 0 && value < 10 ? value.toFixed(1) : whole(value);
}

/** Return a rate by what it was measured on: estimate, upper limit and n. */
export function rate(found: { estimate: number; upper: number; requests: number }): string {
  return `${percent(found.estimate)}, at most ${percent(found.upper)} (one-sided 95%), n ${whole(found.requests)}`;
}

export const RANGES = {
  hour: "last hour",
  day: "last day",
  week: "last 7 days",
  month: "last 31 days",
} as const;
export type Range = keyof typeof RANGES;
const MINUTES: Readonly<Record<Range, number>> = { hour: 60, day: 1440, week: 10_080, month: 44_640 };

/** Return a range that ends with the last whole minute. */
export function rangeOf(range: Range, now: Date): { from: string; to: string } {
  const end = Math.floor(now.getTime() / 60_000) * 60_000;
  const time = (at: number) => `${new Date(at).toISOString().slice(0, 19)}Z`;
  return { from: time(end - MINUTES[range] * 60_000), to: time(end) };
}

export type Document = { policy: Record<string, unknown>; fault: null } | { policy: null; fault: string };

/** Return the policy in a text, or what is wrong with the text. */
export function policyIn(text: string): Document {
  try {
    const found: unknown = JSON.parse(text);
    if (typeof found === "object" && found !== null && !Array.isArray(found)) {
      return { policy: found as Record<string, unknown>, fault: null };
    }
    return { policy: null, fault: "A policy is a JSON object with the sections capture and screen." };
  } catch (error) {
    return { policy: null, fault: `This is no JSON: ${(error as Error).message}` };
  }
}

/** Return names that are written with commas between; null where there are none. */
export function namesIn(text: string): string[] | null {
  const names = text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  return names.length === 0 ? null : names;
}

/** Return the first digits of a digest, which tell versions apart on a page. */
export function short(digest: string): string {
  return digest.slice(0, 12);
}
