import { expect, it } from "vitest";
import { requestInAddress, searchOf, selectionOf } from "./address";

it.each(["chat-1", "a/b c", "100%", "%25", "..x", "javascript:alert(1)", "日本\u202e", "a\nb", "?#&"])(
  "reads the id %j out of its address",
  (id) => {
    expect(requestInAddress(`/p/console/requests/${encodeURIComponent(id)}`, "/p/console")).toBe(id);
  },
);

it("reads no id where there is none", () => {
  expect(requestInAddress("/console/requests/%E0%A4%A", "/console")).toBeNull();
  expect(requestInAddress("/console/search", "/console")).toBeNull();
});

it("keeps a selection, and takes nothing for a position but a number", () => {
  const selection = { capture: "c", model: "m", layer: 20, position: 41, lens: "anomaly" };
  expect(selectionOf(searchOf(selection))).toEqual(selection);
  expect(selectionOf("position=-1&layer=x")).toEqual({
    capture: null,
    model: null,
    layer: null,
    position: null,
    lens: null,
  });
});
