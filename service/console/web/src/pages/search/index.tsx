/** Search: readings by request, concept, model, time, anomaly, and words inside them. */
import { useCallback, useMemo } from "react";
import { Redirect, useLocation, useSearch } from "wouter";
import { useScope } from "@/app/session";
import { Page } from "@/ui/page";
import { Absent } from "@/ui/states";
import { Form } from "./form";
import { addressOf, type Search, searchOf, withPeriod } from "./query";
import { Results } from "./results";
import { SavedSearches } from "./saved";
import "./search.css";

const SELECTED = "selected";

export default function SearchPage() {
  const [, navigate] = useLocation();
  const address = useSearch();
  const mayList = useScope("explanations:read");
  const written = addressOf(searchOf(address));
  const search = useMemo(() => searchOf(written), [written]);
  const selected = new URLSearchParams(address).get(SELECTED);

  const bounded = addressOf(withPeriod(search, new Date()));

  const go = useCallback(
    (wanted: Search) => {
      const next = addressOf(withPeriod(wanted, new Date()));
      navigate(next === "" ? "/search" : `/search?${next}`);
    },
    [navigate],
  );
  function select(id: string | null) {
    const next = new URLSearchParams(written);
    if (id !== null) next.set(SELECTED, id);
    // Back leads to the search before, not to the row before.
    navigate(next.size === 0 ? "/search" : `/search?${next}`, { replace: true });
  }

  if (!mayList) {
    return (
      <Page title="Search">
        <Absent what="Search" why="Your key or group lacks the scope explanations:read." />
      </Page>
    );
  }
  // A link that was written by hand may ask for words and say no time.
  if (bounded !== written) return <Redirect to={`/search?${bounded}`} replace />;
  return (
    <Page title="Search">
      <Form search={search} onSearch={go} />
      <SavedSearches address={written} />
      <Results key={written} search={search} selected={selected} onSelect={select} />
    </Page>
  );
}
