/** The policy: what is in force, what was, and what another one would have taken. */
import { useInfiniteQuery, useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import { Badge } from "@/ui/badge";
import { Field } from "@/ui/field";
import { whole } from "@/ui/numbers";
import { Absent, Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { figure, policyIn, RANGES, type Range, rangeOf, short } from "./figures";
import { Refusal, Scroll } from "./parts";

type Model = Schemas["ModelConfiguration"];
type Answer = Schemas["PolicyDryRun"];
const KINDS = { capture_policy: "capture", screen_policy: "screen" } as const;
type Kind = keyof typeof KINDS;

export default function Policy() {
  const may = useScope("coverage:read");
  const found = useQuery({
    queryKey: ["configuration"],
    enabled: may,
    queryFn: ({ signal }) => take(api.GET("/v1/configuration", { signal })),
  });
  const [chosen, setChosen] = useState<string | null>(null);
  if (!may) {
    return (
      <Absent
        what="The policy"
        why={
          <>
            Your key or group lacks the scope <code>coverage:read</code>.
          </>
        }
      />
    );
  }
  if (found.isPending) return <Loading what="what is in force" />;
  if (found.error !== null) return <Failed error={found.error} retry={() => void found.refetch()} />;
  const models = found.data.models;
  const model = models.find((one) => one.model === chosen) ?? models[0];
  if (model === undefined)
    return <Empty>No worker has read anything of any model, so no policy is known.</Empty>;
  return (
    <>
      <Field label="Model">
        <select value={model.model} onChange={(event) => setChosen(event.target.value)}>
          {models.map((one) => (
            <option key={one.model}>{one.model}</option>
          ))}
        </select>
      </Field>
      <InForce of={model} />
      <DryRun key={model.model} of={model} />
      <History model={model.model} />
    </>
  );
}

function versionsOf(model: Model, kind: Kind) {
  return model.kinds.find((one) => one.kind === kind)?.versions ?? [];
}

function InForce({ of }: { of: Model }) {
  return (
    <section className="panel" aria-labelledby="in-force">
      <h2 id="in-force">In force</h2>
      <p className="quiet">
        What processes reported within five minutes. A policy comes into force by the file that the sidecar
        follows (<code>--policy-file</code>): write it, and every engine takes it within seconds, without a
        restart. Nothing on this page changes it.
      </p>
      <div className="grid">
        {(Object.keys(KINDS) as Kind[]).map((kind) => {
          const versions = versionsOf(of, kind);
          return (
            <div key={kind}>
              <h3>{KINDS[kind]}</h3>
              {versions.length === 0 ? (
                <Absent
                  what={`The ${KINDS[kind]} policy`}
                  why="No process reported one within five minutes."
                />
              ) : (
                versions.map((one) => (
                  <div key={one.digest}>
                    <p>
                      <code>{short(one.digest)}</code>, by {whole(one.sources.length)} of its processes,
                      since <Time at={one.since} />
                    </p>
                    <Content of={one.content} label={`${KINDS[kind]} policy ${short(one.digest)}`} />
                  </div>
                ))
              )}
            </div>
          );
        })}
      </div>
    </section>
  );
}

function Content({ of, label }: { of: object | null; label: string }) {
  if (of === null) return <Absent what="The content" why="Nobody reported it." />;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to take the focus to be scrolled by keys
    <section aria-label={label} tabIndex={0} className="definition">
      <Untrusted text={JSON.stringify(of, null, 2)} className="mono" />
    </section>
  );
}

/** Return the document to begin with: what is in force, or the defaults. */
function begun(of: Model): string {
  const document: Record<string, unknown> = {};
  for (const kind of Object.keys(KINDS) as Kind[]) {
    document[KINDS[kind]] = versionsOf(of, kind)[0]?.content ?? {};
  }
  return JSON.stringify(document, null, 2);
}

function DryRun({ of }: { of: Model }) {
  const [text, setText] = useState(() => begun(of));
  const [range, setRange] = useState<Range>("day");
  const document = policyIn(text);
  const run = useMutation({
    mutationFn: (policy: Record<string, unknown>) =>
      take(
        api.POST("/v1/policy/dry-run", {
          body: { model: of.model, policy, ...rangeOf(range, new Date()) } as Schemas["ProposedPolicy"],
        }),
      ),
  });
  return (
    <section className="panel" aria-labelledby="dry-run">
      <h2 id="dry-run">Dry run: what would have been sampled</h2>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (document.fault === null) run.mutate(document.policy);
        }}
      >
        <Field
          label="Proposed policy, as JSON"
          hint="A field that is left out has its default, never what is in force."
          fault={document.fault}
        >
          <textarea
            className="document"
            spellCheck={false}
            value={text}
            onChange={(event) => setText(event.target.value)}
          />
        </Field>
        <Field label="On the requests of">
          <select value={range} onChange={(event) => setRange(event.target.value as Range)}>
            {Object.entries(RANGES).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </Field>
        <div className="row">
          <button type="submit" className="primary" disabled={document.fault !== null || run.isPending}>
            Work it out
          </button>
          <button type="button" onClick={() => setText(begun(of))}>
            Back to what is in force
          </button>
        </div>
      </form>
      <Refusal error={run.error} />
      {run.data !== undefined && <Result of={run.data} />}
    </section>
  );
}

