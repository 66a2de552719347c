/** What text is read for, as the user stated it for this tab: the header of every request from then on. */

export const PURPOSES = {
  incident_response: "Incident response",
  compliance_review: "Compliance review",
  quality_review: "Quality review",
  debugging: "Debugging",
  subject_request: "A data subject's request",
  audit: "Audit",
} as const;

export type PurposeCode = keyof typeof PURPOSES;

const KEY = "subtext.purpose";
const MAX_NOTE = 500;
const heard = new Set<() => void>();
let stated: string | null = read();

function read(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // storage may be denied; then the purpose lasts until the page is left
  }
}

/** Return the header's value, or null while none was stated. */
export function statedPurpose(): string | null {
  return stated;
}

/** Return what is wrong with a note, or null: headers carry printable ASCII alone. */
export function noteFault(note: string): string | null {
  if (note.length > MAX_NOTE) return `At most ${MAX_NOTE} characters; this has ${note.length}.`;
  if (!/^[ -~]*$/.test(note)) return "Plain ASCII letters, digits and punctuation only.";
  return null;
}

/** State a purpose, or take it back with null. */
export function statePurpose(code: PurposeCode | null, note = ""): void {
  stated = code === null ? null : note.trim() === "" ? code : `${code}; ${note.trim()}`;
  try {
    if (stated === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, stated);
  } catch {
    // see read()
  }
  for (const tell of heard) tell();
}

export function hearPurpose(tell: () => void): () => void {
  heard.add(tell);
  return () => heard.delete(tell);
}
