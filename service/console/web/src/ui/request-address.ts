type Place = {
  request_id: string;
  capture_id: string | null;
  model: string;
  layer: number;
};

/**
 * Return the address of the request page at a capture and layer, and at a position where one is given. Pure.
 *
 * By model and layer the page asks for the positions beside the request, and not behind it.
 */
export function requestAddress({ request_id, capture_id, model, layer }: Place, position?: number): string {
  const at = new URLSearchParams();
  if (capture_id !== null) at.set("capture", capture_id);
  at.set("model", model);
  at.set("layer", String(layer));
  if (position !== undefined) at.set("position", String(position));
  return `/requests/${encodeURIComponent(request_id)}?${at}`;
}
