/** Giving a verdict: reason, concepts, note. When something happened meanwhile, it says what, and keeps what was written. */
import { useState } from "react";
import { ApiError } from "@/api/client";
import { DialogBox } from "@/ui/dialog";
import { Field } from "@/ui/field";
import type { Decision } from "./data";
import { Events } from "./history";
import { conceptsOf, isUndecided, type Report, since, tickedAtFirst, type Verdict, words } from "./queue";

const MAX_NOTE = 2000;
const TITLES = { confirmed: "Confirm the incident", dismissed: "Dismiss the incident" } as const;
const DONE = { confirmed: "Confirm", dismissed: "Dismiss" } as const;

type Props = {
  incident: Report;
  to: Verdict;
  onClose: () => void;
  /** Give the verdict; what it raises is shown here. */
  decide: (decision: Decision) => Promise<void>;
  /** Read the incident again. */
  refresh: () => Promise<Report>;
};

export function VerdictDialog({ incident, to, onClose, decide, refresh }: Props) {
  // The verdict is on what was read when the dialog opened, until somebody has seen what came since.
  const [seen, setSeen] = useState(incident);
  const [before, setBefore] = useState<number | null>(null);
  const [reason, setReason] = useState<Decision["reason"] | null>(null);
  const [concepts, setConcepts] = useState(() => tickedAtFirst(incident));
  const [note, setNote] = useState("");
  const [error, setError] = useState<Error | null>(null);
  const [isBusy, setBusy] = useState(false);
  const reasons = seen.transitions.find((allowed) => allowed.to === to)?.reason_codes ?? [];
  const isPossible = reasons.length > 0;

  async function submit() {
    if (reason === null) {
      setError(new Error("Choose a reason."));
      return;
    }
    setBusy(true);
    setError(null);
    try {
      await decide({ version: seen.version, to, reason, note, concepts });
    } catch (caught) {
      setError(caught as Error);
      if (caught instanceof ApiError && caught.code === "incident_changed") {
        setBefore(before ?? seen.version);
        setSeen(await refresh());
      }
      setBusy(false);
    }
  }

  return (
    <DialogBox title={TITLES[to]} isOpen onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        {seen.second_review && isUndecided(seen.state) && <SecondReview incident={seen} />}
        {before !== null && (
          <div role="alert" className="state fault">
            <p>
              Not given: this happened since you read it. Read it, then decide anew; what you wrote is kept.
            </p>
            <Events events={since(seen.events, before)} />
            {!isPossible && (
              <p>
                It is {seen.state} now, so it cannot be {to} from here.
              </p>
            )}
          </div>
        )}
        <fieldset className="choices">
          <legend>Reason</legend>
          {(isPossible ? reasons : reason === null ? [] : [reason]).map((code) => (
            <label key={code}>
              <input
                type="radio"
                name="reason"
                checked={code === reason}
                onChange={() => setReason(code)}
              />
              {words(code)}
            </label>
          ))}
        </fieldset>
        {to === "confirmed" && <Concepts incident={seen} ticked={concepts} onTick={setConcepts} />}
        <Field
          label="Note, optional"
          hint="Shown to everybody who may read incidents, and never changed: no personal data."
        >
          <textarea
            rows={3}
            maxLength={MAX_NOTE}
            value={note}
            onChange={(event) => setNote(event.target.value)}
          />
        </Field>
        {error !== null && before === null && (
          <p role="alert" className="fault">
            {error.message}
          </p>
        )}
        <div className="row">
          <button type="submit" className="primary" disabled={isBusy || !isPossible}>
            {DONE[to]}
            {before !== null && ` at version ${seen.version}`}
          </button>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
        </div>
      </form>
    </DialogBox>
  );
}

function SecondReview({ incident }: { incident: Report }) {
  return (
    <p className="state">
      {incident.proposal === null
        ? "A concept of it asks for two reviewers: this is the first verdict, and another reviewer has to give the same one."
        : `A first reviewer said ${incident.proposal.to}. The same state and the same concepts decide it; another verdict takes the first one's place.`}
    </p>
  );
}

type ConceptsProps = { incident: Report; ticked: string[]; onTick: (concepts: string[]) => void };

function Concepts({ incident, ticked, onTick }: ConceptsProps) {
  const concepts = conceptsOf(incident);
  if (concepts.length === 0) return null;
  return (
    <fieldset className="choices">
      <legend>Which concepts hold? The others count as wrong.</legend>
      {concepts.map((concept) => (
        <label key={concept}>
          <input
            type="checkbox"
            checked={ticked.includes(concept)}
            onChange={(event) =>
              onTick(event.target.checked ? [...ticked, concept] : ticked.filter((one) => one !== concept))
            }
          />
          {concept}
        </label>
      ))}
      {ticked.length === 0 && <p className="hint">None: something else than its concepts holds.</p>}
    </fieldset>
  );
}
