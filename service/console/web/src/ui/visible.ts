/** Untrusted text made harmless and honest to look at. Pure. */

export type Piece = { kind: "text"; text: string } | { kind: "mark"; text: string; name: string };

// Controls, format characters (bidi, zero width, tags), separators, lone surrogates, and all that Unicode
// lets a font ignore.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Default_Ignorable_Code_Point}]/gu;
// White space has its place, and one selector after a character chooses between text and picture.
const SEEN = new Set(["\t", "\n"]);
const SELECTORS = new Set(["\ufe0e", "\ufe0f"]);
const STACKED = /(\p{M}{4})(\p{M}+)/gu;
const NAMES: Readonly<Record<number, string>> = {
  8203: "zero width space",
  8206: "left-to-right mark",
  8207: "right-to-left mark",
  8234: "left-to-right embedding",
  8235: "right-to-left embedding",
  8236: "pop directional formatting",
  8237: "left-to-right override",
  8238: "right-to-left override",
  8294: "left-to-right isolate",
  8295: "right-to-left isolate",
  8296: "first strong isolate",
  8297: "pop directional isolate",
  65279: "zero width no-break space",
};

/** Split a text so that what cannot be seen becomes a mark; more than four stacked accents are cut to a mark. */
export function visible(text: string): Piece[] {
  const pieces: Piece[] = [];
  let from = 0;
  const unstacked = text.replace(STACKED, "$1\u034f");
  for (const found of unstacked.matchAll(UNSEEN)) {
    if (SEEN.has(found[0]) || isSelector(unstacked, found.index)) continue;
    if (found.index > from) pieces.push({ kind: "text", text: unstacked.slice(from, found.index) });
    pieces.push(markOf(found[0]));
    from = found.index + found[0].length;
  }
  if (from < unstacked.length) pieces.push({ kind: "text", text: unstacked.slice(from) });
  return pieces;
}

function markOf(character: string): Piece {
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16).toUpperCase().padStart(4, "0");
  const name = NAMES[code] ?? (code === 0x34f ? "joined or stacked accents" : "invisible character");
  return { kind: "mark", text: hex, name: `U+${hex} ${name}` };
}

/** Cut a text to at most `limit` UTF-16 units, between code points. */
export function cut(text: string, limit: number): string {
  if (text.length <= limit) return text;
  const last = text.charCodeAt(limit - 1);
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? limit - 1 : limit);
}

/** Return a token with its white space visible: "·" for a space, "⏎" and "⇥" for line feed and tab. */
export function whitespace(token: string): string {
  return token.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

function isSelector(text: string, index: number): boolean {
  return index > 0 && SELECTORS.has(text[index] ?? "") && !SELECTORS.has(text[index - 1] ?? "");
}
