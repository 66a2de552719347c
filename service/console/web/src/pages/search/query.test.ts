import { describe, expect, it } from "vitest";
import { addressOf, apiQueryOf, EVERYTHING, inputOf, searchOf, timeOf, withPeriod } from "./query";

const NOW = new Date("2026-11-28T12:00:00Z");

describe("a search", () => {
  it("is the same after its address was written and read", () => {
    const search = {
      ...EVERYTHING,
      q: '"first aid" or bandage & 100%',
      concept: "self-harm",
      verified: "false" as const,
      max_anomaly_p: "0.01",
      captured_after: "2026-11-01T00:00:00Z",
    };
    expect(searchOf(addressOf(search))).toEqual(search);
  });

  it("ignores what it does not know", () => {
    expect(searchOf("?verified=maybe&selected=1&q=%20a%20")).toEqual({ ...EVERYTHING, q: "a" });
    expect(addressOf(EVERYTHING)).toBe("");
  });

  it("for words has a period: the week before its end", () => {
    expect(withPeriod({ ...EVERYTHING, q: "a" }, NOW).captured_after).toBe("2026-11-21T12:00:00Z");
    const ended = { ...EVERYTHING, q: "a", captured_before: "2026-11-08T00:00:00Z" };
    expect(withPeriod(ended, NOW).captured_after).toBe("2026-11-01T00:00:00Z");
    for (const given of [
      EVERYTHING,
      { ...EVERYTHING, q: "a", request: "r" },
      { ...EVERYTHING, q: "a", captured_after: "x" },
    ]) {
      expect(withPeriod(given, NOW)).toBe(given);
    }
  });

  it("is asked of the API without what is not given", () => {
    expect(apiQueryOf({ ...EVERYTHING, verified: "false", max_anomaly_p: "0.05", model: "m" })).toEqual({
      model: "m",
      verified: false,
      max_anomaly_p: 0.05,
    });
  });
});

describe("times", () => {
  it("are UTC in inputs", () => {
    expect(timeOf("2026-11-01T09:30")).toBe("2026-11-01T09:30:00Z");
    expect(inputOf("2026-11-01T09:30:00Z")).toBe("2026-11-01T09:30:00");
    expect([timeOf(""), timeOf("x"), inputOf(""), inputOf("x")]).toEqual(["", "", "", ""]);
  });
});
