/** What was not looked at, by hour and reason, for any range of time. */
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useLocation, useSearch } from "wouter";
import type { Schemas } from "@/api/client";
import { useScope } from "@/app/session";
import { Field } from "@/ui/field";
import { whole } from "@/ui/numbers";
import { Page } from "@/ui/page";
import { NeedsScope } from "@/ui/scoped";
import { Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { statementOf } from "./ahead";
import { ModelCoverage } from "./model";
import { inputOf, type Range, rangeOf, searchOf, timeOf } from "./range";

export default function CoveragePage() {
  const hasCoverage = useScope("coverage:read");
  const search = useSearch();
  const [, go] = useLocation();
  const [opened] = useState(Date.now);
  const range = rangeOf(search, opened);
  const statement = useQuery({ ...statementOf(range), enabled: hasCoverage });
  if (!hasCoverage) {
    return (
      <Page title="Coverage">
        <NeedsScope what="Coverage" scope="coverage:read" />
      </Page>
    );
  }
  return (
    <Page title="Coverage">
      <RangeForm range={range} onChange={(next) => go(`/coverage?${searchOf(next)}`)} />
      {statement.isPending && <Loading what="the statement" />}
      {statement.error && <Failed error={statement.error} retry={() => void statement.refetch()} />}
      {statement.data && <Statement found={statement.data} />}
    </Page>
  );
}

function RangeForm({ range, onChange }: { range: Range; onChange: (next: Range) => void }) {
  const [shown, setShown] = useState(range);
  const [from, setFrom] = useState(inputOf(range.from));
  const [to, setTo] = useState(inputOf(range.to));
  const [resolution, setResolution] = useState(range.resolution);
  if (searchOf(shown) !== searchOf(range)) {
    setShown(range);
    setFrom(inputOf(range.from));
    setTo(inputOf(range.to));
    setResolution(range.resolution);
  }
  const [start, end] = [timeOf(from), timeOf(to)];
  const fault =
    start !== null && end !== null && start >= end ? "The end has to be later than the start." : null;
  return (
    <form
      className="row"
      onSubmit={(event) => {
        event.preventDefault();
        if (start !== null && end !== null && fault === null)
          onChange({ from: start, to: end, resolution });
      }}
    >
      <Field label="From (UTC)">
        <input
          type="datetime-local"
          value={from}
          onChange={(event) => setFrom(event.target.value)}
          required
        />
      </Field>
      <Field label="To (UTC)" fault={fault}>
        <input type="datetime-local" value={to} onChange={(event) => setTo(event.target.value)} required />
      </Field>
      <Field label="By">
        <select
          value={resolution}
          onChange={(event) => setResolution(event.target.value === "day" ? "day" : "hour")}
        >
          <option value="hour">hour</option>
          <option value="day">day</option>
        </select>
      </Field>
      <button type="submit" className="primary" disabled={fault !== null}>
        Show
      </button>
    </form>
  );
}

function Statement({ found }: { found: Schemas["CoverageStatement"] }) {
  return (
    <>
      <p className="quiet">
        From <Time at={found.from} /> to <Time at={found.to} />, by {found.resolution}, as it was known at{" "}
        <Time at={found.as_of} />. Later minutes are not in it.
      </p>
      {found.models.length === 0 && (
        <Empty>No model has been audited: nothing was counted and nothing was read in this range.</Empty>
      )}
      {found.models.map((model) => (
        <ModelCoverage key={model.model} model={model} resolution={found.resolution} />
      ))}
      <BlindSpots spots={found.blind_spots} />
      <Removed found={found} />
    </>
  );
}

function BlindSpots({ spots }: { spots: Schemas["BlindSpot"][] }) {
  return (
    <section className="panel" aria-labelledby="blind">
      <h2 id="blind">What these figures cannot see</h2>
      {spots.length === 0 && <Empty>Nothing that is known.</Empty>}
      <ul>
        {spots.map((spot) => (
          <li key={spot.code}>
            {spot.detail}{" "}
            <span className="number quiet">
              {spot.count === null || spot.count === undefined
                ? "Nobody can count it."
                : `${whole(spot.count)} in this range.`}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Removed({ found }: { found: Schemas["CoverageStatement"] }) {
  const { erasures } = found;
  return (
    <section className="panel" aria-labelledby="removed">
      <h2 id="removed">What was there and is not any more, and what is held</h2>
      {found.removals.length === 0 ? (
        <p>Retention removed nothing of this range.</p>
      ) : (
        <ul>
          {found.removals.map((one) => (
            <li key={`${one.run} ${one.model}`}>
              Retention removed {whole(one.explanations)} explanations of{" "}
              <Untrusted text={one.model} limit={80} />, captured from <Time at={one.first_captured_at} />{" "}
              to <Time at={one.last_captured_at} />, within this range or not
              {one.is_finished ? "" : "; it is not finished"}.
            </li>
          ))}
        </ul>
      )}
      <p className="number">
        Erasures, of all models and as of now: {whole(erasures.open)} of {whole(erasures.total)} open,{" "}
        {whole(erasures.overdue)} of the open ones overdue, {whole(erasures.held)} kept open by a legal
        hold.
      </p>
      <p className="number">Legal holds that reach into this range: {whole(found.legal_holds.length)}.</p>
    </section>
  );
}
