import { expect, it } from "vitest";
import { inputOf, rangeOf, searchOf, timeOf } from "./range";

const NOW = Date.parse("2026-11-28T20:15:42Z");

it("without an address it is the last day, to the end of the hour under way", () => {
  expect(rangeOf("", NOW)).toEqual({
    from: "2026-11-27T21:00:00.000Z",
    to: "2026-11-28T21:00:00.000Z",
    resolution: "hour",
  });
});

it("an address is read as it was written, and nonsense is the default", () => {
  const range = rangeOf("?from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:00Z&resolution=day", NOW);

  expect(rangeOf(searchOf(range), NOW)).toEqual(range);
  expect(rangeOf("?from=x&resolution=week", NOW)).toEqual(rangeOf("", NOW));
});

it("inputs are in UTC", () => {
  expect(inputOf("2026-03-01T07:30:00.000Z")).toBe("2026-03-01T07:30");
  expect(timeOf("2026-03-01T07:30")).toBe("2026-03-01T07:30:00.000Z");
  expect(timeOf("2026-03-01T07:30:00+02:00")).toBe("2026-03-01T05:30:00.000Z");
  expect(timeOf("")).toBeNull();
});
