import { expect, it } from "vitest";
import { requestAddress } from "./request-address";

it("names capture, model, layer and position of what was read", () => {
  const found = { request_id: "a/b?c", capture_id: "7", model: "org/tiny", layer: 3 };
  expect(requestAddress(found, 0)).toBe(
    "/requests/a%2Fb%3Fc?capture=7&model=org%2Ftiny&layer=3&position=0",
  );
  expect(requestAddress({ ...found, capture_id: null })).toBe(
    "/requests/a%2Fb%3Fc?model=org%2Ftiny&layer=3",
  );
});
