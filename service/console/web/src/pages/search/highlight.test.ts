import { expect, it } from "vitest";
import { excerpt } from "./highlight";

function marked(text: string, ranges: { start: number; end: number }[], limit = 600): string {
  return excerpt(text, ranges, limit)
    .pieces.map(({ text, isHit }) => (isHit ? `[${text}]` : text))
    .join("");
}

it("marks ranges of code points", () => {
  expect(
    marked("🚂🚂 Über über", [
      { start: 3, end: 7 },
      { start: 8, end: 12 },
    ]),
  ).toBe("🚂🚂 [Über] [über]");
});

it("leaves out ranges that overlap, are empty, or lie outside", () => {
  const ranges = [
    { start: 0, end: 1 },
    { start: 0, end: 2 },
    { start: 2, end: 2 },
    { start: 9, end: 12 },
  ];
  expect(marked("abc", ranges)).toBe("[a]bc");
  expect(marked("", [])).toBe("");
});

it("shows the first match of a long text, and says what it left out", () => {
  const text = `${"a ".repeat(1000)}needle${" b".repeat(1000)}`;
  const found = excerpt(text, [{ start: 2000, end: 2006 }], 300);
  expect(found.pieces.map(({ isHit }) => isHit)).toEqual([false, true, false]);
  expect(found.pieces[1]?.text).toBe("needle");
  expect([found.isCutBefore, found.isCutAfter]).toEqual([true, true]);
});

it("begins at the beginning without a match", () => {
  const found = excerpt("x".repeat(1_000_000), [], 10);
  expect(found).toEqual({
    pieces: [{ text: "x".repeat(10), isHit: false }],
    isCutBefore: false,
    isCutAfter: true,
  });
});
