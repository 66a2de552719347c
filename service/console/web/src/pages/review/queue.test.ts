import { describe, expect, it } from "vitest";
import { type Event, type Incident, isSame, nextAfter, shownOf, since, tickedAtFirst, told } from "./queue";

const ME = { key_id: "k", issuer: null, person: null };
const NOBODY = { key_id: null, issuer: null, person: null };
const ANN = { key_id: null, issuer: "https://login.example", person: "ann" };

function incident(id: string, more: object = {}): Incident {
  return { id, state: "open", proposal: null, flags: [], ...more } as unknown as Incident;
}

function event(version: number, kind: string, more: object = {}): Event {
  const same = {
    from_state: "open",
    to_state: "open",
    reason_code: null,
    findings: [],
    assignee: null,
    ...NOBODY,
  };
  return { version, kind, severity: "critical", ...same, ...more } as unknown as Event;
}

describe("nextAfter", () => {
  const queue = [incident("a"), incident("b"), incident("c", { state: "confirmed" }), incident("d")];

  it("goes down the queue, past what is decided, and then begins at the top", () => {
    expect(nextAfter(queue, "a", 0, ME)).toBe("b");
    expect(nextAfter(queue, "b", 1, ME)).toBe("d");
    expect(nextAfter(queue, "d", 3, ME)).toBe("a");
  });

  it("goes on from where an incident stood that has left the queue", () => {
    expect(nextAfter(queue, "gone", 1, ME)).toBe("b");
    expect(nextAfter([], "gone", 1, ME)).toBeNull();
  });

  it("passes what waits for another reviewer", () => {
    const mine = incident("b", { proposal: { ...ME, to: "confirmed", labels: {} } });
    const others = incident("c", { proposal: { ...ANN, to: "confirmed", labels: {} } });
    expect(nextAfter([incident("a"), mine, others], "a", 0, ME)).toBe("c");
    expect(nextAfter([incident("a"), mine], "a", 0, ME)).toBeNull();
  });
});

it("tells reviewers apart by key, or by issuer and person", () => {
  expect(isSame(ME, { ...ME })).toBe(true);
  expect(isSame(ANN, { ...ANN })).toBe(true);
  expect(isSame(ANN, { ...ANN, issuer: "https://other.example" })).toBe(false);
  expect(isSame(ME, ANN)).toBe(false);
  expect(isSame(NOBODY, NOBODY)).toBe(false);
  expect(isSame(null, ME)).toBe(false);
});

it("tells what happened since a version was read", () => {
  const events = [event(1, "opened"), event(2, "assigned", { assignee: { ...ME, key_name: "night" } })];
  expect(since(events, 1).map(told)).toEqual(["assigned it to night"]);
  expect(since(events, 2)).toEqual([]);
});

it.each([
  [event(1, "opened"), "opened, critical"],
  [event(2, "evidence", { findings: [{ kind: "anomaly", concept: null }] }), "further finding: anomaly"],
  [event(3, "reopened", { findings: [{ concept: "weapons" }] }), "opened again by a finding: weapons"],
  [event(4, "assigned"), "let it go"],
  [event(4, "assigned", { ...ANN, assignee: ANN }), "took it"],
  [
    event(5, "proposed", { proposed_state: "dismissed", reason_code: "reading_wrong" }),
    "gave the first of two verdicts: dismissed (reading wrong)",
  ],
  [
    event(6, "triaged", { to_state: "confirmed", reason_code: "seen_elsewhere" }),
    "open → confirmed (seen elsewhere)",
  ],
])("tells an event", (happened, sentence) => {
  expect(told(happened)).toBe(sentence);
});

it("ticks the only concept, and of several those that a first reviewer confirmed", () => {
  const flags = [{ concept: "fraud" }, { concept: "harm" }];
  expect(tickedAtFirst(incident("a", { flags: flags.slice(0, 1) }))).toEqual(["fraud"]);
  expect(tickedAtFirst(incident("a", { flags }))).toEqual([]);
  const proposal = { ...ANN, to: "confirmed", labels: { fraud: false, harm: true } };
  expect(tickedAtFirst(incident("a", { flags, proposal }))).toEqual(["harm"]);
});

it("reads the address", () => {
  expect(shownOf("?show=mine")).toBe("mine");
  expect(shownOf("show=toString")).toBe("all");
});
