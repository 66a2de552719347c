/** What a cell's colour, mark and words say, by lens. Pure. */
import { decimal, pValue } from "@/ui/numbers";
import type { Reading } from "./rows";

export const LENSES = ["fidelity", "anomaly", "concept", "surprise"] as const;
export type Lens = (typeof LENSES)[number];

export const LENS_NAMES: Record<Lens, string> = {
  fidelity: "Fidelity",
  anomaly: "Anomaly",
  concept: "Concept",
  surprise: "Next-token surprise",
};

/** Why a lens shows nothing here; the others have no reason. */
export const ABSENT: Partial<Record<Lens, string>> = {
  surprise: "no log-probability of the served model is captured",
};

/** `level` chooses colour and mark: -1 is not known, 0 nothing, 4 the most. */
export type Seen = { level: -1 | 0 | 1 | 2 | 3 | 4; words: string };

export function nextLens(lens: Lens): Lens {
  return LENSES[(LENSES.indexOf(lens) + 1) % LENSES.length] ?? "fidelity";
}

export function lensNamed(name: string | null): Lens | null {
  return LENSES.find((lens) => lens === name) ?? null;
}

export function see(lens: Lens, reading: Reading | null): Seen {
  const absent = ABSENT[lens];
  if (absent !== undefined) return { level: -1, words: `not available: ${absent}` };
  if (reading === null) return { level: -1, words: "no reading" };
  if (lens === "fidelity") return fidelity(reading);
  return lens === "anomaly" ? anomaly(reading) : concept(reading);
}

function fidelity(reading: Reading): Seen {
  const beyond = reading.fve_beyond_token;
  const value = beyond ?? reading.fve;
  const what = beyond === null ? "FVE" : "FVE beyond the token";
  const words = `${what} ${decimal(value)}, threshold ${decimal(reading.verified_above)}`;
  if (!reading.verified) return { level: 1, words: `${words}, unverified` };
  return { level: value >= 0.6 ? 4 : value >= 0.3 ? 3 : 2, words: `${words}, verified` };
}

function anomaly(reading: Reading): Seen {
  const { anomaly_score: score, anomaly_p_value: p } = reading;
  if (score === null) return { level: -1, words: "anomaly not scored" };
  const told = `anomaly score ${decimal(score)}${p === null ? "" : `, uncorrected p ${pValue(p)}`}`;
  if (score < 0.5) return { level: 0, words: told };
  if (score < 1) return { level: 1, words: told };
  return { level: score >= 2 ? 4 : 3, words: `${told}, beyond the benign 99th percentile` };
}

function concept(reading: Reading): Seen {
  if (reading.concepts.length === 0) return { level: 0, words: "no concept matched" };
  const words = `matched ${reading.concepts.join(", ")}`;
  return reading.verified
    ? { level: 4, words: `${words}, verified` }
    : { level: 2, words: `${words}, unverified: does not count for a flag` };
}

/** The legend of a lens: what each level means. */
export const LEGEND: Record<Lens, readonly { level: Seen["level"]; words: string }[]> = {
  fidelity: [
    { level: -1, words: "no reading" },
    { level: 1, words: "unverified" },
    { level: 2, words: "verified" },
    { level: 3, words: "verified, FVE 0.3 or more" },
    { level: 4, words: "verified, FVE 0.6 or more" },
  ],
  anomaly: [
    { level: -1, words: "not scored" },
    { level: 0, words: "below 0.5" },
    { level: 1, words: "0.5 to 1" },
    { level: 3, words: "beyond the benign 99th percentile" },
    { level: 4, words: "twice as far or more" },
  ],
  concept: [
    { level: -1, words: "no reading" },
    { level: 0, words: "nothing matched" },
    { level: 2, words: "matched, unverified" },
    { level: 4, words: "matched, verified" },
  ],
  surprise: [],
};
