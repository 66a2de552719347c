/** The frame around every page: who is signed in, where one is, and how it looks. */
import { Suspense, useState } from "react";
import { Link, Route, Router, Switch, useLocation } from "wouter";
import { CONSOLE } from "@/api/client";
import { ErrorBoundary } from "@/app/error-boundary";
import { useFocusKept } from "@/app/focus";
import { setShortcutsOn, useShortcuts, useShortcutsOn } from "@/app/keys";
import { PurposeControl } from "@/app/purpose";
import { NAVIGATION, PageOf, ROUTES } from "@/app/routes";
import { SessionGate, useSession, useSignOut } from "@/app/session";
import { applyTheme, storedTheme, THEMES, type Theme } from "@/app/theme";
import { told } from "@/app/told";
import { DialogBox } from "@/ui/dialog";
import { Page } from "@/ui/page";
import { Loading } from "@/ui/states";
import { Untrusted } from "@/ui/untrusted";

const REVIEW = "/review";

export function App() {
  return (
    <Router base={CONSOLE}>
      <SessionGate>
        <Frame />
      </SessionGate>
    </Router>
  );
}

function Frame() {
  const [location] = useLocation();
  const grafana = told("grafana");
  useFocusKept();
  return (
    <>
      {/* biome-ignore lint/a11y/useValidAnchor: it does go to a place of this page */}
      <a
        className="skip"
        href="#page"
        onClick={(event) => {
          // The document's base is the console's root: the browser would leave the page for the overview.
          event.preventDefault();
          document.getElementById("page")?.focus();
        }}
      >
        Skip to the page
      </a>
      <header className="frame">
        <Link href="/" className="brand">
          Subtext
        </Link>
        <nav aria-label="Pages">
          {NAVIGATION.map(({ to, name }) => (
            <Link key={to} href={to} aria-current={isAt(location, to) ? "page" : undefined}>
              {name}
            </Link>
          ))}
          {grafana !== null && <a href={grafana}>Grafana</a>}
        </nav>
        <div className="frame-controls">
          <PurposeControl />
          <Settings />
          <Who />
        </div>
      </header>
      <main id="page" tabIndex={-1}>
        <ErrorBoundary key={placeOf(location)}>
          <Suspense fallback={<Loading what="the page" />}>
            <Switch>
              {ROUTES.map((route) => (
                <Route key={String(route.path)} path={route.path}>
                  <PageOf route={route} />
                </Route>
              ))}
              <Route>
                <Page title="No such page">
                  <p>
                    Nothing is at this address. <Link href="/">Go to the overview</Link>.
                  </p>
                </Page>
              </Route>
            </Switch>
          </Suspense>
        </ErrorBoundary>
      </main>
    </>
  );
}

/** What is drawn anew for another address: in the review the queue stays while incidents open beside it. */
function placeOf(location: string): string {
  return isAt(location, REVIEW) ? REVIEW : location;
}

function isAt(location: string, to: string): boolean {
  return to === "/" ? location === "/" : location === to || location.startsWith(`${to}/`);
}

function Who() {
  const session = useSession();
  const signOut = useSignOut();
  return (
    <span className="who">
      <span title={session.roles.join(", ")}>
        <Untrusted text={session.name ?? session.person ?? "unnamed"} limit={40} />
      </span>
      <button type="button" className="plain" onClick={() => void signOut()}>
        Sign out
      </button>
    </span>
  );
}

const HELP: readonly (readonly [string, string])[] = [
  ["J, K", "next and previous row, token or incident"],
  ["Enter", "open what is selected"],
  ["Esc", "close, or go back"],
  ["?", "show this list"],
];

function Settings() {
  const [theme, setTheme] = useState(storedTheme);
  const [open, setOpen] = useState(false);
  const isOn = useShortcutsOn();
  useShortcuts({ "?": () => setOpen(true) });
  return (
    <>
      <button type="button" className="plain" onClick={() => setOpen(true)}>
        Settings
      </button>
      <DialogBox title="Settings" isOpen={open} onClose={() => setOpen(false)}>
        <fieldset className="choices">
          <legend>Theme</legend>
          {THEMES.map((choice) => (
            <label key={choice}>
              <input
                type="radio"
                name="theme"
                checked={choice === theme}
                onChange={() => {
                  applyTheme(choice);
                  setTheme(choice satisfies Theme);
                }}
              />
              {choice}
            </label>
          ))}
        </fieldset>
        <fieldset className="choices">
          <legend>Keyboard</legend>
          <label>
            <input
              type="checkbox"
              checked={isOn}
              onChange={(event) => setShortcutsOn(event.target.checked)}
            />
            single-key shortcuts
          </label>
        </fieldset>
        <dl className="pairs">
          {HELP.map(([key, what]) => (
            <div key={key}>
              <dt>
                <kbd>{key}</kbd>
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
      </DialogBox>
    </>
  );
}
