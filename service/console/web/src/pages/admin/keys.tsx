/** API keys: which there are, making one, and revoking one. A secret is shown once and kept nowhere. */
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import { Badge } from "@/ui/badge";
import { DialogBox } from "@/ui/dialog";
import { Field } from "@/ui/field";
import { Absent, Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { namesIn } from "./figures";
import { PurposeFields, Refusal, Scroll, useStated } from "./parts";

type Key = Schemas["ListedKey"];
type Page = Schemas["KeyPage"];
type Made = Schemas["MadeKey"];

const TONES = { valid: "good", revoked: "bad", expired: "warning" } as const;

export default function Keys() {
  const mayRead = useScope("keys:read");
  const mayWrite = useScope("keys:write");
  const found = useInfiniteQuery({
    queryKey: ["keys"],
    enabled: mayRead,
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/keys", {
          params: { query: { limit: 100, ...(pageParam === null ? {} : { cursor: pageParam }) } },
          signal,
        }),
      ),
    getNextPageParam: (last) => last.next_cursor,
  });
  const [making, setMaking] = useState(false);
  const [revoking, setRevoking] = useState<Key | null>(null);
  if (!mayRead) {
    return (
      <Absent
        what="Keys"
        why={
          <>
            Your key or group lacks the scope <code>keys:read</code>, which the role operator has.
          </>
        }
      />
    );
  }
  if (found.isPending) return <Loading what="keys" />;
  if (found.error !== null) return <Failed error={found.error} retry={() => void found.refetch()} />;
  const items = found.data.pages.flatMap((page) => page.items);
  const first = found.data.pages[0];
  return (
    <>
      <p className="quiet">
        Nobody makes a key that may do more than he may. Making and revoking need a purpose, and are in the
        access log with it. The first key is an owner's: <code>subtext key create</code>.
      </p>
      {mayWrite && (
        <div>
          <button type="button" className="primary" onClick={() => setMaking(true)}>
            Make a key
          </button>
        </div>
      )}
      {items.length === 0 ? (
        <Empty>No key of this tenant is stored.</Empty>
      ) : (
        <Table items={items} onRevoke={setRevoking} />
      )}
      {found.hasNextPage && (
        <button type="button" disabled={found.isFetching} onClick={() => void found.fetchNextPage()}>
          Show older keys
        </button>
      )}
      {making && first !== undefined && <MakeDialog may={first} onClose={() => setMaking(false)} />}
      {revoking !== null && <RevokeDialog of={revoking} onClose={() => setRevoking(null)} />}
    </>
  );
}

