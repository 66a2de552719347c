/** What the review page asks of the service, and what it changes there. */
import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, type Schemas, take } from "@/api/client";
import { QUEUE, queueOf } from "./ahead";
import type { Incident, Report, Shown, Verdict } from "./queue";

const INCIDENT = ["review", "incident"] as const;
const PRECISION = ["review", "precision"] as const;

/** The undecided incidents by severity and age, read again every 20 seconds. */
export function useQueue(shown: Shown) {
  return useInfiniteQuery({ ...queueOf(shown), refetchInterval: 20_000 });
}

/** One incident. It is not read again by the clock: each reading of its texts is an entry in the access log. */
export function useIncident(id: string) {
  return useQuery({ queryKey: [...INCIDENT, id], queryFn: ({ signal }) => getIncident(id, signal) });
}

function getIncident(id: string, signal?: AbortSignal): Promise<Report> {
  const params = { path: { incident_id: id } };
  return take(api.GET("/v1/incidents/{incident_id}", { params, ...(signal && { signal }) }));
}

/** How often people confirmed the flags of a model's concepts, as labels come in. */
export function usePrecision(model: string) {
  return useQuery({
    queryKey: [...PRECISION, model],
    queryFn: ({ signal }) => take(api.GET("/v1/precision", { params: { query: { model } }, signal })),
    refetchInterval: 60_000,
  });
}

/** The terms of Article 73 for one incident; undefined when it has none, as a dismissed one. */
export function useClock(incident: Incident) {
  return useQuery({
    queryKey: ["review", "clock", incident.id, incident.version],
    queryFn: async ({ signal }) => {
      const opened = new Date(incident.opened_at).getTime();
      const query = {
        from: new Date(opened).toISOString(),
        to: new Date(opened + 1000).toISOString(),
        model: incident.model,
        limit: 200,
      };
      const page = await take(api.GET("/v1/reporting-clocks", { params: { query }, signal }));
      return {
        label: page.label,
        found: page.items.find((one) => one.incident_id === incident.id) ?? null,
      };
    },
    enabled: incident.state !== "dismissed",
  });
}

export type Decision = {
  version: number;
  to: Verdict;
  reason: Schemas["Transition"]["reason_code"];
  note: string;
  /** Of a confirmation: which concepts hold. */
  concepts: string[];
};

/** What can be done to one incident. Each call names the version that was read, and fails with 409 after another. */
export function useActions(id: string) {
  const queries = useQueryClient();
  const params = { path: { incident_id: id } };

  async function change(version: number, to: Incident["state"], reason: Decision["reason"], more = {}) {
    const body = { version, to, reason_code: reason, ...more };
    return take(api.POST("/v1/incidents/{incident_id}/transitions", { params, body }));
  }

  return {
    /** Read the incident and the queue again; returns the incident. */
    async refresh(): Promise<Report> {
      void queries.invalidateQueries({ queryKey: QUEUE });
      return queries.fetchQuery({
        queryKey: [...INCIDENT, id],
        queryFn: () => getIncident(id),
        staleTime: 0,
      });
    },
    async assign(version: number, assignee: "me" | "none"): Promise<Incident> {
      return take(
        api.POST("/v1/incidents/{incident_id}/assignee", { params, body: { version, assignee } }),
      );
    },
    acknowledge: (version: number) => change(version, "acknowledged", "under_review"),
    reopen: (version: number) => change(version, "open", "reconsidered"),
    async decide({ version, to, reason, note, concepts }: Decision): Promise<Incident> {
      const held = to === "confirmed" ? { confirmed_concepts: concepts } : {};
      const changed = await change(version, to, reason, { note: note.trim() || null, ...held });
      await Promise.all([
        queries.invalidateQueries({ queryKey: [...INCIDENT, id], refetchType: "none" }),
        queries.invalidateQueries({ queryKey: PRECISION }),
        queries.invalidateQueries({ queryKey: QUEUE }),
      ]);
      return changed;
    },
  };
}
