import { expect, it } from "vitest";
import { classesOf, LENSES, nextLens, see } from "./lens";
import type { Reading } from "./rows";

const reading: Reading = {
  explanation_id: "e",
  decoder_id: "d",
  hypothesis: true,
  verified: true,
  cosine: 0.8,
  fve: 0.4,
  fve_beyond_token: 0.31,
  verified_above: 0.1,
  anomaly_score: 1.2,
  anomaly_p_value: 0.004,
  concepts: ["weapons"],
};

it("tells an unverified reading in words and by its level", () => {
  expect(see("fidelity", reading)).toEqual({
    level: 3,
    words: "FVE beyond the token 0.31, threshold 0.10, verified",
  });
  expect(see("fidelity", { ...reading, verified: false }).level).toBe(1);
  expect(see("concept", { ...reading, verified: false }).words).toContain("does not count for a flag");
});

it("never takes what was not read or scored for nothing", () => {
  for (const lens of LENSES) expect(see(lens, null).level).toBe(-1);
  expect(see("anomaly", { ...reading, anomaly_score: null }).level).toBe(-1);
  expect(see("surprise", reading).words).toContain("not available");
});

it("goes round all lenses", () => {
  expect(LENSES.map(nextLens)).toEqual(["anomaly", "concept", "surprise", "fidelity"]);
});

it("marks a cell by every lens at once, with the levels that are told in words", () => {
  expect(classesOf(reading)).toBe("f3 a3 c4");
  expect(classesOf({ ...reading, verified: false, anomaly_score: null, concepts: [] })).toBe("f1 a-1 c0");
  expect(classesOf(null)).toBe("f-1 a-1 c-1");
});
