import { expect, it } from "vitest";
import { lastDay } from "./range";

it("a day ends with the minute that is under way", () => {
  expect(lastDay(Date.parse("2026-11-28T20:15:42Z"))).toEqual({
    from: "2026-11-27T20:16:00.000Z",
    to: "2026-11-28T20:16:00.000Z",
  });
});
