import { expect, it } from "vitest";
import { readSaved, withSaved, writeSaved } from "./saved-list";

function storage(first: string | null = null) {
  let kept = first;
  return {
    getItem: () => kept,
    setItem: (_: string, value: string) => {
      kept = value;
    },
  };
}

it("keeps what is written, the newest first, one of a name", () => {
  const place = storage();
  const saved = withSaved(withSaved(withSaved([], "a", "q=1"), " b ", "q=2"), "a", "q=3");
  writeSaved(place, saved);
  expect(readSaved(place)).toEqual([
    { name: "a", address: "q=3" },
    { name: "b", address: "q=2" },
  ]);
  expect(withSaved(saved, "  ", "q=4")).toEqual(saved);
});

it("reads nothing where something else is stored", () => {
  for (const broken of ["{", "7", "null", '[null, 7, {"name": 1}]'])
    expect(readSaved(storage(broken))).toEqual([]);
});

it("lives without storage", () => {
  const denied = {
    getItem: () => {
      throw new Error("denied");
    },
    setItem: () => {
      throw new Error("denied");
    },
  };
  expect(readSaved(denied)).toEqual([]);
  expect(writeSaved(denied, [{ name: "a", address: "" }])).toHaveLength(1);
});
