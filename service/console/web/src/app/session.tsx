/** Who is signed in, and signing in and out. */
import { type QueryKey, useQuery, useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useRef, useState } from "react";
import { ApiError, api, CONSOLE, ROOT, take } from "@/api/client";
import { hasScope, isOver, SESSION, SESSION_QUERY, type SignedInCaller, signIn } from "@/app/caller";
import { statePurpose } from "@/app/purpose-store";
import { told } from "@/app/told";
import { Field } from "@/ui/field";
import { Failed, Loading } from "@/ui/states";

const Signed = createContext<SignedInCaller | null>(null);

/** Return who is signed in; only below SessionGate. */
export function useSession(): SignedInCaller {
  const session = useContext(Signed);
  if (session === null) throw new Error("useSession is used outside SessionGate");
  return session;
}

/** Return whether the caller has a scope; `admin` stands for all. */
export function useScope(scope: string): boolean {
  return hasScope(useSession(), scope);
}

/** Show the console to who is signed in, and the sign-in page to everybody else. */
export function SessionGate({ children }: { children: ReactNode }) {
  const queries = useQueryClient();
  const session = useQuery({
    ...SESSION_QUERY,
    refetchInterval: 60_000,
    refetchOnWindowFocus: "always",
  });
  useForgetting(session.data, isOver(session.error));
  useEffect(
    () =>
      queries.getQueryCache().subscribe(({ query }) => {
        const { error } = query.state;
        const isRefused = error instanceof ApiError && error.status === 401;
        if (isRefused && !isOfSession(query)) void queries.invalidateQueries({ queryKey: SESSION });
      }),
    [queries],
  );
  if (session.isPending) return <Loading what="your session" />;
  if (isOver(session.error)) {
    return <SignIn refused={session.error.code === "missing_credentials" ? null : session.error} />;
  }
  if (session.error !== null && session.data === undefined) {
    return <Failed error={session.error} retry={() => void session.refetch()} />;
  }
  return <Signed.Provider value={session.data ?? null}>{children}</Signed.Provider>;
}

function isOfSession({ queryKey }: { queryKey: QueryKey }): boolean {
  return queryKey[0] === SESSION[0];
}

/** What tells one caller's rights from another's, whichever tab signed him in. */
function identityOf(caller: SignedInCaller): string {
  const { session_id, idle_expires_at, expires_at, ...same } = caller;
  return JSON.stringify(same);
}

/** Forget answers and purpose when a session is over or another one's, and look anew at a page of the past. */
function useForgetting(caller: SignedInCaller | undefined, over: boolean) {
  const queries = useQueryClient();
  const last = useRef<string | null>(null);
  const who = caller === undefined ? null : identityOf(caller);
  useEffect(() => {
    const isAnother = who !== null && last.current !== null && who !== last.current;
    if (who !== null) last.current = who;
    if (!over && !isAnother) return;
    statePurpose(null);
    if (over) queries.removeQueries({ predicate: (query) => !isOfSession(query) });
    else void queries.resetQueries({ predicate: (query) => !isOfSession(query) });
  }, [queries, who, over]);
  useEffect(() => {
    function show(event: PageTransitionEvent) {
      if (event.persisted) void queries.resetQueries();
    }
    window.addEventListener("pageshow", show);
    return () => window.removeEventListener("pageshow", show);
  }, [queries]);
}

function SignIn({ refused }: { refused: Error | null }) {
  const queries = useQueryClient();
  const [key, setKey] = useState("");
  const [error, setError] = useState<Error | null>(refused);
  const [isBusy, setBusy] = useState(false);
  const hasIssuer = told("issuer") !== null;

  async function submit() {
    setBusy(true);
    setError(null);
    try {
      queries.setQueryData(SESSION, await signIn(key));
    } catch (caught) {
      setError(caught as Error);
    } finally {
      setBusy(false);
    }
  }

  return (
    <main className="sign-in">
      <h1>Subtext</h1>
      <p>
        What a deployed model was computing, in words, with the measure of how far each reading can be
        trusted.
      </p>
      {hasIssuer && (
        <p>
          <a className="button primary" href={`${ROOT}/auth/login?next=${encodeURIComponent(CONSOLE)}`}>
            Sign in with your organisation
          </a>
        </p>
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <Field label="API key" hint="An operator makes one: subtext key create --name NAME --role reader">
          <input
            type="password"
            autoComplete="off"
            value={key}
            onChange={(event) => setKey(event.target.value)}
            required
          />
        </Field>
        <button type="submit" className="primary" disabled={isBusy}>
          Sign in
        </button>
      </form>
      {error !== null && (
        <p role="alert" className="fault">
          {error.message}
        </p>
      )}
    </main>
  );
}

/** Return the action that ends the session. */
export function useSignOut(): () => Promise<void> {
  const queries = useQueryClient();
  return async () => {
    const { issuer_logout_url: elsewhere } = await take(api.POST("/auth/logout"));
    statePurpose(null);
    await queries.resetQueries(); // also before leaving: a browser may show the page as it was left
    if (elsewhere) location.assign(elsewhere);
  };
}
