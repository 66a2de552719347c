import { expect, it } from "vitest";
import { figuresOf, isNull } from "./card";

const CARD = {
  name: "tiny",
  candidates: 4,
  calibration: {
    fve: { value: 0.72, ci95: [0.7, 0.74], n: 720 },
    shuffled_fve: { value: -0.8, ci95: [-0.9, -0.7], n: 720 },
    broken: { value: 0.5, ci95: [0.4], n: 3 },
    history: [{ value: 1, ci95: [0, 1], n: 1 }],
  },
  kinds: { fraud: { auroc: 0.96, recall_at_1pct_fpr: { value: 0.6, ci95: [0.4, 0.8], n: 32 } } },
};

it("only what has an interval and an n is a figure", () => {
  expect(figuresOf(CARD).map(({ group, name, n }) => [group, name, n])).toEqual([
    ["calibration", "fve", 720],
    ["calibration", "shuffled_fve", 720],
    ["kinds, fraud", "recall_at_1pct_fpr", 32],
  ]);
});

it("nulls are told from readings", () => {
  expect(
    figuresOf(CARD)
      .filter(isNull)
      .map(({ name }) => name),
  ).toEqual(["shuffled_fve"]);
});

it.each([null, "text", 3, []])("a card that is %j has no figures", (card) => {
  expect(figuresOf(card)).toEqual([]);
});
