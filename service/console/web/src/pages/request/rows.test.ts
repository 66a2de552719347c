import { describe, expect, it } from "vitest";
import {
  cellsOf,
  columnsOf,
  indexAt,
  lineOfIndex,
  linesOf,
  type Row,
  recurrence,
  tally,
  tokenText,
} from "./rows";

function row(position: number, token: string | null = " a", concepts: string[] = [], verified = true): Row {
  return {
    position,
    token_text: token,
    phase: "decode",
    reason: "decode",
    inclusion_probability: 0.25,
    captured_at: "2026-11-23T05:00:00Z",
    readings: [
      {
        explanation_id: String(position),
        decoder_id: "d",
        hypothesis: true,
        verified,
        cosine: 0.8,
        fve: 0.4,
        fve_beyond_token: 0.3,
        verified_above: 0.1,
        anomaly_score: null,
        anomaly_p_value: null,
        concepts,
      },
    ],
  };
}

describe("cellsOf", () => {
  it("puts a gap with its number before what follows positions that were not sampled", () => {
    const kinds = cellsOf([row(0), row(3), row(4)]).map((cell) =>
      cell.kind === "gap" ? `${cell.tokens} from ${cell.from}` : cell.row.position,
    );
    expect(kinds).toEqual([0, "2 from 1", 3, 4]);
  });

  it("makes no gap of a position that came again", () => {
    expect(cellsOf([row(0), row(0), row(1)]).map((cell) => cell.kind)).toEqual(["token", "token", "token"]);
  });
});

describe("linesOf", () => {
  const cells = cellsOf(Array.from({ length: 100 }, (_, position) => row(position)));

  it("loses no cell and fills no line beyond its columns", () => {
    const lines = linesOf(cells, 40);
    expect(lines.flat()).toEqual(cells);
    for (const line of lines) {
      expect(line.reduce((sum, cell) => sum + cell.columns + 2, 0)).toBeLessThanOrEqual(40);
    }
    expect(lineOfIndex(lines)[99]).toBe(lines.length - 1);
  });

  it("gives a cell wider than a line one of its own", () => {
    const wide = cellsOf([row(0, "x".repeat(24)), row(1)]);
    expect(linesOf(wide, 10).map((line) => line.length)).toEqual([1, 1]);
  });
});

it.each([
  [" a", "·a"],
  ["\n", "⏎"],
  ["", "∅"],
  ["x".repeat(30), `${"x".repeat(24)}…`],
  [null, "#7"],
])("a cell shows %j as %j", (token, shown) => {
  expect(tokenText(row(7, token))).toBe(shown);
});

it.each([
  ["abc", 3],
  ["漢字", 4],
  ["e\u0301", 1],
  ["\u202e", 6],
  ["", 1],
])("%j takes %i columns", (text, columns) => {
  expect(columnsOf(text)).toBe(columns);
});

it("finds a position, or the next that was sampled", () => {
  const rows = [row(2), row(5), row(9)];
  expect([0, 2, 3, 9, 12].map((position) => indexAt(rows, position))).toEqual([0, 0, 1, 2, 2]);
  expect(indexAt([], 3)).toBe(-1);
});

it("tells what was looked at and what was not", () => {
  const unread = { ...row(9), readings: [] };
  expect(tally([row(2), row(4, " a", [], false), row(4), unread], null)).toEqual({
    sampled: 4,
    explained: 3,
    verified: 2,
    between: 7,
    before: 2,
    repeated: 1,
  });
});

it("counts at how many neighbours a concept recurs", () => {
  const rows = [row(0, " a", ["x"]), row(1, " a", ["x", "y"]), row(2), { ...row(3), readings: [] }];
  expect(recurrence(rows, 1, null)).toEqual([
    { concept: "x", matched: 1, neighbours: 2 },
    { concept: "y", matched: 0, neighbours: 2 },
  ]);
});
