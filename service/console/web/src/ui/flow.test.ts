import { expect, it } from "vitest";
import { flow, isUnreported } from "./flow";

const SUMS = {
  requests_sampled: { numerator: 3, denominator: 9, value: 1 / 3 },
  rows_decoded: { numerator: 30, denominator: 40, value: 0.75 },
  rows_thinned: 4,
  rows_duplicate: 1,
  rows_dropped: 2,
  rows_dead_lettered: 1,
  rows_unsettled: 2,
};

it("every count has its denominator, or is one", () => {
  const stages = flow(SUMS);
  const totals = stages.filter((stage) => stage.of === null).map((stage) => stage.count);

  expect(totals).toEqual([9, 40]);
  for (const stage of stages) expect(stage.of === null || totals.includes(stage.of)).toBe(true);
});

it("the outcomes of sampled activations add up to them", () => {
  const outcomes = flow(SUMS).filter((stage) => stage.what === "activations");

  expect(outcomes.reduce((sum, stage) => sum + stage.count, 0)).toBe(40);
});

it("is unreported only where nobody reported and nothing was counted", () => {
  const none = {
    ...Object.fromEntries(Object.keys(SUMS).map((name) => [name, 0])),
    requests_sampled: { numerator: 0, denominator: 0, value: null },
    rows_decoded: { numerator: 0, denominator: 0, value: null },
  } as unknown as typeof SUMS;
  const silent = { total: 60, with_traffic: 0, no_traffic: 0, nobody_reported: 60 };

  expect(isUnreported(none, silent)).toBe(true);
  expect(isUnreported(none, { ...silent, no_traffic: 1, nobody_reported: 59 })).toBe(false);
  expect(isUnreported(SUMS, silent)).toBe(false);
});
