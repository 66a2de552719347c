import { expect, it } from "vitest";
import type { Schemas } from "@/api/client";
import { isQuiet, lossesOf } from "./losses";

function step(nobody: number, losses: { reason: string; count: number }[]): Schemas["StepStatement"] {
  const none = { numerator: 0, denominator: 0, value: null };
  return {
    start: "2026-11-23T05:00:00Z",
    minutes: { total: 60, with_traffic: 0, no_traffic: 60 - nobody, nobody_reported: nobody },
    requests_sampled: none,
    rows_decoded: none,
    rows_thinned: 0,
    rows_duplicate: 0,
    rows_dropped: 0,
    rows_dead_lettered: 0,
    rows_unsettled: 0,
    losses: losses.map((loss) => ({ hop: "plugin", kind: "dropped", ...loss })),
  };
}

it("losses of one reason are one, and the most come first", () => {
  const steps = [
    step(0, [{ reason: "a", count: 1 }]),
    step(0, [
      { reason: "b", count: 3 },
      { reason: "a", count: 1 },
    ]),
  ];

  expect(lossesOf(steps).map(({ reason, count }) => [reason, count])).toEqual([
    ["b", 3],
    ["a", 2],
  ]);
});

it("an hour of which nobody reported is not quiet", () => {
  expect([
    isQuiet(step(0, [])),
    isQuiet(step(1, [])),
    isQuiet(step(0, [{ reason: "a", count: 1 }])),
  ]).toEqual([true, false, false]);
});
