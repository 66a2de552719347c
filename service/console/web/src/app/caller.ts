/** Who is signed in, as the service says; without what draws pages, since it is asked before that has come. */
import { queryOptions } from "@tanstack/react-query";
import { ApiError, api, type Schemas, take } from "@/api/client";

export type SignedInCaller = Schemas["SignedInCaller"];
export type Rights = Pick<SignedInCaller, "scopes">;

export const SESSION = ["session"] as const;

/** Tell whether the caller has a scope; `admin` stands for all. */
export function hasScope({ scopes }: Rights, scope: string): boolean {
  return scopes.includes(scope) || scopes.includes("admin");
}

/** Who is signed in. */
export const SESSION_QUERY = queryOptions({
  queryKey: SESSION,
  queryFn: async ({ signal }) => {
    const key = keyInAddress();
    try {
      // Who is signed in stays so: a link must make nobody work under another's key unseen.
      return await take(api.GET("/auth/session", { signal }));
    } catch (error) {
      if (key === null || !isOver(error)) throw error;
      return signIn(key);
    }
  },
  staleTime: 60_000,
});

export async function signIn(key: string): Promise<SignedInCaller> {
  await take(api.POST("/auth/key", { headers: { Authorization: `Bearer ${key}` } }));
  return take(api.GET("/auth/session"));
}

export function isOver(error: unknown): error is ApiError {
  return error instanceof ApiError && [401, 403].includes(error.status);
}

/** A key after `#key=` signs in who is not, as the demo's address does; it leaves the address bar and the history. */
function keyInAddress(): string | null {
  const found = new URLSearchParams(location.hash.slice(1)).get("key");
  if (found !== null) history.replaceState(null, "", location.pathname + location.search);
  return found;
}
