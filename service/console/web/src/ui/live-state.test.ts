import { expect, it } from "vitest";
import { after, NOTHING } from "./live-state";

it("an event replaces what one of its name told before, and nothing else", () => {
  const first = after(NOTHING, "coverage", { models: [1] });
  const second = after(after(first, "readings", { newest: [] }), "coverage", { models: [2] });

  expect(first.status).toBe("live");
  expect(second.coverage).toEqual({ models: [2] });
  expect(second.readings).toEqual({ newest: [] });
  expect(second.incidents).toBeNull();
});

it("a store that is away keeps what was known, and says so", () => {
  const known = after(NOTHING, "coverage", { models: [1] });
  const away = after(known, "looked", { as_of: "2026-11-23T05:00:00Z", away: true });

  expect(away).toMatchObject({
    status: "away",
    lookedAt: "2026-11-23T05:00:00Z",
    coverage: { models: [1] },
  });
  expect(after(away, "looked", { as_of: "2026-11-23T05:00:02Z", away: false }).status).toBe("live");
  expect(after(away, "end", { reason: "access_ended" }).status).toBe("ended");
});
