/** The sampled positions of a capture as the strip draws them: cells, gaps and lines. Pure. */
import type { Schemas } from "@/api/client";
import { cut, visible, whitespace } from "@/ui/visible";

export type Row = Schemas["CapturePosition"];
export type Reading = Schemas["PositionReading"];

/** A position that was sampled, or the number of those that were not. */
export type Cell =
  | {
      kind: "token";
      /** Its place among the sampled ones. */
      index: number;
      row: Row;
      /** How many before it were not sampled. */
      skipped: number;
      columns: number;
    }
  | { kind: "gap"; from: number; tokens: number; columns: number };

const MAX_TOKEN = 24;
const MARK_COLUMNS = 6;

/** Return the cells in order: positions between sampled ones have no text, and become one gap each. */
export function cellsOf(rows: readonly Row[]): Cell[] {
  const cells: Cell[] = [];
  let next = 0;
  rows.forEach((row, index) => {
    const skipped = Math.max(0, row.position - next);
    if (skipped > 0) {
      cells.push({ kind: "gap", from: next, tokens: skipped, columns: gapText(skipped).length });
    }
    cells.push({ kind: "token", index, row, skipped, columns: columnsOf(tokenText(row)) });
    next = Math.max(next, row.position + 1);
  });
  return cells;
}

/** Fill lines of so many columns; a cell takes its own columns and `padding`. */
export function linesOf(cells: readonly Cell[], columns: number, padding = 2): Cell[][] {
  const lines: Cell[][] = [];
  let line: Cell[] = [];
  let used = 0;
  for (const cell of cells) {
    const width = Math.min(cell.columns, Math.max(4, columns - padding)) + padding;
    if (used + width > columns && line.length > 0) {
      lines.push(line);
      line = [];
      used = 0;
    }
    line.push(cell);
    used += width;
  }
  if (line.length > 0) lines.push(line);
  return lines;
}

/** Return for each sampled position the number of its line. */
export function lineOfIndex(lines: readonly Cell[][]): number[] {
  const found: number[] = [];
  lines.forEach((line, number) => {
    for (const cell of line) if (cell.kind === "token") found[cell.index] = number;
  });
  return found;
}

/** Return what stands in a cell: the token with its white space visible, or its number while it is withheld. */
export function tokenText(row: Row): string {
  if (row.token_text === null) return `#${row.position}`;
  const shown = whitespace(cut(row.token_text, MAX_TOKEN));
  if (shown === "") return "∅";
  return shown.length < row.token_text.length ? `${shown}…` : shown;
}

/** Return what a gap says. */
export function gapText(tokens: number): string {
  return `${tokens} not sampled`;
}

// East Asian scripts and pictures take two columns of a monospaced font.
const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u;

/** What most tokens are: a column a character, and nothing in it that has to be marked. */
export const PLAIN = /^[!-~·⏎⇥∅…]*$/;

/** Return how many columns a text takes in the strip. */
export function columnsOf(text: string): number {
  if (PLAIN.test(text)) return Math.max(1, text.length);
  let columns = 0;
  for (const piece of visible(text)) {
    if (piece.kind === "mark") columns += MARK_COLUMNS;
    else
      for (const character of piece.text) {
        if (/\p{M}/u.test(character)) continue;
        columns += WIDE.test(character) || (character.codePointAt(0) ?? 0) >= 0x1f000 ? 2 : 1;
      }
  }
  return Math.max(1, columns);
}

/** Return the index of the row at the position, or of the next behind it; -1 without rows. */
export function indexAt(rows: readonly Row[], position: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((rows[middle]?.position ?? 0) < position) low = middle + 1;
    else high = middle;
  }
  return rows.length === 0 ? -1 : Math.min(low, rows.length - 1);
}

/** Return the reading that is shown of a row: of the chosen decoder, else the newest. */
export function readingOf(row: Row, decoder: string | null): Reading | null {
  const found = decoder === null ? undefined : row.readings.find((one) => one.decoder_id === decoder);
  return found ?? (decoder === null ? (row.readings.at(-1) ?? null) : null);
}

/** Whether the rate at which a concept is flagged wrongly was measured; a match without a flag has none. */
export function isCalibrated(flags: readonly Schemas["Flag"][], concept: string): boolean {
  return flags.some((flag) => flag.concept === concept && flag.calibrated);
}

/** What the rows of one layer say together. */
export type Tally = {
  sampled: number;
  explained: number;
  verified: number;
  /** Positions up to the last sampled one that were not sampled. */
  between: number;
  /** Positions of the prompt before the first sampled one: not sampled, or served from a cache. */
  before: number;
  repeated: number;
};

export function tally(rows: readonly Row[], decoder: string | null): Tally {
  const positions = new Set(rows.map((row) => row.position));
  const last = rows.at(-1)?.position ?? -1;
  const readings = rows.map((row) => readingOf(row, decoder));
  return {
    sampled: rows.length,
    explained: readings.filter((reading) => reading !== null).length,
    verified: readings.filter((reading) => reading?.verified).length,
    between: last + 1 - positions.size,
    before: rows[0]?.position ?? 0,
    repeated: rows.length - positions.size,
  };
}

/** How often the sampled neighbours' texts matched what this one matched. */
export type Recurrence = { concept: string; matched: number; neighbours: number };

export function recurrence(
  rows: readonly Row[],
  index: number,
  decoder: string | null,
  reach = 3,
): Recurrence[] {
  const row = rows[index];
  const own = row === undefined ? null : readingOf(row, decoder);
  if (own === null) return [];
  const neighbours = neighboursOf(rows, index, reach)
    .map((at) => rows[at])
    .map((one) => (one === undefined ? null : readingOf(one, decoder)))
    .filter((reading) => reading !== null);
  return own.concepts.map((concept) => ({
    concept,
    matched: neighbours.filter((reading) => reading.concepts.includes(concept)).length,
    neighbours: neighbours.length,
  }));
}

/** Return the indices of the nearest sampled positions on both sides, in order. */
export function neighboursOf(rows: readonly Row[], index: number, reach: number): number[] {
  const found: number[] = [];
  for (let at = Math.max(0, index - reach); at <= Math.min(rows.length - 1, index + reach); at++) {
    if (at !== index) found.push(at);
  }
  return found;
}

/** Return the rows of a capture that was stored before captures had an identity, as its report lists them. */
export function rowsOfReport(capture: Schemas["Capture"], layer: number): Row[] {
  const readings = new Map<string, Reading[]>();
  for (const one of capture.explanations) {
    const of = readings.get(one.sample_id) ?? [];
    of.push({
      explanation_id: one.id,
      decoder_id: one.fidelity.decoder.id,
      hypothesis: true,
      verified: one.fidelity.verified,
      cosine: one.fidelity.cosine,
      fve: one.fidelity.fve,
      fve_beyond_token: one.fidelity.fve_beyond_token,
      verified_above: one.fidelity.verified_above,
      anomaly_score: one.anomaly?.score ?? null,
      anomaly_p_value: one.anomaly?.p_value ?? null,
      concepts: [...new Set(one.matches.map((match) => match.concept))],
    });
    readings.set(one.sample_id, of);
  }
  return capture.samples
    .filter((sample) => sample.layer === layer)
    .map((sample) => ({
      position: sample.position,
      token_text: sample.token_text,
      phase: sample.phase,
      reason: sample.reason,
      inclusion_probability: sample.inclusion_probability,
      captured_at: sample.captured_at,
      readings: readings.get(sample.id) ?? [],
    }));
}