function Result({ of }: { of: Answer }) {
  return (
    <section aria-labelledby="result">
      <h3 id="result">Result</h3>
      <p role="status">
        <Time at={of.from} /> to <Time at={of.to} />. {of.label}
      </p>
      <Scroll label="Figures by stratum">
        <table>
          <thead>
            <tr>
              <th scope="col">Stratum</th>
              <th scope="col">As it was</th>
              <th scope="col">Would be of it</th>
              <th scope="col">Requests taken</th>
              <th scope="col">Rows chosen</th>
              <th scope="col">Rows to decode</th>
            </tr>
          </thead>
          <tbody>
            {of.strata.map((one) => (
              <tr key={one.stratum}>
                <th scope="row">{one.stratum}</th>
                <td className="number">
                  {whole(one.was.sampled)} of {whole(one.was.requests)} requests, {whole(one.was.rows)}{" "}
                  rows, {whole(one.was.decoded)} decoded
                </td>
                <td className="number">
                  {whole(one.candidates)}, each at {one.rate}
                </td>
                <td className="number">{figure(one.requests)}</td>
                <td className="number">{figure(one.rows)}</td>
                <td className="number">{figure(one.decoded)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <p className="quiet">
        Limits hold 95 times in 100. “about”: estimated from requests that were taken
        {of.readings > 0 && `, of which ${whole(of.readings)} had readings`}. “not told”: bounds alone.
      </p>
      <h3>What this does not tell</h3>
      <ul className="plain-list">
        {of.limits.map((limit) => (
          <li key={limit.code}>{limit.detail}</li>
        ))}
      </ul>
    </section>
  );
}

function History({ model }: { model: string }) {
  const [kind, setKind] = useState<Kind>("capture_policy");
  const [opened, setOpened] = useState<string | null>(null);
  const found = useInfiniteQuery({
    queryKey: ["policy-changes", model, kind],
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/configuration/changes", {
          params: {
            query: { model, kind, limit: 50, ...(pageParam === null ? {} : { cursor: pageParam }) },
          },
          signal,
        }),
      ),
    getNextPageParam: (last) => last.next_cursor,
  });
  const items = found.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <section className="panel" aria-labelledby="history">
      <h2 id="history">History</h2>
      <Field label="Of the">
        <select value={kind} onChange={(event) => setKind(event.target.value as Kind)}>
          {Object.entries(KINDS).map(([value, name]) => (
            <option key={value} value={value}>
              {name} policy
            </option>
          ))}
        </select>
      </Field>
      {found.isPending && <Loading what="the history" />}
      {found.error !== null && <Failed error={found.error} retry={() => void found.refetch()} />}
      {found.isSuccess && items.length === 0 && <Empty>No version was ever reported for this model.</Empty>}
      <ul className="plain-list">
        {items.map((one) => (
          <li key={one.id}>
            <Time at={one.at} />{" "}
            <Badge tone={one.event === "lost" ? "warning" : "plain"}>{one.event}</Badge>{" "}
            <code>{short(one.digest)}</code> by <Untrusted text={one.source} limit={80} />{" "}
            <button
              type="button"
              className="plain"
              aria-expanded={opened === one.id}
              aria-label={`${opened === one.id ? "Hide" : "Show"} content of ${short(one.digest)}`}
              onClick={() => setOpened(opened === one.id ? null : one.id)}
            >
              {opened === one.id ? "Hide" : "Show"} content
            </button>
            {opened === one.id && <Version digest={one.digest} kind={kind} />}
          </li>
        ))}
      </ul>
      {found.hasNextPage && (
        <button type="button" disabled={found.isFetching} onClick={() => void found.fetchNextPage()}>
          Show older changes
        </button>
      )}
    </section>
  );
}

function Version({ digest, kind }: { digest: string; kind: Kind }) {
  const found = useQuery({
    queryKey: ["configuration-version", digest],
    staleTime: Number.POSITIVE_INFINITY, // a digest's content never changes
    queryFn: ({ signal }) =>
      take(api.GET("/v1/configuration/versions/{digest}", { params: { path: { digest } }, signal })),
  });
  if (found.isPending) return <Loading what="the version" />;
  if (found.error !== null) return <Failed error={found.error} retry={() => void found.refetch()} />;
  const version = found.data.items.find((one) => one.kind === kind);
  return <Content of={version?.content ?? null} label={`Version ${short(digest)}`} />;
}
