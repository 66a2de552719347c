/** Searches that the user named: links, kept in this browser and nowhere else. */
import { memo, useId, useState } from "react";
import { Link } from "wouter";
import { Untrusted } from "@/ui/untrusted";
import { LONGEST_NAME, readSaved, withSaved, writeSaved } from "./saved-list";

export const SavedSearches = memo(function SavedSearches({ address }: { address: string }) {
  const [saved, setSaved] = useState(() => readSaved(localStorage));
  const [name, setName] = useState("");
  const id = useId();

  return (
    <details className="panel">
      <summary>Saved searches ({saved.length})</summary>
      <p className="hint">Each is a link, kept in this browser alone.</p>
      <ul className="search-saved">
        {saved.map((one) => (
          <li key={one.name} className="row">
            <Link href={`/search?${one.address}`}>
              <Untrusted text={one.name} limit={LONGEST_NAME} />
            </Link>
            <button
              type="button"
              className="plain"
              aria-label={`Forget ${one.name}`}
              onClick={() =>
                setSaved(
                  writeSaved(
                    localStorage,
                    saved.filter(({ name: other }) => other !== one.name),
                  ),
                )
              }
            >
              ✕
            </button>
          </li>
        ))}
      </ul>
      <form
        className="row"
        onSubmit={(event) => {
          event.preventDefault();
          setSaved(writeSaved(localStorage, withSaved(saved, name, address)));
          setName("");
        }}
      >
        <label htmlFor={id}>Name of this search</label>
        <input
          id={id}
          value={name}
          maxLength={LONGEST_NAME}
          onChange={(event) => setName(event.target.value)}
          required
        />
        <button type="submit">Save</button>
      </form>
    </details>
  );
});
