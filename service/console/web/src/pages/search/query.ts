/** What is searched for, as the page's address holds it. Pure. */
import type { paths } from "@/api/schema";

export type ApiQuery = NonNullable<paths["/v1/explanations"]["get"]["parameters"]["query"]>;

/** The filters, each as written in the address; "" where there is none. */
export type Search = {
  q: string;
  model: string;
  concept: string;
  request: string;
  verified: "" | "true" | "false";
  max_anomaly_p: string;
  captured_after: string;
  captured_before: string;
};

export const EVERYTHING: Search = {
  q: "",
  model: "",
  concept: "",
  request: "",
  verified: "",
  max_anomaly_p: "",
  captured_after: "",
  captured_before: "",
};

/** p-values that may be asked for: readings of states at least as strange are indexed up to the largest. */
export const P_VALUES = ["0.05", "0.01", "0.001"] as const;
const NAMES = Object.keys(EVERYTHING) as (keyof Search)[];
const DEFAULT_PERIOD_MS = 7 * 86_400_000;

/** Read the filters of an address; what it has beside them is left alone. */
export function searchOf(address: string): Search {
  const given = new URLSearchParams(address);
  const found = Object.fromEntries(NAMES.map((name) => [name, (given.get(name) ?? "").trim()])) as Search;
  return { ...found, verified: ["true", "false"].includes(found.verified) ? found.verified : "" };
}

/** Write the filters as an address's query, in one order, so that equal searches have equal links. */
export function addressOf(search: Search): string {
  const written = new URLSearchParams();
  for (const name of NAMES) if (search[name] !== "") written.set(name, search[name]);
  return written.toString();
}

/** Words in texts are looked for since some time, or in one request: without either, the last week is taken. */
export function withPeriod(search: Search, now: Date): Search {
  if (search.q === "" || search.captured_after !== "" || search.request !== "") return search;
  const end = search.captured_before === "" ? now : new Date(search.captured_before);
  if (Number.isNaN(end.getTime())) return search;
  return { ...search, captured_after: seconds(new Date(end.getTime() - DEFAULT_PERIOD_MS)) };
}

/** Return the filters as the API takes them. */
export function apiQueryOf(search: Search): ApiQuery {
  const { verified, max_anomaly_p, ...texts } = search;
  const given = Object.fromEntries(Object.entries(texts).filter(([, value]) => value !== ""));
  return {
    ...given,
    ...(verified === "" ? {} : { verified: verified === "true" }),
    ...(max_anomaly_p === "" ? {} : { max_anomaly_p: Number(max_anomaly_p) }),
  };
}

/** Return a time of the address as an input of date and time shows it, in UTC; "" where it is none. */
export function inputOf(time: string): string {
  const at = new Date(time);
  return time === "" || Number.isNaN(at.getTime()) ? "" : at.toISOString().slice(0, 19);
}

/** Return what such an input says, which is UTC, as a time of the address. */
export function timeOf(input: string): string {
  const at = new Date(`${input}Z`);
  return input === "" || Number.isNaN(at.getTime()) ? "" : seconds(at);
}

function seconds(time: Date): string {
  return `${time.toISOString().slice(0, 19)}Z`;
}
