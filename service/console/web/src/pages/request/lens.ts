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

/** It chooses colour and mark: -1 is not known, 0 nothing, 4 the most. */
export type Level = -1 | 0 | 1 | 2 | 3 | 4;
export type Seen = { level: Level; words: string };

/** Those by which readings differ. */
const SHOWING = LENSES.filter((lens) => ABSENT[lens] === undefined);

export function nextLens(lens: Lens): Lens {
  return LENSES[(LENSES.indexOf(lens) + 1) % LENSES.length] ?? "fidelity";
}

export function lensNamed(name: string | null): Lens | null {
  return LENSES.find((lens) => lens === name) ?? null;
}

export function see(lens: Lens, reading: Reading | null): Seen {
  return { level: levelOf(lens, reading), words: wordsOf(lens, reading) };
}

/** Return a cell's classes, its level by each lens: another lens is another class of the strip, and no cell is drawn anew. */
export function classesOf(reading: Reading | null): string {
  const marks = SHOWING.map((lens) => `${lens.charAt(0)}${levelOf(lens, reading)}`);
  return marks.join(" ");
}

function levelOf(lens: Lens, reading: Reading | null): Level {
  if (ABSENT[lens] !== undefined || reading === null) return -1;
  if (lens === "fidelity") return fidelity(reading);
  return lens === "anomaly" ? anomaly(reading) : concept(reading);
}

function fidelity(reading: Reading): Level {
  const value = reading.fve_beyond_token ?? reading.fve;
  if (!reading.verified) return 1;
  return value >= 0.6 ? 4 : value >= 0.3 ? 3 : 2;
}

function anomaly({ anomaly_score: score }: Reading): Level {
  if (score === null) return -1;
  if (score < 0.5) return 0;
  if (score < 1) return 1;
  return score >= 2 ? 4 : 3;
}

function concept(reading: Reading): Level {
  if (reading.concepts.length === 0) return 0;
  return reading.verified ? 4 : 2;
}

export function wordsOf(lens: Lens, reading: Reading | null): string {
  const absent = ABSENT[lens];
  if (absent !== undefined) return `not available: ${absent}`;
  if (reading === null) return "no reading";
  if (lens === "fidelity") return fidelityWords(reading);
  return lens === "anomaly" ? anomalyWords(reading) : conceptWords(reading);
}

function fidelityWords(reading: Reading): string {
  const beyond = reading.fve_beyond_token;
  const what = beyond === null ? "FVE" : "FVE beyond the token";
  const is = reading.verified ? "verified" : "unverified";
  return `${what} ${decimal(beyond ?? reading.fve)}, threshold ${decimal(reading.verified_above)}, ${is}`;
}

function anomalyWords({ anomaly_score: score, anomaly_p_value: p }: Reading): string {
  if (score === null) return "anomaly not scored";
  const told = `anomaly score ${decimal(score)}${p === null ? "" : `, uncorrected p ${pValue(p)}`}`;
  return score < 1 ? told : `${told}, beyond the benign 99th percentile`;
}

function conceptWords(reading: Reading): string {
  if (reading.concepts.length === 0) return "no concept matched";
  const words = `matched ${reading.concepts.join(", ")}`;
  return reading.verified ? `${words}, verified` : `${words}, unverified: does not count for a flag`;
}

/** The legend of a lens: what each level means. */
export const LEGEND: Record<Lens, readonly { level: Level; words: string }[]> = {
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
