/** Return what the service wrote into the page about itself, or null. */
export function told(name: "issuer" | "grafana" | "scopes"): string | null {
  return document.querySelector<HTMLMetaElement>(`meta[name="subtext-${name}"]`)?.content || null;
}
