/** The page's address: which request, capture, model, layer, position and lens. */

/** Return the request's id as the address has it, or null where the address cannot be read. */
export function requestInAddress(pathname: string, base: string): string | null {
  const start = `${base}/requests/`;
  if (!pathname.startsWith(start)) return null;
  try {
    // Not by the router, which decodes a part of it and would make "%2525" of "%25".
    return decodeURIComponent(pathname.slice(start.length));
  } catch {
    return null;
  }
}

export type Selection = {
  capture: string | null;
  model: string | null;
  layer: number | null;
  position: number | null;
  lens: string | null;
};

export function selectionOf(search: string): Selection {
  const found = new URLSearchParams(search);
  return {
    capture: found.get("capture"),
    model: found.get("model"),
    layer: numberOf(found.get("layer")),
    position: numberOf(found.get("position")),
    lens: found.get("lens"),
  };
}

export function searchOf(selection: Selection): string {
  const made = new URLSearchParams();
  for (const [name, value] of Object.entries(selection)) if (value !== null) made.set(name, String(value));
  return made.toString();
}

function numberOf(text: string | null): number | null {
  return text !== null && /^\d{1,9}$/.test(text) ? Number(text) : null;
}
