/** The filters. What is asked for stands in the page's address, so that a search is a link. */
import { useQuery } from "@tanstack/react-query";
import { memo, type ReactNode, useEffect, useState } from "react";
import { api, take } from "@/api/client";
import { Field } from "@/ui/field";
import { EVERYTHING, inputOf, P_VALUES, type Search, timeOf } from "./query";

/** Those that are folded away where there is little room. */
const FOLDED = ["model", "captured_after", "captured_before", "verified", "max_anomaly_p"] as const;

type Props = { search: Search; onSearch: (search: Search) => void };

export const Form = memo(function Form({ search, onSearch }: Props) {
  const [draft, setDraft] = useState(search);
  useEffect(() => setDraft(search), [search]);
  const models = useQuery({
    queryKey: ["models"],
    queryFn: ({ signal }) => take(api.GET("/v1/models", { signal })),
    staleTime: 300_000,
  });

  function bind(name: keyof Search) {
    return {
      value: draft[name],
      onChange: (event: { target: { value: string } }) =>
        setDraft({ ...draft, [name]: event.target.value }),
    };
  }
  function bindTime(name: "captured_after" | "captured_before") {
    return {
      type: "datetime-local",
      step: 1,
      value: inputOf(draft[name]),
      onChange: (event: { target: { value: string } }) =>
        setDraft({ ...draft, [name]: timeOf(event.target.value) }),
    };
  }

  return (
    <search>
      <form
        className="panel search-form"
        aria-label="Search readings"
        onSubmit={(event) => {
          event.preventDefault();
          onSearch(draft);
        }}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          // Out of the field, where J and K are keys again.
          const page = event.currentTarget.closest(".page");
          const to = page?.querySelector('[role="listbox"]') ?? page?.querySelector("h1");
          (to as HTMLElement | null | undefined)?.focus();
        }}
      >
        <Field
          label="Words in readings"
          hint={
            'All of them; "a phrase"; or between words; - before one to leave out. Stays in this address.'
          }
        >
          <input type="search" maxLength={200} autoComplete="off" {...bind("q")} />
        </Field>
        <Field label="Concept">
          <input maxLength={512} autoComplete="off" {...bind("concept")} />
        </Field>
        <Field label="Request">
          <input autoComplete="off" {...bind("request")} />
        </Field>
        <MoreFilters set={FOLDED.filter((name) => search[name] !== "").length}>
          <Field label="Model">
            <input list="search-models" maxLength={512} autoComplete="off" {...bind("model")} />
          </Field>
          <datalist id="search-models">
            {models.data?.items.map(({ id, name }) => (
              <option key={id} value={name} />
            ))}
          </datalist>
          <Field label="From (UTC)">
            <input {...bindTime("captured_after")} />
          </Field>
          <Field label="Before (UTC)">
            <input {...bindTime("captured_before")} />
          </Field>
          <Field label="Verified">
            <select {...bind("verified")}>
              <option value="">any</option>
              <option value="true">verified only</option>
              <option value="false">unverified only</option>
            </select>
          </Field>
          <Field label="Anomaly p-value">
            <select {...bind("max_anomaly_p")}>
              <option value="">any, or not scored</option>
              {P_VALUES.map((value) => (
                <option key={value} value={value}>
                  {value} or smaller
                </option>
              ))}
              {draft.max_anomaly_p !== "" &&
                !(P_VALUES as readonly string[]).includes(draft.max_anomaly_p) && (
                  <option value={draft.max_anomaly_p}>{draft.max_anomaly_p} or smaller</option>
                )}
            </select>
          </Field>
        </MoreFilters>
        <div className="row search-buttons">
          <button type="submit" className="primary">
            Search
          </button>
          <button type="button" onClick={() => onSearch(EVERYTHING)}>
            Clear
          </button>
        </div>
      </form>
    </search>
  );
});

/** Open where the screen is wide; on a phone it stays folded, and says how many filters in it are set. */
function MoreFilters({ set, children }: { set: number; children: ReactNode }) {
  const [isOpen, setOpen] = useState(() => matchMedia("(width >= 40rem)").matches);
  return (
    <details className="search-more" open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        More filters<span className="quiet">{set > 0 && `, ${set} set`}</span>
      </summary>
      <div className="search-fields">{children}</div>
    </details>
  );
}
