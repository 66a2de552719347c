import { expect, it } from "vitest";
import { LENSES, nextLens, see } from "./lens";
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
