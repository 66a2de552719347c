/** Readings, ids and names come from strangers: shown as text, isolated, bounded, with nothing hidden in them. */
import { useState } from "react";
import { whole } from "@/ui/numbers";
import { cut, visible } from "@/ui/visible";

type Props = {
  text: string;
  /** Characters that are shown at first. */
  limit?: number;
  className?: string;
};

export function Untrusted({ text, limit = 2000, className }: Props) {
  const [shown, setShown] = useState(limit);
  const pieces = visible(cut(text, shown));
  return (
    <>
      <bdi className={className ? `untrusted ${className}` : "untrusted"}>
        {pieces.map((piece, index) =>
          piece.kind === "text" ? (
            piece.text
          ) : (
            // biome-ignore lint/suspicious/noArrayIndexKey: pieces have no other identity
            <span key={index} className="mark" title={piece.name} role="img" aria-label={piece.name}>
              {piece.text}
            </span>
          ),
        )}
        {shown < text.length && "…"}
      </bdi>
      {shown < text.length && limit >= 200 && (
        <button type="button" className="plain" onClick={() => setShown(shown + 10_000)}>
          Show more of {whole(text.length)} characters
        </button>
      )}
    </>
  );
}
