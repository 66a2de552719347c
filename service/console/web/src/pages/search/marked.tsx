/** A reading's text with the words that were looked for: text nodes alone, isolated, nothing hidden in them. */
import { Fragment, type ReactNode } from "react";
import { visible } from "@/ui/visible";
import { excerpt, type Range } from "./highlight";

const SHOWN = 600;

export function Marked({ text, ranges }: { text: string; ranges: readonly Range[] }) {
  const { pieces, isCutBefore, isCutAfter } = excerpt(text, ranges, SHOWN);
  return (
    <bdi className="untrusted search-text">
      {isCutBefore && "… "}
      {pieces.map((piece, index) =>
        piece.isHit ? (
          // biome-ignore lint/suspicious/noArrayIndexKey: pieces have no other identity
          <mark key={index} className="search-hit">
            {shown(piece.text)}
          </mark>
        ) : (
          // biome-ignore lint/suspicious/noArrayIndexKey: pieces have no other identity
          <Fragment key={index}>{shown(piece.text)}</Fragment>
        ),
      )}
      {isCutAfter && " …"}
    </bdi>
  );
}

function shown(text: string): ReactNode[] {
  return visible(text).map((piece, index) =>
    piece.kind === "text" ? (
      piece.text
    ) : (
      // biome-ignore lint/suspicious/noArrayIndexKey: pieces have no other identity
      <span key={index} className="mark" title={piece.name} role="img" aria-label={piece.name}>
        {piece.text}
      </span>
    ),
  );
}