function Table({ items, onRevoke }: { items: readonly Key[]; onRevoke: (key: Key) => void }) {
  return (
    <Scroll label="Keys">
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">May</th>
            <th scope="col">Models</th>
            <th scope="col">State</th>
            <th scope="col">Made</th>
            <th scope="col">Expires</th>
            <th scope="col">Last used</th>
            <th scope="col">Act</th>
          </tr>
        </thead>
        <tbody>
          {items.map((key) => (
            <tr key={key.id}>
              <th scope="row">
                <Untrusted text={key.name} limit={120} />
                {key.is_own && <span className="quiet"> (yours)</span>}
              </th>
              <td>
                {key.role !== null && <strong>{key.role}: </strong>}
                {key.scopes.length === 0 ? "nothing" : key.scopes.join(", ")}
              </td>
              <td>
                {key.models === null ? "all" : <Untrusted text={key.models.join(", ")} limit={200} />}
              </td>
              <td>
                <Badge tone={TONES[key.state]}>{key.state}</Badge>
              </td>
              <td>
                <Time at={key.created_at} />
              </td>
              <td>{key.expires_at === null ? "never" : <Time at={key.expires_at} />}</td>
              <td>{key.last_used_at === null ? "never" : <Time at={key.last_used_at} />}</td>
              <td>
                {key.may_revoke ? (
                  <button type="button" onClick={() => onRevoke(key)} aria-label={`Revoke ${key.name}`}>
                    Revoke
                  </button>
                ) : (
                  <span className="quiet">{key.state === "valid" ? "may do more than you" : "none"}</span>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function MakeDialog({ may, onClose }: { may: Page; onClose: () => void }) {
  const queries = useQueryClient();
  const purpose = useStated();
  const [name, setName] = useState("");
  const [role, setRole] = useState(may.grantable_roles[0] ?? "");
  const [scopes, setScopes] = useState<readonly string[]>([]);
  const [models, setModels] = useState("");
  const [days, setDays] = useState("90");
  const [secret, setSecret] = useState("");
  const make = useMutation({
    mutationFn: () =>
      take(
        api.POST("/v1/keys", {
          headers: purpose.headers,
          body: {
            name,
            models: namesIn(models),
            expires_in_days: Number(days),
            own_secret: secret,
            ...(role === "" ? { scopes: [...scopes] } : { role }),
          } as Schemas["AskedKey"],
        }),
      ),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["keys"] }),
  });
  if (make.data !== undefined) return <SecretDialog made={make.data} onClose={onClose} />;
  return (
    <DialogBox title="Make a key" isOpen onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          make.mutate();
        }}
      >
        <Field label="Name" hint="The access log keeps it.">
          <input value={name} maxLength={128} required onChange={(event) => setName(event.target.value)} />
        </Field>
        <Field label="Role" hint="Roles of which you have every scope.">
          <select value={role} onChange={(event) => setRole(event.target.value)}>
            {may.grantable_roles.map((one) => (
              <option key={one}>{one}</option>
            ))}
            <option value="">single scopes</option>
          </select>
        </Field>
        {role === "" && (
          <fieldset className="choices scopes">
            <legend>Scopes</legend>
            {may.grantable_scopes.map((scope) => (
              <label key={scope}>
                <input
                  type="checkbox"
                  checked={scopes.includes(scope)}
                  onChange={(event) =>
                    setScopes(
                      event.target.checked ? [...scopes, scope] : scopes.filter((one) => one !== scope),
                    )
                  }
                />
                {scope}
              </label>
            ))}
          </fieldset>
        )}
        <Field
          label="Models, with commas between"
          hint={`Empty: ${may.grantable_models === null ? "all of the tenant" : may.grantable_models.join(", ")}.`}
        >
          <input value={models} onChange={(event) => setModels(event.target.value)} />
        </Field>
        <Field label="Days until it expires" hint="From 1 to 366.">
          <input
            type="number"
            min={1}
            max={366}
            required
            value={days}
            onChange={(event) => setDays(event.target.value)}
          />
        </Field>
        <Field
          label="Secret of a key that may make keys"
          hint="Yours once more, or the one that you were given: a session alone makes none, so that a stolen one does not."
        >
          <input
            type="password"
            autoComplete="off"
            required
            value={secret}
            onChange={(event) => setSecret(event.target.value)}
          />
        </Field>
        <PurposeFields of={purpose} />
        <Refusal error={make.error} />
        <button type="submit" className="primary" disabled={make.isPending || purpose.fault !== null}>
          Make it
        </button>
      </form>
    </DialogBox>
  );
}

function SecretDialog({ made, onClose }: { made: Made; onClose: () => void }) {
  return (
    <DialogBox title="The key's secret, shown this once" isOpen onClose={onClose}>
      <p>
        Hand it over by a safe way and keep it nowhere else: only its SHA-256 is stored, so nobody can show
        it again.
      </p>
      <code className="secret">{made.secret}</code>
      <button type="button" className="primary" onClick={onClose}>
        I have it
      </button>
    </DialogBox>
  );
}

function RevokeDialog({ of, onClose }: { of: Key; onClose: () => void }) {
  const queries = useQueryClient();
  const purpose = useStated();
  const revoke = useMutation({
    mutationFn: () =>
      take(
        api.POST("/v1/keys/{key_id}/revoke", {
          params: { path: { key_id: of.id } },
          headers: purpose.headers,
        }),
      ),
    onSuccess: async () => {
      await queries.invalidateQueries({ queryKey: ["keys"] });
      onClose();
    },
  });
  return (
    <DialogBox title="Revoke a key" isOpen onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          revoke.mutate();
        }}
      >
        <p>
          <Untrusted text={of.name} limit={120} /> is denied from then on, and so are the sessions that were
          begun with it, and every key that it made. Nothing takes that back.
        </p>
        {of.is_own && <p className="fault">This is your own key: you are signed out by it.</p>}
        <PurposeFields of={purpose} />
        <Refusal error={revoke.error} />
        <button type="submit" className="primary" disabled={revoke.isPending || purpose.fault !== null}>
          Revoke it
        </button>
      </form>
    </DialogBox>
  );
}
