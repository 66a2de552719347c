/** Texts in pieces: those that matched the words, and what is between. Pure. */

/** Characters of a text as the API counts them: code points, not the UTF-16 units of this language. */
export type Range = { start: number; end: number };
export type Piece = { text: string; isHit: boolean };
export type Excerpt = {
  pieces: Piece[];
  /** Whether text was left out before and after. */
  isCutBefore: boolean;
  isCutAfter: boolean;
};

const LEAD = 120;

/** Return about `limit` code points of the text: from its beginning, or from shortly before its first match. */
export function excerpt(text: string, ranges: readonly Range[], limit: number): Excerpt {
  const characters = Array.from(text.slice(0, 2 * (limit + (ranges[0]?.end ?? 0)) + LEAD));
  const first = ranges[0]?.start ?? 0;
  const start = first > limit - LEAD ? Math.max(0, first - LEAD) : 0;
  const end = Math.min(characters.length, start + limit);
  const pieces: Piece[] = [];
  let at = start;
  for (const range of ranges) {
    if (range.start >= end) break;
    if (range.start < at || range.end <= range.start) continue;
    push(pieces, characters.slice(at, range.start), false);
    push(pieces, characters.slice(range.start, Math.min(range.end, end)), true);
    at = Math.min(range.end, end);
  }
  push(pieces, characters.slice(at, end), false);
  const shown = characters.slice(0, end).join("").length;
  return { pieces, isCutBefore: start > 0, isCutAfter: shown < text.length };
}

function push(pieces: Piece[], characters: readonly string[], isHit: boolean): void {
  if (characters.length > 0) pieces.push({ text: characters.join(""), isHit });
}
