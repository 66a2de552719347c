import { expect, test } from "vitest";
import { figure, namesIn, policyIn, rangeOf, rate } from "./figures";

test("a figure has its limits, and says when it is estimated", () => {
  expect(figure({ expected: 200, lower: 181.4, upper: 218.6, basis: "exact" })).toBe("200 (181 to 219)");
  expect(figure({ expected: 4.25, lower: 0, upper: 9, basis: "estimate" })).toBe("about 4.3 (0 to 9)");
  expect(figure({ expected: 0, lower: 0, upper: 0, basis: "exact" })).toBe("0 exactly");
});

test("what cannot be told has bounds alone", () => {
  expect(figure({ expected: null, lower: 0, upper: 6400, basis: "bounds" })).toBe("not told: 0 to 6,400");
});

test("a rate has its limit and its denominator", () => {
  expect(rate({ estimate: 0.0075, upper: 0.0131, requests: 1200 })).toBe(
    "0.75%, at most 1.3% (one-sided 95%), n 1,200",
  );
});

test("a range ends with a whole minute", () => {
  expect(rangeOf("hour", new Date("2026-11-28T20:15:42Z"))).toEqual({
    from: "2026-11-28T19:15:00Z",
    to: "2026-11-28T20:15:00Z",
  });
});

test("a text that is no policy says what is wrong", () => {
  expect(policyIn('{"capture": {}}').policy).toEqual({ capture: {} });
  expect(policyIn("[]").fault).toContain("JSON object");
  expect(policyIn("{").fault).toContain("no JSON");
});

test("names stand between commas", () => {
  expect(namesIn(" a, b ,,")).toEqual(["a", "b"]);
  expect(namesIn(" ")).toBeNull();
});
