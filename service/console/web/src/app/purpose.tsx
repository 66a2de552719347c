/** Asking for the text: a purpose is stated, and the service enters it beside every text that it shows. */
import { useQueryClient } from "@tanstack/react-query";
import { useState, useSyncExternalStore } from "react";
import { SESSION } from "@/app/caller";
import {
  hearPurpose,
  noteFault,
  PURPOSES,
  type PurposeCode,
  statedPurpose,
  statePurpose,
} from "@/app/purpose-store";
import { useSession } from "@/app/session";
import { DialogBox } from "@/ui/dialog";
import { Field } from "@/ui/field";

/** Return the stated purpose, or null. */
export function usePurpose(): string | null {
  return useSyncExternalStore(hearPurpose, statedPurpose);
}

/** The header's control: which purpose is stated, and the way to change it. */
export function PurposeControl() {
  const purpose = usePurpose();
  const session = useSession();
  const [open, setOpen] = useState(false);
  if (!session.may_read_text) return <span className="quiet">no right to read text</span>;
  return (
    <>
      <button type="button" className="plain" onClick={() => setOpen(true)}>
        {purpose === null ? "Text withheld: state a purpose" : `Purpose: ${nameOf(purpose)}`}
      </button>
      <PurposeDialog isOpen={open} onClose={() => setOpen(false)} />
    </>
  );
}

/** A button where a text is withheld: opens the dialog, or says that the scope is missing. */
export function AskForText() {
  const session = useSession();
  const [open, setOpen] = useState(false);
  if (!session.may_read_text) {
    return (
      <p className="quiet">
        Text is withheld. Your key or group lacks the scope <code>explanations:read_text</code>; an operator
        can give it: <code>subtext key create --role text-reader</code>.
      </p>
    );
  }
  return (
    <>
      <button type="button" onClick={() => setOpen(true)}>
        State a purpose to read the text
      </button>
      <PurposeDialog isOpen={open} onClose={() => setOpen(false)} />
    </>
  );
}

function PurposeDialog({ isOpen, onClose }: { isOpen: boolean; onClose: () => void }) {
  const queries = useQueryClient();
  const [code, setCode] = useState<PurposeCode>("incident_response");
  const [note, setNote] = useState("");
  const fault = noteFault(note);

  function state(next: PurposeCode | null) {
    statePurpose(next, note);
    // Who is signed in stays; without an answer the whole frame would be drawn anew.
    void queries.resetQueries({ predicate: ({ queryKey }) => queryKey[0] !== SESSION[0] });
    onClose();
  }

  return (
    <DialogBox title="What is the text read for?" isOpen={isOpen} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (fault === null) state(code);
        }}
      >
        <p>
          Texts and tokens may be personal data. Purpose, time, and what was shown stay in the access log
          for good; write no personal data into the note.
        </p>
        <Field label="Purpose">
          <select value={code} onChange={(event) => setCode(event.target.value as PurposeCode)}>
            {Object.entries(PURPOSES).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </Field>
        <Field label="Note, optional, as a ticket's number" fault={fault}>
          <input value={note} onChange={(event) => setNote(event.target.value)} maxLength={600} />
        </Field>
        <div className="row">
          <button type="submit" className="primary" disabled={fault !== null}>
            Show text
          </button>
          <button type="button" onClick={() => state(null)}>
            Withhold text
          </button>
        </div>
      </form>
    </DialogBox>
  );
}

function nameOf(purpose: string): string {
  const code = purpose.split(";", 1)[0] ?? "";
  return code in PURPOSES ? PURPOSES[code as PurposeCode] : code;
}
