/** What a stream of events has told by now. Pure. */
import type { Schemas } from "@/api/client";

export type LiveStatus = "connecting" | "live" | "away" | "ended" | "refused";

export type LiveState = {
  status: LiveStatus;
  /** When the store was last asked, as far as we were told. */
  lookedAt: string | null;
  coverage: Schemas["LiveCoverage"] | null;
  readings: Schemas["LiveReadings"] | null;
  incidents: Schemas["LiveIncidents"] | null;
};

export const NOTHING: LiveState = {
  status: "connecting",
  lookedAt: null,
  coverage: null,
  readings: null,
  incidents: null,
};

export const LIVE_EVENTS = ["coverage", "readings", "incidents", "looked", "end"] as const;
export type LiveEvent = (typeof LIVE_EVENTS)[number];

/** Return the state after an event. Pure: each event replaces what one of its name told before. */
export function after(state: LiveState, event: LiveEvent, data: unknown): LiveState {
  switch (event) {
    case "looked": {
      const told = data as { as_of: string | null; away: boolean };
      return { ...state, status: told.away ? "away" : "live", lookedAt: told.as_of };
    }
    case "end":
      return { ...state, status: "ended" };
    default:
      return { ...state, status: "live", [event]: data };
  }
}
