/** The way of requests and rows through all hops, as rows of one table. Pure. */
import type { Schemas } from "@/api/client";

export type Stage = {
  name: string;
  count: number;
  /** Of how many; null for what is a total itself. */
  of: number | null;
  what?: string;
  isLoss: boolean;
  note?: string;
};

/** Whether nobody told of any minute and nothing was counted: then no count of it is a zero, none is known. */
export function isUnreported(sums: Schemas["Sums"], minutes: Schemas["MinuteSums"]): boolean {
  return minutes.nobody_reported === minutes.total && flow(sums).every((stage) => stage.count === 0);
}

export function flow(sums: Schemas["Sums"]): Stage[] {
  const requests = sums.requests_sampled;
  const rows = sums.rows_decoded;
  const ofRows = { of: rows.denominator, what: "activations" };
  return [
    { name: "Requests seen", count: requests.denominator, of: null, isLoss: false },
    {
      name: "Requests sampled",
      count: requests.numerator,
      of: requests.denominator,
      what: "requests",
      isLoss: false,
    },
    { name: "Activations sampled", count: rows.denominator, of: null, isLoss: false },
    { name: "Decoded", count: rows.numerator, ...ofRows, isLoss: false },
    {
      name: "Left out by chance",
      count: sums.rows_thinned,
      ...ofRows,
      isLoss: false,
      note: "with a known probability: no loss",
    },
    { name: "Stored before", count: sums.rows_duplicate, ...ofRows, isLoss: false },
    { name: "Dropped", count: sums.rows_dropped, ...ofRows, isLoss: true },
    { name: "Set aside as unusable", count: sums.rows_dead_lettered, ...ofRows, isLoss: true },
    {
      name: "Without an outcome yet",
      count: sums.rows_unsettled,
      ...ofRows,
      isLoss: false,
      note: "on the way, or lost with a killed process",
    },
  ];
}
