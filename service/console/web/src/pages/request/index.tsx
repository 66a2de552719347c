/** One request: what was found on it, which tokens, what was read there, how far to trust it, what was not seen. */
import { memo, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { navigate, usePathname } from "wouter/use-browser-location";
import { ApiError, CONSOLE, type Schemas } from "@/api/client";
import { isNowhere } from "@/app/focus";
import { useShortcuts } from "@/app/keys";
import { usePurpose } from "@/app/purpose";
import { useSession } from "@/app/session";
import { whole } from "@/ui/numbers";
import { Page } from "@/ui/page";
import { Absent, Failed, Loading } from "@/ui/states";
import { utc } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { requestInAddress, searchOf, selectionOf } from "./address";
import { firstLayer } from "./ahead";
import { useIncidents, usePositions, useReport } from "./data";
import { Drawer } from "./drawer";
import { ABSENT, LEGEND, LENS_NAMES, LENSES, type Lens, lensNamed, nextLens } from "./lens";
import { Preview } from "./preview";
import { indexAt } from "./rows";
import { Strip } from "./strip";
import { Verdicts } from "./verdicts";
import "./request.css";

export default function RequestPage() {
  const id = requestInAddress(usePathname(), CONSOLE);
  return (
    <Page title="Request" actions={<CopyLink />}>
      {id === null || id === "" ? (
        <Absent what="This request" why="The address holds no request id that can be read." />
      ) : (
        <Found key={id} id={id} />
      )}
    </Page>
  );
}

function Found({ id }: { id: string }) {
  const [capture, setCapture] = useState(() => selectionOf(location.search).capture);
  const report = useReport(id, capture);
  const incidents = useIncidents(id);
  return (
    <>
      <p className="request-id">
        <Untrusted className="mono" text={id} limit={240} />
      </p>
      {report.isPending && <Loading what="the request" />}
      {report.error !== null && <Missing error={report.error} retry={() => void report.refetch()} />}
      {report.data !== undefined && (
        <Captures
          report={report.data}
          id={id}
          wanted={capture}
          onNewest={() => setCapture(null)}
          incidents={incidents.data?.items}
        />
      )}
    </>
  );
}

function Missing({ error, retry }: { error: Error; retry: () => void }) {
  if (!(error instanceof ApiError) || error.status !== 404) return <Failed error={error} retry={retry} />;
  return (
    <Absent
      what="Readings of this request"
      why={
        <>
          Nothing is stored under this id. It was not sampled, not audited, or is not decoded yet.{" "}
          <strong>This does not say that it was clean.</strong>{" "}
          <button type="button" onClick={retry}>
            Look again
          </button>
        </>
      }
    />
  );
}

function Captures({
  report,
  id,
  wanted,
  onNewest,
  incidents,
}: {
  report: Schemas["RequestReport"];
  id: string;
  wanted: string | null;
  onNewest: () => void;
  incidents: readonly Schemas["Incident"][] | undefined;
}) {
  const [number, setNumber] = useState(0);
  const capture = report.captures[number] ?? report.captures[0];
  if (capture === undefined) {
    return (
      <Absent
        what="This capture"
        why={`The id has ${whole(report.captures_total)} captures, and none with this identity. This does not say that it was clean.`}
      />
    );
  }
  return (
    <>
      {report.captures_total > 1 && (
        <p className="row">
          {report.captures.length > 1 && (
            <>
              <label htmlFor="capture">Capture</label>
              <select
                id="capture"
                value={number}
                onChange={(event) => setNumber(Number(event.target.value))}
              >
                {report.captures.map((one, index) => (
                  <option key={one.capture_id ?? `${one.first_captured_at} ${one.model}`} value={index}>
                    {utc(new Date(one.first_captured_at))} {one.model.slice(0, 60)}
                  </option>
                ))}
              </select>
            </>
          )}
          <span className="quiet">
            {whole(report.captures.length)} of {whole(report.captures_total)} captures that came under this
            id, newest first. Clients choose ids: they may be of several requests.
          </span>
          {wanted !== null && (
            <button type="button" onClick={onNewest}>
              Show the newest
            </button>
          )}
        </p>
      )}
      <Capture key={`${capture.capture_id} ${capture.first_captured_at}`} {...{ capture, id, incidents }} />
    </>
  );
}

function Capture({
  capture,
  id,
  incidents,
}: {
  capture: Schemas["Capture"];
  id: string;
  incidents: readonly Schemas["Incident"][] | undefined;
}) {
  const [asked] = useState(() => selectionOf(location.search));
  const [layer, setLayer] = useState(asked.layer ?? firstLayer(capture));
  const [lens, setLens] = useState<Lens>(
    lensNamed(asked.lens) ?? (capture.flags.length > 0 ? "concept" : "fidelity"),
  );
  const [decoder, setDecoder] = useState<string | null>(null);
  const [position, setPosition] = useState(asked.position);
  const [isLocked, setLocked] = useState(asked.position !== null);
  const [hovered, setHovered] = useState(-1);
  const strip = useRef<HTMLDivElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const positions = usePositions(id, capture, layer);
  const { rows } = positions;
  const isThere = position !== null && (positions.isComplete || (rows.at(-1)?.position ?? -1) >= position);
  const selected = isThere ? indexAt(rows, position) : -1;
  const mayRead = useSession().may_read_text;
  const purpose = usePurpose();
  const isWithheld = !mayRead || purpose === null;
  const decoders = useMemo(
    () => [...new Set(rows.flatMap((row) => row.readings.map((one) => one.decoder_id)))],
    [rows],
  );

  // Not at every key press: a browser refuses more than some hundred changes of its address in a row.
  useEffect(() => {
    const timer = setTimeout(
      () => write({ capture: capture.capture_id, model: capture.model, layer, position, lens }),
      200,
    );
    return () => clearTimeout(timer);
  }, [capture.capture_id, capture.model, layer, position, lens]);

  const select = useCallback(
    (index: number) => {
      const row = rows[Math.min(Math.max(index, 0), rows.length - 1)];
      if (row !== undefined) setPosition(row.position);
    },
    [rows],
  );

  function step(to: number) {
    if (isNowhere()) strip.current?.focus();
    select(to);
  }

  const lock = useCallback(
    (index: number, isByKey = false) => {
      select(index);
      setLocked(true);
      if (isByKey) requestAnimationFrame(() => heading.current?.focus());
    },
    [select],
  );
  const lockFromList = useCallback((index: number) => lock(index, true), [lock]);

  function close() {
    setLocked(false);
    strip.current?.focus();
  }

  useShortcuts({
    j: () => step(selected + 1),
    k: () => step(Math.max(0, selected - 1)),
    l: () => setLens(nextLens(lens)),
    enter: () => {
      if (rows.length > 0) lock(Math.max(selected, 0), true);
    },
    escape: () => {
      if (isLocked) close();
    },
  });

  return (
    <>
      <Verdicts {...{ id, capture, incidents, positions, decoder, isWithheld }} onSelect={lockFromList} />
      <section aria-label="Tokens" className={isLocked && selected >= 0 ? "tokens with-drawer" : "tokens"}>
        <div className="strip-part">
          <div className="row strip-tools">
            <label>
              Lens{" "}
              <select value={lens} onChange={(event) => setLens(lensNamed(event.target.value) ?? lens)}>
                {LENSES.map((one) => (
                  <option key={one} value={one}>
                    {LENS_NAMES[one]}
                    {ABSENT[one] !== undefined && " (not available)"}
                  </option>
                ))}
              </select>
            </label>
            {positions.layers.length > 1 && (
              <label>
                Layer{" "}
                <select
                  value={positions.layer ?? ""}
                  onChange={(event) => setLayer(Number(event.target.value))}
                >
                  {positions.layers.map((one) => (
                    <option key={one.layer} value={one.layer}>
                      {one.layer} ({whole(one.positions)} {one.positions === 1 ? "position" : "positions"})
                    </option>
                  ))}
                </select>
              </label>
            )}
            {decoders.length > 1 && (
              <label>
                Decoder{" "}
                <select value={decoder ?? ""} onChange={(event) => setDecoder(event.target.value || null)}>
                  <option value="">the newest reading</option>
                  {decoders.map((one) => (
                    <option key={one} value={one}>
                      {one.slice(0, 8)}
                    </option>
                  ))}
                </select>
              </label>
            )}
            <span className="quiet number" role="status">
              {positions.layer === null
                ? ""
                : positions.isComplete
                  ? `${whole(rows.length)} of ${whole(rows.length)} sampled positions`
                  : `${whole(rows.length)} of ${whole(positions.total)} sampled positions so far`}
            </span>
          </div>
          <Legend lens={lens} />
          {positions.error !== null && <Failed error={positions.error} retry={positions.retry} />}
          {positions.layer === null && positions.error === null && <Loading what="the tokens" />}
          {positions.layer !== null && rows.length === 0 && (
            <Absent
              what={`Positions at layer ${positions.layer}`}
              why="None was sampled there. This does not say that it was clean."
            />
          )}
          {rows.length > 0 && (
            <>
              <Strip
                {...{ rows, lens, decoder, selected, isLocked }}
                frame={strip}
                onHover={setHovered}
                onSelect={select}
                onLock={(index) => lock(index)}
              />
              <Preview
                rows={rows}
                index={hovered >= 0 ? hovered : selected}
                lens={lens}
                decoder={decoder}
                flags={capture.flags}
              />
              <p className="hint">
                <kbd>J</kbd> <kbd>K</kbd> next and previous sampled token, <kbd>Enter</kbd> its reading,{" "}
                <kbd>Esc</kbd> closes, <kbd>L</kbd> changes the lens. · is a space, ⏎ a line feed, ⇥ a tab.
                {isWithheld && " Tokens are withheld: cells show their positions."}
              </p>
            </>
          )}
        </div>
        {isLocked && selected >= 0 ? (
          <Drawer
            {...{ rows, decoder, heading }}
            index={selected}
            asked={position}
            flags={capture.flags}
            onSelect={select}
            onClose={close}
          />
        ) : (
          <p className="state drawer-place">
            What was read at a token comes here: click one, or press Enter.
          </p>
        )}
      </section>
    </>
  );
}

const Legend = memo(function Legend({ lens }: { lens: Lens }) {
  const absent = ABSENT[lens];
  if (absent !== undefined) {
    return (
      <Absent
        what={LENS_NAMES[lens]}
        why={`The records of activations carry none: ${absent}. What a reading expects next, and whether it came, stands beside its text.`}
      />
    );
  }
  return (
    <ul
      className={`legend lens-${lens}`}
      aria-label={`What the marks of the lens ${LENS_NAMES[lens]} mean`}
    >
      {LEGEND[lens].map(({ level, words }) => (
        <li key={level}>
          <span className={`cell level-${level}`} aria-hidden="true" /> {words}
        </li>
      ))}
      <li>
        <span className="cell gap" aria-hidden="true" /> not sampled
      </li>
    </ul>
  );
});

function write(selection: Parameters<typeof searchOf>[0]) {
  const search = searchOf(selection);
  const next = location.pathname + (search === "" ? "" : `?${search}`);
  if (next !== location.pathname + location.search) navigate(next, { replace: true });
}

function CopyLink() {
  const [told, setTold] = useState("");
  async function copy() {
    try {
      await navigator.clipboard.writeText(location.href);
      setTold("Copied");
    } catch {
      setTold("Copy it from the address bar: this browser or address refuses it here.");
    }
  }
  return (
    <span className="row">
      <span role="status" className="quiet">
        {told}
      </span>
      <button type="button" onClick={() => void copy()}>
        Copy link
      </button>
    </span>
  );
}
