import { expect, it } from "vitest";
import { bytes, isSame, rootOf } from "./proof";

const text = new TextEncoder();
async function hash(...parts: Uint8Array[]): Promise<Uint8Array> {
  const all = Uint8Array.from(parts.flatMap((part) => [...part]));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
}
const leaf = (n: number) => hash(Uint8Array.of(0), text.encode(String(n)));

/** The tree and the path as RFC 9162 defines them, from the leaves. */
async function tree(leaves: Uint8Array[]): Promise<Uint8Array> {
  if (leaves.length === 1) return leaves[0] as Uint8Array;
  const k = split(leaves.length);
  return hash(Uint8Array.of(1), await tree(leaves.slice(0, k)), await tree(leaves.slice(k)));
}
async function path(index: number, leaves: Uint8Array[]): Promise<Uint8Array[]> {
  if (leaves.length === 1) return [];
  const k = split(leaves.length);
  return index < k
    ? [...(await path(index, leaves.slice(0, k))), await tree(leaves.slice(k))]
    : [...(await path(index - k, leaves.slice(k))), await tree(leaves.slice(0, k))];
}
const split = (n: number) => 2 ** Math.floor(Math.log2(n - 1));

it.each([1, 2, 3, 5, 8, 13])("of %i leaves each leads to the root, and no other does", async (size) => {
  const leaves = await Promise.all(Array.from({ length: size }, (_, n) => leaf(n)));
  const root = await tree(leaves);
  for (let index = 0; index < size; index++) {
    const proof = await path(index, leaves);
    const led = await rootOf(index, size, leaves[index] as Uint8Array, proof);
    expect(led !== null && isSame(led, root)).toBe(true);
    const wrong = await rootOf(index, size, await leaf(99), proof);
    expect(wrong !== null && isSame(wrong, root)).toBe(false);
  }
});

it("refuses a place outside the tree and a path that is too long", async () => {
  expect(await rootOf(3, 3, await leaf(0), [])).toBeNull();
  expect(await rootOf(0, 1, await leaf(0), [await leaf(1)])).toBeNull();
  expect(bytes("AAE=")).toEqual(Uint8Array.of(0, 1));
});
