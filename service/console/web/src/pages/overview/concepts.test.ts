import { expect, it } from "vitest";
import type { Schemas } from "@/api/client";
import { conceptsOf } from "./concepts";
import { lastDay } from "./range";

it("every model and concept is named once, flagged or only asked for by canaries", () => {
  const detectors = {
    items: [
      { model: "b", concept: "weapons" },
      { model: "a", concept: "weapons" },
      { model: "b", concept: "weapons" },
    ],
    without_flags: [{ model: "a", canaries: { concept: "fraud" } }],
  } as unknown as Schemas["DetectorList"];

  expect(conceptsOf(detectors)).toEqual([
    ["a", "fraud"],
    ["a", "weapons"],
    ["b", "weapons"],
  ]);
});

it("a day ends with the minute that is under way", () => {
  expect(lastDay(Date.parse("2026-11-28T20:15:42Z"))).toEqual({
    from: "2026-11-27T20:16:00.000Z",
    to: "2026-11-28T20:16:00.000Z",
  });
});
