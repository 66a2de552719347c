import { expect, it } from "vitest";
import { place, span } from "./scale";

it("a span holds every value and is never a point", () => {
  expect(span([0.2, -0.8], [0])).toEqual([-0.8, 0.2]);
  expect(span([3])).toEqual([2.5, 3.5]);
  expect(span([])).toEqual([0, 1]);
  expect(span([Number.NaN, 1, 2])).toEqual([1, 2]);
});

it("what lies outside is at the end", () => {
  expect([-1, 0, 1, 2, 9].map((value) => place(value, [0, 2]))).toEqual([0, 0, 0.5, 1, 1]);
});
