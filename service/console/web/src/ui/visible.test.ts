import { describe, expect, it } from "vitest";
import { cut, visible, whitespace } from "./visible";

const shown = (text: string) =>
  visible(text)
    .map((piece) => (piece.kind === "text" ? piece.text : `<${piece.text}>`))
    .join("");

describe("visible", () => {
  it.each([
    ["plain text\n\tstays", "plain text\n\tstays"],
    ["a\u202eb", "a<202E>b"],
    ["\u0000\u001b[31m", "<0000><001B>[31m"],
    ["x\u200b\u2066y\u2069", "x<200B><2066>y<2069>"],
    ["\u{e0041}", "<E0041>"],
    ["a\ud800b", "a<D800>b"],
    ["\u3164", "<3164>"],
    ["heart \u2764\ufe0f", "heart \u2764\ufe0f"],
    ["\u2764\ufe0f\ufe0f", "\u2764\ufe0f<FE0F>"],
    [`e${"\u0301".repeat(40)}!`, `e${"\u0301".repeat(4)}<034F>!`],
    ["<script>alert(1)</script>", "<script>alert(1)</script>"],
    ["", ""],
  ])("shows %j as %j", (text, expected) => {
    expect(shown(text)).toBe(expected);
  });
});

describe("cut", () => {
  it("keeps surrogate pairs whole", () => {
    expect(cut("ab\u{1f600}", 3)).toBe("ab");
    expect(cut("abc", 3)).toBe("abc");
  });
});

it("whitespace is visible in tokens", () => {
  expect(whitespace(" a\n\t")).toBe("·a⏎⇥");
});
